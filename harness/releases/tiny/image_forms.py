"""Image inputs in every form that model types accept, selected by the arguments of a model's forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from harness.releases.tiny.tiny_model import SIDE

Inputs = dict[str, torch.Tensor]
# A form: the arguments that the forward pass must have, separated by spaces, and the function that draws the images.
_Form = tuple[str, Callable[[], Inputs]]


@dataclass(frozen=True, slots=True)
class Pictures:
    """Number and shape of the pictures in a batch.

    `samples` prompts with `per_sample` pictures each; every picture has `rows` x `columns` patches. A vision tower with
    one fixed image size has SIDE x SIDE patches.
    """

    samples: int
    per_sample: int = 1
    rows: int = SIDE
    columns: int = SIDE

    @property
    def count(self) -> int:
        """Return the number of pictures in the batch."""
        return self.samples * self.per_sample

    @property
    def patches(self) -> int:
        """Return the number of patches of each picture."""
        return self.rows * self.columns


def list_image_forms(arguments: frozenset[str], config: Any, pictures: Pictures) -> list[Callable[[], Inputs]]:
    """Return images in every form that a forward pass with these arguments could accept, the most specific form first.

    Equal arguments give the same forms in the same order for all pictures. A form is a function, because noise for
    forms that are never tried would take most of the time.

    Args:
        arguments: the argument names of the forward pass.
        config: the model's configuration; its vision part gives the image size.
        pictures: number and shape of the pictures.
    """

    def accepted(form: Callable[[], Inputs]) -> Callable[[], Inputs]:
        return lambda: {name: value for name, value in form().items() if name in arguments}

    forms = _all_forms(pictures, **_image_dimensions(config))
    return [accepted(form) for needed, form in forms if arguments.issuperset(needed.split())]


def _image_dimensions(config: Any) -> dict[str, int]:
    vision = getattr(config, "vision_config", None) or getattr(config, "vq_config", None) or config
    vision = getattr(vision, "sam_config", vision)
    high = getattr(config, "high_res_vision_config", None)

    def number(*names: str, otherwise: int, parts: tuple[Any, ...] = (vision, config)) -> int:
        for value in (getattr(part, name, None) for part in parts for name in names):
            first = value[0] if isinstance(value, (list, tuple)) and value else value
            if isinstance(first, int) and not isinstance(first, bool) and first > 0:
                return first
        return otherwise

    patch = number("patch_size", otherwise=16)
    size = number("image_size", "resolution", otherwise=SIDE * patch)
    return {
        "size": size,
        "large": number("image_size", otherwise=size, parts=(high,)),
        "patch": patch,
        "channels": number("num_channels", "in_channels", "in_chans", otherwise=3),
        "frames": number("temporal_patch_size", "patch_temporal", otherwise=1),
    }


def _all_forms(pictures: Pictures, size: int, large: int, patch: int, channels: int, frames: int) -> list[_Form]:
    """Return the pictures in every known form, each paired with the arguments that the forward pass must have.

    Args:
        pictures: number and shape of the pictures.
        size: side of a square picture in pixels.
        large: side of a square picture in pixels for a second vision tower.
        patch: side of a patch in pixels.
        channels: channels per pixel.
        frames: frames per patch.
    """
    n, rows, columns = pictures.count, pictures.rows, pictures.columns
    flat, patches, blocks = channels * patch**2, pictures.patches, pictures.patches // 4
    height, width = size * rows // SIDE, size * columns // SIDE
    high, wide = large * rows // SIDE, large * columns // SIDE

    def pixels(*shape: int, name: str = "pixel_values") -> Inputs:
        return {name: _noise(*shape)}

    def each(**numbers: list[int]) -> Inputs:
        return {name: torch.tensor([row] * n) for name, row in numbers.items()}

    def ones(name: str, *shape: int, dtype: torch.dtype = torch.long) -> Inputs:
        return {name: torch.ones(shape, dtype=dtype)}

    def positions(across: int, down: int) -> Inputs:
        index = torch.arange(across * down)
        return {"image_position_ids": torch.stack([index % across, index // across], dim=1).repeat(n, 1, 1)}

    def bounded(*shape: int) -> Inputs:
        return {"pixel_values": _noise(*shape).sigmoid()}

    def full() -> Inputs:
        return pixels(n, channels, height, width)

    def tiled() -> Inputs:
        return pixels(pictures.samples, pictures.per_sample, channels, height, width)

    def listed() -> Inputs:
        return pixels(n, patches, flat)

    def located() -> Inputs:
        # Each patch begins with its row and column, counted from 1.
        places = positions(columns, rows)["image_position_ids"].float().flip(-1) + 1
        return {"flattened_patches": torch.cat([places, _noise(n, patches, flat)], dim=-1)}

    tiles = (pictures.samples, pictures.per_sample)
    # A wide picture has tiles side by side, after a small copy of the picture, and does not fill their height.
    across = max(1, columns // rows)
    tall = size if across == 1 else size * 3 // 4
    grid, sizes = each(image_grid_thw=[1, rows, columns]), each(image_sizes=[height, width])
    question = each(qformer_input_ids=[*range(20, 25)]) | ones("qformer_attention_mask", n, 5)
    pooling = {"image_token_pooling": torch.arange(n * patches).view(-1, 4)}
    return [
        (
            "image_grid_thw image_merge_sizes",
            lambda: pixels(n * patches, flat) | grid | {"image_merge_sizes": torch.tensor([2] * n)},
        ),
        ("image_grid_thw", lambda: pixels(n * patches, flat * frames) | grid),
        ("image_grid_thw", lambda: pixels(n * patches, channels, patch, patch) | grid),
        ("image_grid_thw", lambda: pixels(n * patches, flat) | grid),
        (
            "image_grid_thw",
            lambda: (
                pixels(n * blocks, 2 * patch, 2 * patch, channels) | each(image_grid_thw=[1, rows // 2, columns // 2])
            ),
        ),
        ("image_grid_hw", lambda: pixels(n * patches, flat) | each(image_grid_hw=[rows, columns])),
        (
            "spatial_shapes pixel_attention_mask",
            lambda: listed() | each(spatial_shapes=[rows, columns]) | ones("pixel_attention_mask", n, patches),
        ),
        (
            "target_sizes",
            lambda: pixels(1, channels, patch, n * patches * patch) | each(target_sizes=[rows, columns]),
        ),
        ("image_position_ids", lambda: bounded(n, patches, flat) | positions(columns, rows)),
        ("image_position_ids", lambda: bounded(n, blocks, 4 * flat) | positions(columns // 2, rows // 2)),
        ("tile_fine_mask", lambda: tiled() | ones("pixel_attention_mask", *tiles, dtype=torch.bool)),
        (
            "image_token_pooling",
            lambda: listed() | pooling | each(image_grids=[rows // 2, columns // 2, 0, 0]) | ones("image_num_crops", n),
        ),
        (
            "flattened_patches",
            lambda: located() | {"width": torch.tensor([columns] * n), "height": torch.tensor([rows] * n)},
        ),
        (
            "pixel_attention_mask",
            lambda: tiled() | ones("pixel_attention_mask", *tiles, height, width, dtype=torch.bool),
        ),
        ("image_sizes", lambda: pixels(n, 1 + across, channels, size, size) | each(image_sizes=[tall, size * across])),
        ("image_sizes", lambda: full() | sizes),
        ("pixel_values_images", lambda: pixels(n, channels, height, width, name="pixel_values_images")),
        (
            "high_res_pixel_values",
            lambda: full() | pixels(n, channels, high, wide, name="high_res_pixel_values"),
        ),
        ("qformer_input_ids", lambda: full() | question),
        ("pixel_values", full),
        ("pixel_values", tiled),
        ("pixel_values qformer_input_ids", lambda: tiled() | question),
        ("pixel_values", lambda: pixels(n * blocks, frames, patch, patch, channels)),
        ("image_patches", lambda: pixels(n, patches, flat, name="image_patches")),
    ]


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
