"""Log-likelihoods of captions given an image, and Winoground's scores computed from them.

Source: Thrush et al. 2022, section 3: text score s(c0, i0) > s(c1, i0) and s(c1, i1) > s(c0, i1); image score
s(c0, i0) > s(c0, i1) and s(c1, i1) > s(c1, i0); group score both. Here s is the log-likelihood of the caption.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.sample import Sample
from harness.models.forward_pass import forward_pass
from harness.models.kinds import kind_of
from harness.models.prompts.chat import PromptError, prompt_text
from harness.models.prompts.hashes import is_textual
from harness.models.prompts.prompt import Batch, encode
from harness.models.vlm import Vlm

#: Chance level of each score, in the order of `winoground_scores`.
CHANCE = {"text": 1 / 4, "image": 1 / 4, "group": 1 / 6}
LIKELIHOOD_POLICY = (
    "sum over the caption's tokens and the end of text, after the prompt; a space between where the prompt does not "
    "end in white space"
)
# Relative tolerance between rows of one forward pass.
_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3}


@torch.inference_mode()
def caption_likelihoods(vlm: Vlm, samples: Sequence[Sample], captions: Sequence[str]) -> NDArray[np.float64]:
    """Return the log-likelihood of each caption as the answer to its sample's prompt, in nats, float64 (n,).

    Each caption costs one forward pass over prompt and caption; `CaptionScorer` shares the pass over the prompt. The
    captions are appended to the encoded prompts, so no other part of the model, such as a Q-Former, reads them.

    Raises:
        PromptError: a prompt cannot be encoded, or it attends to the caption that follows it.
        ForwardError: the model's code fails.
    """
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    targets, is_token = answer_tokens(vlm.processor, samples, captions)
    longest = targets.shape[1]
    inputs = answered_inputs(batch, vlm.model.config.model_type, targets, is_token)
    # Some models ignore the request and return the logits of all positions.
    ids = [sample.id for sample in samples]
    logits = forward_pass(vlm, inputs, batch.groups.image, ids, positions=longest + 1).logits
    logits = logits[:, -longest - 1 : -1]
    _check_caption_is_unseen(vlm, batch, logits[:, 0].float())
    return summed_likelihoods(log_probabilities(logits[is_token.to(logits.device)], targets[is_token]), is_token)


def answer_tokens(
    processor: Any, samples: Sequence[Sample], captions: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tokens of each caption after its sample's prompt, (n, longest), and a mask that is False at padding.

    Padding after the captions affects no logit that is read; zero is a token of every vocabulary.
    """
    answers = [_answer(processor, sample.instruction, text) for sample, text in zip(samples, captions, strict=True)]
    longest = max(map(len, answers))
    targets = torch.tensor([answer + [0] * (longest - len(answer)) for answer in answers])
    return targets, torch.tensor([[k < len(answer) for k in range(longest)] for answer in answers])


def log_probabilities(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the log-probability of each target, in nats on the CPU, (n,), from its logits, (n, vocabulary)."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.log_softmax(-1).gather(1, targets.to(logits.device)[:, None])[:, 0].cpu()


def summed_likelihoods(values: torch.Tensor, is_token: torch.Tensor) -> NDArray[np.float64]:
    """Return the sum of each row's log-probabilities, float64 (n,); `values` has those of all tokens, row by row."""
    table = torch.zeros(is_token.shape, dtype=torch.float64)
    table[is_token] = values.double()
    return np.asarray(table.sum(1))


def answered_inputs(batch: Batch, model_type: str, targets: torch.Tensor, is_token: torch.Tensor) -> dict[str, Any]:
    """Return the inputs with the captions' tokens after the prompts, and every per-token input extended to match."""
    added = {"input_ids": targets, "attention_mask": is_token.long()}
    inputs, shape, kind = dict(batch.inputs), batch.inputs["input_ids"].shape, kind_of(model_type)
    for key, value in batch.inputs.items():
        if key == kind.image_input:
            # The mask of image positions.
            inputs[key] = torch.cat([value, torch.zeros_like(targets, dtype=value.dtype)], 1)
        elif is_textual(key, value, shape) and value.shape == shape:
            extension = added.get(key, torch.full_like(targets, kind.answer_type))
            inputs[key] = torch.cat([value, extension.to(value.dtype)], 1)
    return inputs


def _check_caption_is_unseen(vlm: Vlm, batch: Batch, logits: torch.Tensor) -> None:
    """Raise `PromptError` if the last logits of a prompt, (batch, vocabulary), depend on the caption after it."""
    for row, hashes in enumerate(batch.hashes):
        first = batch.hashes.index(hashes)
        difference = float((logits[row] - logits[first]).abs().max())
        if difference > _TOLERANCE.get(vlm.dtype, 5e-2) * float(logits[first].abs().max()):
            raise PromptError(
                f"{vlm.name}: the last logits of a prompt differ by {difference:.2g} with the caption after it, so the "
                "prompt attends to the caption and its likelihood is undefined; omit likelihoods with "
                "measure(..., word_order=False)"
            )


def winoground_scores(likelihoods: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
    """Return the text, image and group scores, bool (items,) each; a tie counts as wrong.

    Args:
        likelihoods: log-likelihoods of shape (items, images, captions).
    """
    s = likelihoods
    text = (s[:, 0, 0] > s[:, 0, 1]) & (s[:, 1, 1] > s[:, 1, 0])
    image = (s[:, 0, 0] > s[:, 1, 0]) & (s[:, 1, 1] > s[:, 0, 1])
    return {"text": text, "image": image, "group": text & image}


def _answer(processor: Any, instruction: str, caption: str) -> list[int]:
    """Return the token ids of a caption after the prompt, with the end of text."""
    tokenizer, prompt = processor.tokenizer, prompt_text(processor, instruction)
    before = list(tokenizer(prompt).input_ids)
    after = list(tokenizer(prompt + ("" if prompt[-1].isspace() else " ") + caption).input_ids)
    # Some tokenizers merge tokens across the boundary; then the caption is tokenized separately.
    ids = after[len(before) :] if after[: len(before)] == before else None
    ids = ids or list(tokenizer(caption, add_special_tokens=False).input_ids)
    return ids if tokenizer.eos_token_id is None else [*ids, int(tokenizer.eos_token_id)]
