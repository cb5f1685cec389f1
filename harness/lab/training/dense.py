"""The dense attribute loss: predict colour, shape and size of the object that covers a patch.

If the image tokens do not keep the order of the patches, row and column are predicted too. Without positions in the
features, a Q-Former names the objects of a scene but confuses their positions. Stage 0 of
the training uses this loss alone, stage 1 adds it to the caption loss. The head is discarded after training.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from harness.data.scenes import BACKGROUNDS, COLOURS, RADII, SHAPES, SIDE, Scene
from harness.models.bundled.checkpoint import PATCH

NOTHING = -1  # label of a patch that no object covers
_REACH = 4.0  # pixels beyond the radius within which a patch centre counts as covered
_GRID = SIDE // PATCH
_OBJECT_ATTRIBUTES = {"colour": tuple(COLOURS), "shape": SHAPES, "size": tuple(RADII)}
_CLASSES = {key: len(known) for key, known in _OBJECT_ATTRIBUTES.items()} | {"ground": len(BACKGROUNDS), "covered": 2}
_POSITIONS = {"row": _GRID, "column": _GRID}
_OTHER_WEIGHT = 0.3


def patch_labels(scenes: Sequence[Scene], *, positions: bool = False) -> dict[str, torch.Tensor]:
    """Return integer labels by attribute, each (scenes, 36) in raster order of the patches.

    A patch belongs to the object with the nearest centre, if the patch's centre is within the object's radius plus 4
    pixels. Colour, shape and size of other patches are NOTHING. "ground" is the background, "covered" is 0 or 1. With
    `positions`, "row" and "column" are the position of the patch.
    """
    centres = (np.arange(_GRID) + 0.5) * PATCH
    px, py = np.tile(centres, _GRID), np.repeat(centres, _GRID)
    labels = {key: np.full((len(scenes), _GRID**2), NOTHING) for key in _OBJECT_ATTRIBUTES}
    for row, scene in enumerate(scenes):
        placed = scene.placements()
        distance = np.stack([np.hypot(px - p.x, py - p.y) for p in placed])
        nearest = distance.argmin(axis=0)
        reach = np.array([p.radius + _REACH for p in placed])
        covered = distance.min(axis=0) <= reach[nearest]
        for key, known in _OBJECT_ATTRIBUTES.items():
            object_labels = np.array([known.index(getattr(thing, key)) for thing in scene.things])
            labels[key][row] = np.where(covered, object_labels[nearest], NOTHING)
    ground = np.array([tuple(BACKGROUNDS).index(scene.background) for scene in scenes])
    labels["ground"] = np.repeat(ground[:, None], _GRID**2, axis=1)
    labels["covered"] = (labels["colour"] != NOTHING).astype(int)
    if positions:
        labels["row"] = np.tile(np.repeat(np.arange(_GRID), _GRID), (len(scenes), 1))
        labels["column"] = np.tile(np.arange(_GRID), (len(scenes), _GRID))
    return {key: torch.from_numpy(value) for key, value in labels.items()}


class DenseHead(nn.Module):
    """A linear classifier of the attributes from each patch's feature."""

    def __init__(self, width: int, *, positions: bool = False) -> None:
        super().__init__()
        self.classes = _CLASSES | (_POSITIONS if positions else {})
        self.norm = nn.LayerNorm(width)
        self.read = nn.Linear(width, sum(self.classes.values()))

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return scores by attribute, each (images, patches, classes), from features (images, patches, width)."""
        parts = self.read(self.norm(features.float())).split(list(self.classes.values()), dim=-1)
        return dict(zip(self.classes, parts, strict=True))


def dense_loss(
    scores: dict[str, torch.Tensor], labels: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the summed cross-entropies and, by attribute, the share of correctly classified patches."""
    total = torch.zeros(())
    accuracy = {}
    for key, score in scores.items():
        flat, target = score.flatten(0, 1), labels[key].flatten()
        weight = 1.0 if key in _OBJECT_ATTRIBUTES else _OTHER_WEIGHT
        total = total + weight * cross_entropy(flat, target, ignore_index=NOTHING)
        known = target != NOTHING
        accuracy[key] = float((flat.argmax(dim=-1) == target)[known].float().mean())
    return total, accuracy
