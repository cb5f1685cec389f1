"""Encoding of samples into model inputs and token groups."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image

from harness.data.sample import Sample
from harness.errors import first_line
from harness.interface import option_text
from harness.models.prompts.chat import Prompt, PromptError, image_tokens, write_prompt
from harness.models.prompts.hashes import InputHashes, hash_rows
from harness.models.prompts.processor_call import call_processor

#: A function from model inputs to the mask of image positions, bool (batch, tokens).
ImagePositions = Callable[[Mapping[str, torch.Tensor]], torch.Tensor]
# A size that any processor of photographs accepts, and mid grey.
_PLAIN_SIZE, _GREY = (336, 336), (128, 128, 128)


class UnevenPromptsError(PromptError):
    """Prompts of different length cannot share a batch: padding would change what the model computes."""


@dataclass(frozen=True, slots=True)
class TokenGroups:
    """Masks of the token groups of a batch, bool of shape (batch, tokens) each.

    `image`: the positions of the image features. `text`: all other tokens except BOS, padding, and the row and tile
    ends that some processors put between image tokens and after the last. `instruction`: the part of the text that the
    user wrote. `other`: all real tokens outside image and instruction. `real`: all tokens except padding. The groups
    image, instruction and other partition the real tokens.
    """

    image: torch.Tensor
    text: torch.Tensor
    instruction: torch.Tensor
    other: torch.Tensor
    real: torch.Tensor

    def to(self, device: torch.device) -> TokenGroups:
        """Return the groups on another device."""
        return TokenGroups(*(getattr(self, field).to(device) for field in self.__slots__))


@dataclass(frozen=True, slots=True)
class Batch:
    """Model inputs of some samples (left-padded), their token groups, and a pair of input hashes per sample."""

    inputs: Mapping[str, Any]
    groups: TokenGroups
    hashes: tuple[InputHashes, ...]


def encode(processor: Any, samples: Sequence[Sample], image_positions: ImagePositions) -> Batch:
    """Return the model inputs of `samples` as one left-padded batch, with token groups.

    Raises:
        UnevenPromptsError: padding between the tokens of a prompt, or in another text encoder.
        PromptError: a prompt cannot be written or processed; padding is on the right; a sample has no image tokens or
            fewer than two tokens of text or instruction; or the tokenizer has no character offsets or does not decode
            to the instruction.
    """
    # A batch usually has one instruction, and a foreign template is rendered in a process of its own.
    written = {text: write_prompt(processor, text) for text in dict.fromkeys(sample.instruction for sample in samples)}
    prompts = [written[sample.instruction] for sample in samples]
    inputs, received = call_processor(processor, samples, prompts)
    real = inputs["attention_mask"].bool()
    _refuse_padding(processor, inputs, real)
    groups = _groups(processor, samples, prompts, inputs["input_ids"], real, image_positions(inputs), received)

    def encode_alone(row: int) -> Mapping[str, Any]:
        separate, _ = call_processor(processor, samples[row : row + 1], prompts[row : row + 1])
        if separate["input_ids"][0].tolist() != inputs["input_ids"][row][real[row]].tolist():
            raise PromptError(
                f"{type(processor).__name__} gives sample {samples[row].id} different tokens alone than in a batch; "
                f"measure with {option_text('batch_size', '1')}"
            )
        return separate

    return Batch(inputs, groups, hash_rows(inputs, real, encode_alone))


def _refuse_padding(processor: Any, inputs: Mapping[str, Any], real: torch.Tensor) -> None:
    """Raise if padding follows a real token, or if another text encoder has padding.

    Other text encoders, such as a Q-Former, count positions from the left, including padding.
    """
    name = type(processor).__name__
    if not bool(real[:, -1].all()):
        raise PromptError(
            "the batch is padded on the right, but the last prompt token must be a real token: pad on the left"
        )
    others = [key.removesuffix("input_ids") + "attention_mask" for key in inputs if key.endswith("_input_ids")]
    padded = [key for key in others if key in inputs and not bool(inputs[key].all())]
    if not bool((real[:, 1:] >= real[:, :-1]).all()):
        padded = ["attention_mask", *padded]
    if padded:
        raise UnevenPromptsError(
            f"{name} pads prompts of different length between their tokens ({padded[0]}), which changes what the model "
            f"computes; measure with {option_text('batch_size', '1')}, or use the same instruction for all samples"
        )


def _groups(
    processor: Any,
    samples: Sequence[Sample],
    prompts: Sequence[Prompt],
    ids: torch.Tensor,
    real: torch.Tensor,
    positions: torch.Tensor,
    received: Sequence[tuple[str, Any]],
) -> TokenGroups:
    image = positions.to(real.device) & real
    written = real & ~image & ~_row_ends(image, ids)
    # Tokens up to BOS, skipping image tokens: InstructBLIP and PaliGemma have their image tokens before BOS.
    leading = (~written | (ids == processor.tokenizer.bos_token_id)).int().cumprod(1).bool()
    text = written & ~leading if processor.tokenizer.bos_token_id is not None else written
    instruction = torch.zeros_like(real)
    for row, in_instruction in enumerate(_instruction_masks(processor, prompts, ids, real, received)):
        instruction[row] = text[row] & in_instruction
        decoded = processor.tokenizer.decode(ids[row][instruction[row]], clean_up_tokenization_spaces=False)
        if _letters(prompts[row].instruction) not in _letters(decoded):
            raise PromptError(
                f"sample {samples[row].id}: the tokens at the instruction's position decode to {decoded!r} instead of "
                f"{prompts[row].instruction!r}"
            )
    for label, mask in (("image", image), ("text", text), ("instruction", instruction)):
        short = (mask.sum(1) < 2).nonzero().flatten().tolist()
        if short and label == "image" and not mask[short[0]].any():
            raise PromptError(
                f"the prompt of sample {samples[short[0]].id} has no image token with the id in the model's "
                f"configuration (image_token_id){_written_token(processor)}: set it to the id of the processor's image "
                "token, or use the processor of this checkpoint"
            )
        if short:
            raise PromptError(
                f"sample {samples[short[0]].id} has {int(mask[short[0]].sum())} {label} tokens, but a mean over pairs "
                f"needs at least 2: use a longer instruction, or check the processor's image token"
            )
    return TokenGroups(image=image, text=text, instruction=instruction, other=real & ~image & ~instruction, real=real)


def _row_ends(image: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Return the mask of row and tile ends, bool (batch, tokens), which belong to the image and not to the text.

    These are the tokens between image tokens, and equal tokens directly after the last image token.
    """
    marks = image.int()
    after = marks.flip(1).cumsum(1).flip(1) == 0
    ends = ~image & (marks.cumsum(1) > 0) & ~after
    for row, last in enumerate((~after).sum(1).tolist()):
        ends[row, last:] = torch.isin(ids[row, last:], ids[row][ends[row]]).int().cumprod(0).bool()
    return ends


def _written_token(processor: Any) -> str:
    tokens = image_tokens(processor)[:1]
    return "".join(
        f"; the processor writes {token!r} with id {processor.tokenizer.convert_tokens_to_ids(token)}"
        for token in tokens
    )


def _instruction_masks(
    processor: Any,
    prompts: Sequence[Prompt],
    ids: torch.Tensor,
    real: torch.Tensor,
    received: Sequence[tuple[str, Any]],
) -> Iterator[torch.Tensor]:
    """Yield for each prompt the mask of tokens that cover characters of the instruction, bool (tokens,)."""
    name = type(processor).__name__
    index = 0
    for row, prompt in enumerate(prompts):
        # Prompts are tokenized in order, possibly with other texts between them.
        while index < len(received) and prompt.instruction and prompt.find_instruction(received[index][0]) < 0:
            index += 1
        if index == len(received):
            raise PromptError(
                f"{name} passes its tokenizer no text that contains the instruction {prompt.instruction!r}, so the "
                "instruction's tokens are unknown"
            )
        text, encoding = received[index]
        index += 1
        if encoding is None:
            raise PromptError(
                f"{name} has the tokenizer {type(processor.tokenizer).__name__}, which has no character offsets "
                "for its tokens; save the checkpoint with a tokenizer.json, the file of the fast tokenizers"
            )
        start = prompt.find_instruction(text)
        end = start + len(prompt.instruction)
        inside = [
            first < end and last > start
            for (first, last), attended in zip(encoding.offsets, encoding.attention_mask, strict=True)
            if attended
        ]
        tokens = [token for token, attended in zip(encoding.ids, encoding.attention_mask, strict=True) if attended]
        positions = real[row].nonzero().flatten()
        row_tokens = ids[row][positions].tolist()
        # Tokens that the processor adds after tokenizing, such as InstructBLIP's queries, precede or follow these.
        shifts = range(len(row_tokens) - len(tokens), -1, -1)
        shift = next((s for s in shifts if row_tokens[s : s + len(tokens)] == tokens), None)
        if shift is None:
            raise PromptError(
                f"{name} changes the tokens of its prompts after tokenizing, so their character offsets are invalid"
            )
        mask = torch.zeros_like(real[row])
        mask[positions[shift : shift + len(tokens)]] = torch.tensor(inside, device=mask.device)
        yield mask


def _letters(text: str) -> str:
    """Return a text in lower case without white space and accents, which some tokenizers lose."""
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(char for char in decomposed if not unicodedata.combining(char) and not char.isspace()).casefold()


def image_refusal(processor: Any, sample: Sample, image_positions: ImagePositions) -> str:
    """Return why a processor rejects a sample's image; empty if it accepts the image.

    Also empty if it rejects a uniform grey image in its place, because then the prompt is the cause.
    """
    try:
        encode(processor, [sample], image_positions)
    except PromptError as error:
        plain = replace(sample, load_image=lambda: Image.new("RGB", _PLAIN_SIZE, _GREY))
        try:
            encode(processor, [plain], image_positions)
        except PromptError:
            return ""
        width, height = sample.load_image().size
        return f"{type(processor).__name__} rejects its image of {width} x {height} pixels ({_problem(error)})"
    return ""


def _problem(error: PromptError) -> str:
    """Return the processor's own error, or the message about its output."""
    cause = error.__cause__
    if cause is None:
        return str(error)
    return ": ".join(filter(None, (type(cause).__name__, first_line(cause, ""))))
