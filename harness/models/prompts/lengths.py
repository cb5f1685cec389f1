"""How long the prompts of samples will be, told before they are encoded, so that like goes beside like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.data.sample import Sample

# Two sizes (height, width) that a processor of one resolution makes the same number of image tokens of.
_LIKE, _UNLIKE = [448, 448], [224, 1344]


def expected_lengths(processor: Any, samples: Sequence[Sample]) -> list[int]:
    """Tokens of each sample's prompt, but for what all prompts share.

    The instruction's tokens, and where the processor makes more image tokens of larger pictures, those. It only serves
    to put prompts of like length beside each other: an estimate that is off costs padding, never a number.
    """
    instructions = {sample.instruction for sample in samples}
    words = {text: len(processor.tokenizer(text, add_special_tokens=False).input_ids) for text in instructions}
    lengths = [words[sample.instruction] for sample in samples]
    fixed = _image_tokens(processor, [_LIKE, _UNLIKE])
    if fixed is None or fixed[0] == fixed[1]:
        return lengths
    pictured = _image_tokens(processor, [_size(sample) for sample in samples])
    return lengths if pictured is None else [sum(pair) for pair in zip(lengths, pictured, strict=True)]


def _size(sample: Sample) -> Sequence[int]:
    """Height and width of a sample's picture; any where it cannot be had, which is said when it is encoded."""
    try:
        width, height = sample.picture().size
    except Exception:  # A dataset's own code raises what it likes.
        return _LIKE
    return [height, width]


def _image_tokens(processor: Any, sizes: Sequence[Sequence[int]]) -> list[int] | None:
    """What the processor says of pictures of these sizes, (height, width) each; None where it says nothing."""
    try:
        told = processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"]
    except Exception:  # No public way leads there: what it lacks or cannot take differs from type to type.
        return None
    return list(told) if len(told) == len(sizes) else None
