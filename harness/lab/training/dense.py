"""The dense attribute loss: every patch that a thing covers is asked for the thing's colour, shape and size.

Where the image tokens do not keep the patches' order it is asked for its row and column too: a Q-Former that looks at
features which do not say where they are names the things of a scene and mixes up which is where. The loss teaches the
vision tower before, and beside, the captions. The head is thrown away after training.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from harness.data.scenes import BACKGROUNDS, COLOURS, RADII, SHAPES, SIDE, Scene
from harness.models.bundled.checkpoint import PATCH

NOTHING = -1  # label of a patch that no thing covers
_REACH = 4.0  # pixels beyond the radius at which a patch centre still counts as covered
_GRID = SIDE // PATCH
_OF_THINGS = {"colour": tuple(COLOURS), "shape": SHAPES, "size": tuple(RADII)}
_CLASSES = {key: len(known) for key, known in _OF_THINGS.items()} | {"ground": len(BACKGROUNDS), "covered": 2}
_PLACES = {"row": _GRID, "column": _GRID}
_OTHER_WEIGHT = 0.3


def patch_labels(scenes: Sequence[Scene], *, places: bool = False) -> dict[str, torch.Tensor]:
    """Labels by attribute, each (scenes, 36) of integers in raster order of the patches.

    A patch belongs to the thing whose centre is nearest, if its own centre is within that thing's radius and 4 pixels;
    colour, shape and size of other patches are NOTHING. "ground" is the background, "covered" is 0 or 1; with `places`
    "row" and "column" say where the patch is.
    """
    centres = (np.arange(_GRID) + 0.5) * PATCH
    px, py = np.tile(centres, _GRID), np.repeat(centres, _GRID)
    labels = {key: np.full((len(scenes), _GRID**2), NOTHING) for key in _OF_THINGS}
    for row, scene in enumerate(scenes):
        placed = scene.placements()
        distance = np.stack([np.hypot(px - p.x, py - p.y) for p in placed])
        nearest = distance.argmin(axis=0)
        reach = np.array([p.radius + _REACH for p in placed])
        covered = distance.min(axis=0) <= reach[nearest]
        for key, known in _OF_THINGS.items():
            of_things = np.array([known.index(getattr(thing, key)) for thing in scene.things])
            labels[key][row] = np.where(covered, of_things[nearest], NOTHING)
    ground = np.array([tuple(BACKGROUNDS).index(scene.background) for scene in scenes])
    labels["ground"] = np.repeat(ground[:, None], _GRID**2, axis=1)
    labels["covered"] = (labels["colour"] != NOTHING).astype(int)
    if places:
        labels["row"] = np.tile(np.repeat(np.arange(_GRID), _GRID), (len(scenes), 1))
        labels["column"] = np.tile(np.arange(_GRID), (len(scenes), _GRID))
    return {key: torch.from_numpy(value) for key, value in labels.items()}


class DenseHead(nn.Module):
    """A linear reading of the attributes from each patch's feature."""

    def __init__(self, width: int, *, places: bool = False) -> None:
        super().__init__()
        self.classes = _CLASSES | (_PLACES if places else {})
        self.norm = nn.LayerNorm(width)
        self.read = nn.Linear(width, sum(self.classes.values()))

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Scores by attribute, each (pictures, patches, classes), from features (pictures, patches, width)."""
        parts = self.read(self.norm(features.float())).split(list(self.classes.values()), dim=-1)
        return dict(zip(self.classes, parts, strict=True))


def dense_loss(
    scores: dict[str, torch.Tensor], labels: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the summed cross-entropies and, by attribute, the share of patches that are read correctly."""
    total = torch.zeros(())
    accuracy = {}
    for key, score in scores.items():
        flat, wanted = score.flatten(0, 1), labels[key].flatten()
        weight = 1.0 if key in _OF_THINGS else _OTHER_WEIGHT
        total = total + weight * cross_entropy(flat, wanted, ignore_index=NOTHING)
        known = wanted != NOTHING
        accuracy[key] = float((flat.argmax(dim=-1) == wanted)[known].float().mean())
    return total, accuracy
