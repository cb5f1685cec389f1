"""The forms in which model types take a picture: as data, chosen by the arguments that a model's forward pass has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from harness.releases.sweep.shrink import SIDE

_PATCHES = SIDE * SIDE


@dataclass(frozen=True, slots=True)
class Optics:
    """What a picture must measure: side of the square picture and of a patch in pixels, channels, frames a patch."""

    size: int
    patch: int
    channels: int
    frames: int


Shape = Callable[[Optics, int], Mapping[str, Any]]


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def _packed(o: Optics, n: int) -> torch.Tensor:
    return _noise(n * _PATCHES, o.channels * o.frames * o.patch * o.patch)


def _whole(o: Optics, n: int) -> torch.Tensor:
    return _noise(n, o.channels, o.size, o.size)


def _tiled(o: Optics, n: int) -> torch.Tensor:
    return _noise(n, 1, o.channels, o.size, o.size)


def _grid(n: int) -> torch.Tensor:
    return torch.tensor([[1, SIDE, SIDE]] * n)


def _sizes(o: Optics, n: int) -> torch.Tensor:
    return torch.tensor([[o.size, o.size]] * n)


def _places(n: int) -> torch.Tensor:
    at = torch.arange(_PATCHES)
    return torch.stack([at % SIDE, at // SIDE], dim=1).expand(n, -1, -1).clone()


#: Arguments that the forward pass must have, and what is given; the first form that a model accepts is taken.
FORMS: tuple[tuple[tuple[str, ...], Shape], ...] = (
    (
        ("image_grid_thw", "image_merge_sizes"),
        lambda o, n: {
            "pixel_values": _noise(n * _PATCHES, o.channels * o.patch**2),
            "image_grid_thw": _grid(n),
            "image_merge_sizes": torch.tensor([2] * n),
        },
    ),
    (("image_grid_thw",), lambda o, n: {"pixel_values": _packed(o, n), "image_grid_thw": _grid(n)}),
    (
        ("image_grid_thw",),
        lambda o, n: {"pixel_values": _noise(n * _PATCHES, o.channels, o.patch, o.patch), "image_grid_thw": _grid(n)},
    ),
    (
        ("image_grid_thw",),
        lambda o, n: {"pixel_values": _noise(n * _PATCHES, o.channels * o.patch**2), "image_grid_thw": _grid(n)},
    ),
    (
        ("image_grid_thw",),
        lambda o, n: {
            "pixel_values": _noise(n * 16, 2 * o.patch, 2 * o.patch, o.channels),
            "image_grid_thw": torch.tensor([[1, SIDE // 2, SIDE // 2]] * n),
        },
    ),
    (
        ("image_grid_hw",),
        lambda o, n: {
            "pixel_values": _noise(n * _PATCHES, o.channels * o.patch**2),
            "image_grid_hw": torch.tensor([[SIDE, SIDE]] * n),
        },
    ),
    (
        ("spatial_shapes", "pixel_attention_mask"),
        lambda o, n: {
            "pixel_values": _noise(n, _PATCHES, o.channels * o.patch**2),
            "spatial_shapes": torch.tensor([[SIDE, SIDE]] * n),
            "pixel_attention_mask": torch.ones(n, _PATCHES, dtype=torch.long),
        },
    ),
    (
        ("target_sizes",),
        lambda o, n: {
            "pixel_values": _noise(1, o.channels, o.patch, n * _PATCHES * o.patch),
            "target_sizes": torch.tensor([[SIDE, SIDE]] * n),
        },
    ),
    (
        ("image_position_ids",),
        lambda o, n: {
            "pixel_values": _noise(n, _PATCHES, o.channels * o.patch**2).sigmoid(),
            "image_position_ids": _places(n),
        },
    ),
    (
        ("image_position_ids",),
        lambda o, n: {
            "pixel_values": _noise(n, _PATCHES // 4, o.channels * (2 * o.patch) ** 2).sigmoid(),
            "image_position_ids": _places(n)[:, : _PATCHES // 4],
        },
    ),
    (
        ("tile_fine_mask",),
        lambda o, n: {"pixel_values": _tiled(o, n), "pixel_attention_mask": torch.ones(n, 1, dtype=torch.bool)},
    ),
    (
        ("image_token_pooling",),
        lambda o, n: {
            "pixel_values": _noise(n, _PATCHES, o.channels * o.patch**2),
            "image_token_pooling": torch.arange(n * _PATCHES).view(-1, 4),
            "image_grids": torch.tensor([[SIDE // 2, SIDE // 2, 0, 0]] * n),
            "image_num_crops": torch.ones(n, dtype=torch.long),
        },
    ),
    (
        ("flattened_patches",),
        lambda o, n: {
            "flattened_patches": torch.cat(
                [_places(n).float().flip(-1) + 1, _noise(n, _PATCHES, o.channels * o.patch**2)], dim=-1
            ),
            "width": torch.tensor([SIDE] * n),
            "height": torch.tensor([SIDE] * n),
        },
    ),
    (
        ("pixel_attention_mask",),
        lambda o, n: {
            "pixel_values": _tiled(o, n),
            "pixel_attention_mask": torch.ones(n, 1, o.size, o.size, dtype=torch.bool),
        },
    ),
    (
        ("image_sizes",),
        lambda o, n: {"pixel_values": _noise(n, 2, o.channels, o.size, o.size), "image_sizes": _sizes(o, n)},
    ),
    (("image_sizes",), lambda o, n: {"pixel_values": _whole(o, n), "image_sizes": _sizes(o, n)}),
    (("pixel_values_images",), lambda o, n: {"pixel_values_images": _whole(o, n)}),
    (
        ("high_res_pixel_values",),
        lambda o, n: {"pixel_values": _whole(o, n), "high_res_pixel_values": _noise(n, o.channels, 1024, 1024)},
    ),
    (
        ("qformer_input_ids",),
        lambda o, n: {
            "pixel_values": _whole(o, n),
            "qformer_input_ids": torch.arange(5).repeat(n, 1) + 20,
            "qformer_attention_mask": torch.ones(n, 5, dtype=torch.long),
        },
    ),
    (("pixel_values",), lambda o, n: {"pixel_values": _whole(o, n)}),
    (("pixel_values",), lambda o, n: {"pixel_values": _tiled(o, n)}),
    (
        ("pixel_values", "qformer_input_ids"),
        lambda o, n: {
            "pixel_values": _tiled(o, n),
            "qformer_input_ids": torch.arange(5).repeat(n, 1) + 20,
            "qformer_attention_mask": torch.ones(n, 5, dtype=torch.long),
        },
    ),
    (("pixel_values",), lambda o, n: {"pixel_values": _noise(n * 16, o.frames, o.patch, o.patch, o.channels)}),
    (("image_patches",), lambda o, n: {"image_patches": _noise(n, _PATCHES, o.channels * o.patch**2)}),
)


def optics_of(config: Any) -> Optics:
    """What a picture must measure, by the configuration of the vision part."""
    vision = getattr(config, "vision_config", None) or getattr(config, "vq_config", None) or config
    vision = getattr(vision, "sam_config", vision)

    def number(*names: str, otherwise: int) -> int:
        for place in (vision, config):
            for name in names:
                value = getattr(place, name, None)
                if isinstance(value, (list, tuple)) and value:
                    value = value[0]
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    return value
        return otherwise

    patch = number("patch_size", otherwise=16)
    return Optics(
        size=number("image_size", "resolution", otherwise=SIDE * patch),
        patch=patch,
        channels=number("num_channels", "in_channels", "in_chans", otherwise=3),
        frames=number("temporal_patch_size", "patch_temporal", otherwise=1),
    )


def forms(arguments: frozenset[str], optics: Optics, pictures: int) -> Iterator[dict[str, torch.Tensor]]:
    """Pictures in every form that a forward pass with these arguments could take, the most particular first."""
    for needed, shape in FORMS:
        if arguments.issuperset(needed):
            yield {name: value for name, value in shape(optics, pictures).items() if name in arguments}
