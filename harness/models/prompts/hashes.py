"""Hashes of each sample's model inputs, independent of batching, packing and padding."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harness.models.stored_numbers import content_bytes

# Name endings of inputs that belong to the tokens; all other inputs belong to the pixels.
_TEXTUAL = ("input_ids", "attention_mask", "token_type_ids")
_IMAGE_PREFIXES = ("pixel", "image")
#: Dimensions of a batch of images: batch, channels, height, width.
IMAGE_DIMENSIONS = 4


@dataclass(frozen=True, slots=True)
class InputHashes:
    """SHA-256 (16 hex digits) of the token ids and of the image tensors of one sample."""

    tokens: str
    pixels: str


def hash_rows(
    inputs: Mapping[str, Any], real: torch.Tensor, encode_alone: Callable[[int], Mapping[str, Any]]
) -> tuple[InputHashes, ...]:
    """Return the hashes of every sample of a batch.

    If each sample has one row in every image input, the rows are hashed. If a processor packs the patches of a batch
    into one tensor or pads its images to a common size, each sample is encoded alone.

    Args:
        inputs: the model inputs of the batch, including `input_ids` (batch, tokens).
        real: bool (batch, tokens), False at padding.
        encode_alone: returns the inputs of one sample by itself, for the index of its row in the batch.
    """
    batch, images = len(real), _image_inputs(inputs)
    one_row_each = all(
        isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.ndim == IMAGE_DIMENSIONS
        and value.shape[0] == batch
        for value in images.values()
    )

    def inputs_of(row: int) -> Mapping[str, Any]:
        if batch == 1:
            return images
        return {key: value[row] for key, value in images.items()} if one_row_each else _image_inputs(encode_alone(row))

    return tuple(InputHashes(_tokens(inputs, real, row), _pixels(inputs_of(row))) for row in range(batch))


def is_textual(key: str, value: Any, shape: Sequence[int]) -> bool:
    """Return True if an input belongs to the tokens, by its name or its shape (batch, tokens)."""
    if key.startswith(_IMAGE_PREFIXES):
        return False
    if key.endswith(_TEXTUAL):
        return True
    return isinstance(value, torch.Tensor) and not value.is_floating_point() and value.shape[:2] == tuple(shape)


def negate_images(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return model inputs with the floating image tensors negated; integers, such as sizes, stay."""

    def negated(tensor: torch.Tensor) -> torch.Tensor:
        return -tensor if tensor.is_floating_point() else tensor

    images = _image_inputs(inputs)
    return {key: map_tensors(negated, value) if key in images else value for key, value in inputs.items()}


def map_tensors(change: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """Return a model input with `change` applied to its tensors, also inside lists; other values stay."""
    if isinstance(value, torch.Tensor):
        return change(value)
    return [map_tensors(change, part) for part in value] if isinstance(value, (list, tuple)) else value


def _image_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in inputs.items() if not is_textual(key, value, inputs["input_ids"].shape)}


def _tokens(inputs: Mapping[str, Any], real: torch.Tensor, row: int) -> str:
    digest = hashlib.sha256(inputs["input_ids"][row][real[row]].numpy().tobytes())
    for key in sorted(key for key in inputs if key.endswith("_input_ids")):
        digest.update(key.encode() + inputs[key][row].contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _pixels(images: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for key in sorted(images):
        digest.update(key.encode())
        for part in _leaves(images[key]):
            digest.update(part)
    return digest.hexdigest()[:16]


def _leaves(value: Any) -> list[Any]:
    """Return the bytes of an input: a tensor, a list of tensors, or another value."""
    if isinstance(value, torch.Tensor):
        return [*content_bytes(value)]
    if isinstance(value, (list, tuple)):
        return [leaf for part in value for leaf in _leaves(part)]
    return [repr(value).encode()]
