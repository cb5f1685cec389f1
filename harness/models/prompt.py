"""From samples to model inputs, and which position belongs to which token group."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harness.data.sample import Sample
from harness.errors import PhaseError

_PLACEHOLDER = "instruction-goes-here"


class PromptError(PhaseError):
    """A prompt could not be encoded, or its token groups could not be told apart."""


@dataclass(frozen=True, slots=True)
class TokenGroups:
    """Which positions of a batch belong to which group; every array is bool of shape (batch, tokens).

    `image`: the positions of the image features. `text`: every other token but BOS and padding. `instruction`: the
    part of the text that the user wrote. `other`: text outside the instruction, and BOS. `real`: everything but
    padding. image, instruction and other partition the real positions.
    """

    image: torch.Tensor
    text: torch.Tensor
    instruction: torch.Tensor
    other: torch.Tensor
    real: torch.Tensor

    def to(self, device: torch.device) -> TokenGroups:
        """The same groups on another device."""
        return TokenGroups(*(getattr(self, field).to(device) for field in self.__slots__))


@dataclass(frozen=True, slots=True)
class InputHashes:
    """SHA-256 (16 hex digits) of what one sample gives the model: its token ids, and its image tensors."""

    tokens: str
    pixels: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Model inputs of some samples (left-padded), their token groups and one pair of input hashes a sample."""

    inputs: Mapping[str, torch.Tensor]
    groups: TokenGroups
    hashes: tuple[InputHashes, ...]


def prompt_text(processor: Any, instruction: str) -> str:
    """The prompt of one image and one instruction in the processor's own chat template.

    Raises:
        PromptError: the processor has no chat template, its template leaves the instruction out, or the instruction
            holds the image token.
    """
    return _located(processor, instruction)[0]


def _located(processor: Any, instruction: str) -> tuple[str, int]:
    """The prompt, and where in it the instruction begins: where another text in its place begins.

    Looking for the instruction itself would find the template's words where the two are alike.
    """
    name = type(processor).__name__
    if not getattr(processor, "chat_template", None):
        raise PromptError(f"{name} has no chat template, so the prompt's form is unknown; set processor.chat_template.")
    if str(processor.image_token) in instruction:
        raise PromptError(
            f"the instruction {instruction!r} holds the image token {processor.image_token}; leave it out: the chat "
            "template puts it where the image goes"
        )

    def prompt(text: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": text}]
        return str(processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True))

    before, found, after = prompt(_PLACEHOLDER).partition(_PLACEHOLDER)
    text = prompt(instruction)
    if not found or text != before + instruction + after:
        raise PromptError(
            f"the chat template of {name} does not contain the instruction {instruction!r} verbatim and once."
        )
    return text, len(before)


def encode(processor: Any, samples: Sequence[Sample], image_token_id: int) -> Batch:
    """The model inputs of `samples` as one left-padded batch, with token groups.

    Raises:
        PromptError: padding on the right or between image and text, a sample without image tokens or with fewer than
            two tokens of text or instruction, or an instruction that the token offsets do not give back.
    """
    prompts = [_located(processor, sample.instruction) for sample in samples]
    encoded = processor(
        images=[sample.picture() for sample in samples],
        text=[text for text, _ in prompts],
        return_tensors="pt",
        text_kwargs={"padding": True, "return_offsets_mapping": True, "padding_side": "left"},
    )
    inputs = {key: value for key, value in encoded.items() if key != "offset_mapping"}
    groups = _groups(processor, samples, prompts, inputs, encoded["offset_mapping"], image_token_id)
    return Batch(inputs, groups, tuple(_hashes(inputs, groups.real, row, len(samples)) for row in range(len(samples))))


def _groups(
    processor: Any,
    samples: Sequence[Sample],
    prompts: Sequence[tuple[str, int]],
    inputs: Mapping[str, torch.Tensor],
    offsets: torch.Tensor,
    image_token_id: int,
) -> TokenGroups:
    ids = inputs["input_ids"]
    real = inputs["attention_mask"].bool()
    if not bool(real[:, -1].all()):
        raise PromptError("the batch is padded on the right; the last prompt token must be a real one: pad on the left")
    masks = {key: mask for key, mask in inputs.items() if key.endswith("attention_mask") and mask.ndim == 2}
    torn = [key for key, mask in masks.items() if not _left_padded(mask.bool(), alone=key == "attention_mask")]
    if torn:
        raise PromptError(
            f"{type(processor).__name__} pads prompts of different length between their tokens ({torn[0]}), which "
            "changes what the model computes; measure with --phase-batch-size 1, or with one instruction for all"
        )
    image = (ids == image_token_id) & real
    written = real & ~image
    first = torch.zeros_like(real)
    # The first that is no image token: InstructBLIP puts its queries before BOS.
    first[torch.arange(len(ids)), written.int().argmax(1)] = True
    bos = first & (ids == processor.tokenizer.bos_token_id) if processor.tokenizer.bos_token_id is not None else ~real
    text = written & ~bos
    instruction = torch.zeros_like(real)
    for row, (sample, (prompt, at)) in enumerate(zip(samples, prompts, strict=True)):
        spans = offsets[row]
        # Expanding the image token moves what stands behind it, so that is counted from the end.
        expanded = 0 <= prompt.find(str(processor.image_token)) < at
        start = at + int(spans[written[row], 1].max()) - len(prompt) if expanded else at
        end = start + len(sample.instruction)
        instruction[row] = text[row] & (spans[:, 0] < end) & (spans[:, 1] > start)
        back = processor.tokenizer.decode(ids[row][instruction[row]], clean_up_tokenization_spaces=False)
        if sample.instruction.strip() not in back:
            raise PromptError(
                f"sample {sample.id}: the token offsets give back {back!r} instead of the instruction "
                f"{sample.instruction!r}"
            )
    for label, mask, least in (("image", image, 2), ("text", text, 2), ("instruction", instruction, 2)):
        short = (mask.sum(1) < least).nonzero().flatten().tolist()
        if short:
            raise PromptError(
                f"sample {samples[short[0]].id} has {int(mask[short[0]].sum())} {label} tokens, but a mean over pairs "
                f"needs at least {least}: use a longer instruction, or check the processor's image token"
            )
    return TokenGroups(image=image, text=text, instruction=instruction, other=real & ~image & ~instruction, real=real)


def _left_padded(mask: torch.Tensor, *, alone: bool) -> bool:
    """Whether no padding stands behind a real token; where the mask is not the decoder's own, whether there is none.

    Other text encoders, such as a Q-Former, count positions from the left, padding included.
    """
    return bool((mask[:, 1:] >= mask[:, :-1]).all()) if alone else bool(mask.all())


def _hashes(inputs: Mapping[str, torch.Tensor], real: torch.Tensor, row: int, batch: int) -> InputHashes:
    tokens = hashlib.sha256(inputs["input_ids"][row][real[row]].numpy().tobytes())
    for key in sorted(key for key in inputs if key.endswith("_input_ids")):
        tokens.update(key.encode() + inputs[key][row].contiguous().numpy().tobytes())
    pixels = hashlib.sha256()
    for key in sorted(key for key in inputs if inputs[key].is_floating_point()):
        tensor = inputs[key]
        if batch > 1 and tensor.shape[0] != batch:
            raise PromptError(
                f"the input {key} has {tensor.shape[0]} rows for {batch} samples, so it is unknown which belong to "
                "which sample; measure with --phase-batch-size 1"
            )
        own = tensor[row] if batch > 1 else tensor
        pixels.update(key.encode() + own.contiguous().numpy().tobytes())
    return InputHashes(tokens.hexdigest()[:16], pixels.hexdigest()[:16])
