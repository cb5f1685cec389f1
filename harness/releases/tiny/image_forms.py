"""Image inputs in every form that model types accept, selected by the arguments of a model's forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from harness.releases.tiny.tiny_model import SIDE

_PATCHES = SIDE * SIDE
Inputs = dict[str, torch.Tensor]


def list_image_forms(arguments: frozenset[str], config: Any, images: int) -> Iterator[Inputs]:
    """Yield images in every form that a forward pass with these arguments could accept, the most specific form first.

    Args:
        arguments: the argument names of the forward pass.
        config: the model's configuration; its vision part gives the image size.
        images: the number of images.
    """
    for needed, inputs in _all_forms(images, **_image_dimensions(config)):
        if arguments.issuperset(needed.split()):
            yield {name: value for name, value in inputs.items() if name in arguments}


def _image_dimensions(config: Any) -> dict[str, int]:
    vision = getattr(config, "vision_config", None) or getattr(config, "vq_config", None) or config
    vision = getattr(vision, "sam_config", vision)

    def number(*names: str, otherwise: int) -> int:
        for value in (getattr(part, name, None) for part in (vision, config) for name in names):
            first = value[0] if isinstance(value, (list, tuple)) and value else value
            if isinstance(first, int) and not isinstance(first, bool) and first > 0:
                return first
        return otherwise

    patch = number("patch_size", otherwise=16)
    return {
        "size": number("image_size", "resolution", otherwise=SIDE * patch),
        "patch": patch,
        "channels": number("num_channels", "in_channels", "in_chans", otherwise=3),
        "frames": number("temporal_patch_size", "patch_temporal", otherwise=1),
    }


def _all_forms(n: int, size: int, patch: int, channels: int, frames: int) -> list[tuple[str, Inputs]]:
    """Return `n` images in every known form, each paired with the arguments that the forward pass must have.

    Args:
        n: number of images.
        size: side of the square image in pixels.
        patch: side of a patch in pixels.
        channels: channels per pixel.
        frames: frames per patch.
    """
    flat = channels * patch**2

    def pixels(*shape: int) -> Inputs:
        return {"pixel_values": _noise(*shape)}

    def each(**numbers: list[int]) -> Inputs:
        return {name: torch.tensor([row] * n) for name, row in numbers.items()}

    def ones(name: str, *shape: int, dtype: torch.dtype = torch.long) -> Inputs:
        return {name: torch.ones(n, *shape, dtype=dtype)}

    index = torch.arange(_PATCHES)
    positions = torch.stack([index % SIDE, index // SIDE], dim=1).repeat(n, 1, 1)
    full, tiled = pixels(n, channels, size, size), pixels(n, 1, channels, size, size)
    packed, rows = pixels(n * _PATCHES, flat), pixels(n, _PATCHES, flat)
    grid, sizes = each(image_grid_thw=[1, SIDE, SIDE]), each(image_sizes=[size, size])
    qformer = each(qformer_input_ids=[*range(20, 25)]) | ones("qformer_attention_mask", 5)
    return [
        ("image_grid_thw image_merge_sizes", packed | grid | {"image_merge_sizes": torch.tensor([2] * n)}),
        ("image_grid_thw", pixels(n * _PATCHES, flat * frames) | grid),
        ("image_grid_thw", pixels(n * _PATCHES, channels, patch, patch) | grid),
        ("image_grid_thw", packed | grid),
        (
            "image_grid_thw",
            pixels(n * 16, 2 * patch, 2 * patch, channels) | each(image_grid_thw=[1, SIDE // 2, SIDE // 2]),
        ),
        ("image_grid_hw", packed | each(image_grid_hw=[SIDE, SIDE])),
        (
            "spatial_shapes pixel_attention_mask",
            rows | each(spatial_shapes=[SIDE, SIDE]) | ones("pixel_attention_mask", _PATCHES),
        ),
        ("target_sizes", pixels(1, channels, patch, n * _PATCHES * patch) | each(target_sizes=[SIDE, SIDE])),
        ("image_position_ids", {"pixel_values": rows["pixel_values"].sigmoid(), "image_position_ids": positions}),
        (
            "image_position_ids",
            {
                "pixel_values": _noise(n, _PATCHES // 4, 4 * flat).sigmoid(),
                "image_position_ids": positions[:, : _PATCHES // 4],
            },
        ),
        ("tile_fine_mask", tiled | ones("pixel_attention_mask", 1, dtype=torch.bool)),
        (
            "image_token_pooling",
            rows
            | {"image_token_pooling": torch.arange(n * _PATCHES).view(-1, 4)}
            | each(image_grids=[SIDE // 2, SIDE // 2, 0, 0])
            | ones("image_num_crops"),
        ),
        (
            "flattened_patches",
            {
                "flattened_patches": torch.cat([positions.float().flip(-1) + 1, rows["pixel_values"]], dim=-1),
                "width": torch.tensor([SIDE] * n),
                "height": torch.tensor([SIDE] * n),
            },
        ),
        ("pixel_attention_mask", tiled | ones("pixel_attention_mask", 1, size, size, dtype=torch.bool)),
        ("image_sizes", pixels(n, 2, channels, size, size) | sizes),
        ("image_sizes", full | sizes),
        ("pixel_values_images", {"pixel_values_images": full["pixel_values"]}),
        ("high_res_pixel_values", full | {"high_res_pixel_values": _noise(n, channels, 1024, 1024)}),
        ("qformer_input_ids", full | qformer),
        ("pixel_values", full),
        ("pixel_values", tiled),
        ("pixel_values qformer_input_ids", tiled | qformer),
        ("pixel_values", pixels(n * 16, frames, patch, patch, channels)),
        ("image_patches", {"image_patches": rows["pixel_values"]}),
    ]


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
