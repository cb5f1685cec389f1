"""From samples to model inputs, and which position belongs to which token group."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image

from harness.data.sample import Sample
from harness.errors import first_line
from harness.models.prompts.chat import Prompt, PromptError, image_tokens, write_prompt
from harness.models.prompts.hashes import InputHashes, hash_rows
from harness.models.prompts.processor_call import call_processor

#: Of model inputs: the positions of the image features, bool (batch, tokens).
ImagePositions = Callable[[Mapping[str, torch.Tensor]], torch.Tensor]
# Of a size and shape that any processor of photographs takes.
_PLAIN, _GREY = (336, 336), (128, 128, 128)


class UnevenPromptsError(PromptError):
    """Prompts of different length cannot share a batch: padding would change what the model computes."""


@dataclass(frozen=True, slots=True)
class TokenGroups:
    """Which positions of a batch belong to which group; every array is bool of shape (batch, tokens).

    `image`: the positions of the image features. `text`: every other token but BOS, padding, and the ends of rows
    and tiles that some processors put between image tokens and behind the last. `instruction`: the part of the text
    that the user wrote. `other`: everything real outside of image and instruction. `real`: everything but padding.
    image, instruction and other partition the real positions.
    """

    image: torch.Tensor
    text: torch.Tensor
    instruction: torch.Tensor
    other: torch.Tensor
    real: torch.Tensor

    def to(self, device: torch.device) -> TokenGroups:
        """Return the same groups on another device."""
        return TokenGroups(*(getattr(self, field).to(device) for field in self.__slots__))


@dataclass(frozen=True, slots=True)
class Batch:
    """Model inputs of some samples (left-padded), their token groups and one pair of input hashes a sample."""

    inputs: Mapping[str, Any]
    groups: TokenGroups
    hashes: tuple[InputHashes, ...]


def encode(processor: Any, samples: Sequence[Sample], image_positions: ImagePositions) -> Batch:
    """Return the model inputs of `samples` as one left-padded batch, with token groups.

    Raises:
        UnevenPromptsError: padding between the tokens of a prompt, or in another text encoder.
        PromptError: a prompt cannot be written or processed; padding on the right; a sample without image tokens or
            with fewer than two tokens of text or instruction; or the tokenizer does not say which characters its
            tokens stand for, or does not give the instruction back.
    """
    prompts = [write_prompt(processor, sample.instruction) for sample in samples]
    inputs, heard = call_processor(processor, samples, prompts)
    real = inputs["attention_mask"].bool()
    _refuse_padding(processor, inputs, real)
    groups = _groups(processor, samples, prompts, inputs["input_ids"], real, image_positions(inputs), heard)

    def alone(row: int) -> Mapping[str, Any]:
        one, _ = call_processor(processor, samples[row : row + 1], prompts[row : row + 1])
        if one["input_ids"][0].tolist() != inputs["input_ids"][row][real[row]].tolist():
            raise PromptError(
                f"{type(processor).__name__} gives sample {samples[row].id} other tokens alone than beside others; "
                "measure with --phase-batch-size 1"
            )
        return one

    return Batch(inputs, groups, hash_rows(inputs, real, alone))


def _refuse_padding(processor: Any, inputs: Mapping[str, Any], real: torch.Tensor) -> None:
    """Assert that no padding stands behind a real token, and that other text encoders have none.

    Those, such as a Q-Former, count positions from the left, padding included.
    """
    name = type(processor).__name__
    if not bool(real[:, -1].all()):
        raise PromptError("the batch is padded on the right; the last prompt token must be a real one: pad on the left")
    others = [key.removesuffix("input_ids") + "attention_mask" for key in inputs if key.endswith("_input_ids")]
    torn = [key for key in others if key in inputs and not bool(inputs[key].all())]
    if not bool((real[:, 1:] >= real[:, :-1]).all()):
        torn = ["attention_mask", *torn]
    if torn:
        raise UnevenPromptsError(
            f"{name} pads prompts of different length between their tokens ({torn[0]}), which changes what the model "
            "computes; measure with --phase-batch-size 1, or with one instruction for all"
        )


def _groups(
    processor: Any,
    samples: Sequence[Sample],
    prompts: Sequence[Prompt],
    ids: torch.Tensor,
    real: torch.Tensor,
    positions: torch.Tensor,
    heard: Sequence[tuple[str, Any]],
) -> TokenGroups:
    image = positions.to(real.device) & real
    written = real & ~image & ~_row_ends(image, ids)
    # Before everything else that is no image token: InstructBLIP and PaliGemma have their image tokens before BOS.
    leading = (~written | (ids == processor.tokenizer.bos_token_id)).int().cumprod(1).bool()
    text = written & ~leading if processor.tokenizer.bos_token_id is not None else written
    instruction = torch.zeros_like(real)
    for row, spans in enumerate(_spans(processor, prompts, ids, real, heard)):
        instruction[row] = text[row] & spans
        back = processor.tokenizer.decode(ids[row][instruction[row]], clean_up_tokenization_spaces=False)
        if _letters(prompts[row].instruction) not in _letters(back):
            raise PromptError(
                f"sample {samples[row].id}: the tokens in the instruction's place give back {back!r} instead of "
                f"{prompts[row].instruction!r}"
            )
    for label, mask in (("image", image), ("text", text), ("instruction", instruction)):
        short = (mask.sum(1) < 2).nonzero().flatten().tolist()
        if short and label == "image" and not mask[short[0]].any():
            raise PromptError(
                f"the prompt of sample {samples[short[0]].id} has no image token that the model's configuration knows "
                f"(image_token_id){_written_token(processor)}: set it to the id of the processor's image token, or use "
                "the processor of this checkpoint"
            )
        if short:
            raise PromptError(
                f"sample {samples[short[0]].id} has {int(mask[short[0]].sum())} {label} tokens, but a mean over pairs "
                f"needs at least 2: use a longer instruction, or check the processor's image token"
            )
    return TokenGroups(image=image, text=text, instruction=instruction, other=real & ~image & ~instruction, real=real)


def _row_ends(image: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Return what marks rows and tiles, bool (batch, tokens): it is the picture's, nobody's words.

    These are the tokens between image tokens, and the same ones directly behind the last, as the end of the last row.
    """
    seen = image.int()
    behind = seen.flip(1).cumsum(1).flip(1) == 0
    ends = ~image & (seen.cumsum(1) > 0) & ~behind
    for row, last in enumerate((~behind).sum(1).tolist()):
        ends[row, last:] = torch.isin(ids[row, last:], ids[row][ends[row]]).int().cumprod(0).bool()
    return ends


def _written_token(processor: Any) -> str:
    tokens = image_tokens(processor)[:1]
    return "".join(
        f"; the processor writes {token!r} of id {processor.tokenizer.convert_tokens_to_ids(token)}" for token in tokens
    )


def _spans(
    processor: Any,
    prompts: Sequence[Prompt],
    ids: torch.Tensor,
    real: torch.Tensor,
    heard: Sequence[tuple[str, Any]],
) -> Iterator[torch.Tensor]:
    """Which tokens have characters of the instruction, bool (tokens,), for every prompt."""
    name = type(processor).__name__
    at = 0
    for row, prompt in enumerate(prompts):
        # Prompts are tokenized in their order; a processor may tokenize other texts besides.
        while at < len(heard) and prompt.instruction and prompt.find_instruction(heard[at][0]) < 0:
            at += 1
        if at == len(heard):
            raise PromptError(
                f"{name} gives its tokenizer no text that holds the instruction {prompt.instruction!r}, so it is "
                "unknown which tokens are the instruction's"
            )
        text, encoding = heard[at]
        at += 1
        if encoding is None:
            raise PromptError(
                f"{name} has the tokenizer {type(processor.tokenizer).__name__}, which does not say which characters "
                "its tokens stand for; save the checkpoint with a tokenizer.json, the file of the fast tokenizers"
            )
        start = prompt.find_instruction(text)
        end = start + len(prompt.instruction)
        inside = [
            first < end and last > start
            for (first, last), kept in zip(encoding.offsets, encoding.attention_mask, strict=True)
            if kept
        ]
        tokens = [token for token, kept in zip(encoding.ids, encoding.attention_mask, strict=True) if kept]
        places = real[row].nonzero().flatten()
        whole = ids[row][places].tolist()
        # What a processor adds to the tokens themselves, such as InstructBLIP's queries, stands before or behind them.
        shift = next((s for s in range(len(whole) - len(tokens), -1, -1) if whole[s : s + len(tokens)] == tokens), None)
        if shift is None:
            raise PromptError(f"{name} changes the tokens of its prompts, so their offsets say nothing about them")
        mask = torch.zeros_like(real[row])
        mask[places[shift : shift + len(tokens)]] = torch.tensor(inside, device=mask.device)
        yield mask


def _letters(text: str) -> str:
    """Return a text without white space, capitals and accents, which some tokenizers do not keep."""
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(sign for sign in decomposed if not unicodedata.combining(sign) and not sign.isspace()).casefold()


def image_refusal(processor: Any, sample: Sample, image_positions: ImagePositions) -> str:
    """Return why a processor refuses a sample's picture; empty where it takes it.

    Also empty where it refuses a plain grey picture in its place: then the prompt is at fault, and no picture.
    """
    try:
        encode(processor, [sample], image_positions)
    except PromptError as error:
        plain = replace(sample, load_image=lambda: Image.new("RGB", _PLAIN, _GREY))
        try:
            encode(processor, [plain], image_positions)
        except PromptError:
            return ""
        width, height = sample.load_image().size
        return f"{type(processor).__name__} refuses its picture of {width} x {height} pixels ({_problem(error)})"
    return ""


def _problem(error: PromptError) -> str:
    """Return the processor's own error, or the sentence about what it gave."""
    cause = error.__cause__
    if cause is None:
        return str(error)
    return ": ".join(filter(None, (type(cause).__name__, first_line(cause, ""))))
