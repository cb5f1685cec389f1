"""One hash a sample of what the model is given: the same alone and in a batch, whatever a processor packs or pads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harness.models.stored_numbers import content_bytes

# Of inputs that go with the tokens; every other input goes with the pixels.
_TEXTUAL = ("input_ids", "attention_mask", "token_type_ids")
_PICTORIAL = ("pixel", "image")
#: Dimensions of a batch of pictures: batch, channels, height, width.
IMAGE_DIMENSIONS = 4


@dataclass(frozen=True, slots=True)
class InputHashes:
    """SHA-256 (16 hex digits) of what one sample gives the model: its token ids, and its image tensors."""

    tokens: str
    pixels: str


def hash_rows(
    inputs: Mapping[str, Any], real: torch.Tensor, alone: Callable[[int], Mapping[str, Any]]
) -> tuple[InputHashes, ...]:
    """Return the hashes of every sample of a batch.

    Where each sample has one picture in every image input, its rows are hashed. Where a processor packs the patches of
    a batch into one tensor, or pads its pictures to a common size, `alone` gives the inputs of one sample by itself.

    Args:
        inputs: those of the batch, `input_ids` (batch, tokens) among them.
        real: bool (batch, tokens), False at padding.
        alone: takes a row of the batch.
    """
    batch, pictures = len(real), _pictures(inputs)
    simple = all(
        isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.ndim == IMAGE_DIMENSIONS
        and value.shape[0] == batch
        for value in pictures.values()
    )

    def own(row: int) -> Mapping[str, Any]:
        if batch == 1:
            return pictures
        return {key: value[row] for key, value in pictures.items()} if simple else _pictures(alone(row))

    return tuple(InputHashes(_tokens(inputs, real, row), _pixels(own(row))) for row in range(batch))


def is_textual(key: str, value: Any, shape: Sequence[int]) -> bool:
    """Whether an input goes with the tokens, by its name or by the shape (batch, tokens) of the ids."""
    if key.startswith(_PICTORIAL):
        return False
    if key.endswith(_TEXTUAL):
        return True
    return isinstance(value, torch.Tensor) and not value.is_floating_point() and value.shape[:2] == tuple(shape)


def negate_images(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return model inputs with every number of the pictures negated; whole numbers, as sizes are, stay."""

    def negated(tensor: torch.Tensor) -> torch.Tensor:
        return -tensor if tensor.is_floating_point() else tensor

    pictures = _pictures(inputs)
    return {key: map_tensors(negated, value) if key in pictures else value for key, value in inputs.items()}


def map_tensors(change: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """Return a model input with its tensors changed, also those in lists; anything else stays."""
    if isinstance(value, torch.Tensor):
        return change(value)
    return [map_tensors(change, part) for part in value] if isinstance(value, (list, tuple)) else value


def _pictures(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in inputs.items() if not is_textual(key, value, inputs["input_ids"].shape)}


def _tokens(inputs: Mapping[str, Any], real: torch.Tensor, row: int) -> str:
    digest = hashlib.sha256(inputs["input_ids"][row][real[row]].numpy().tobytes())
    for key in sorted(key for key in inputs if key.endswith("_input_ids")):
        digest.update(key.encode() + inputs[key][row].contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _pixels(pictures: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for key in sorted(pictures):
        digest.update(key.encode())
        for part in _leaves(pictures[key]):
            digest.update(part)
    return digest.hexdigest()[:16]


def _leaves(value: Any) -> list[Any]:
    """Return the bytes of an input: of a tensor, of all in a list of them, or of numbers."""
    if isinstance(value, torch.Tensor):
        return [*content_bytes(value)]
    if isinstance(value, (list, tuple)):
        return [leaf for part in value for leaf in _leaves(part)]
    return [repr(value).encode()]
