"""Log-likelihoods of captions from the prompt's key-value cache: one pass per picture instead of one per caption."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from harness.data.sample import Sample
from harness.errors import is_out_of_memory
from harness.models.anatomy import Anatomy
from harness.models.forward_pass import forward_pass
from harness.models.likelihood import answer_tokens, caption_likelihoods, log_probabilities, summed_likelihoods
from harness.models.prompts.prompt import encode
from harness.models.vlm import Vlm

# Rows that are scored in both ways: two captions for each of an item's two pictures.
_CHECKED = 4
# Largest difference of the two ways, relative to the largest likelihood among the checked rows.
_TOLERANCES = {torch.float64: 1e-5, torch.float32: 1e-5}
_WIDE_TOLERANCE = 2e-2  # for 16-bit types


class CaptionScorer:
    """Log-likelihoods of captions given pictures, equal to `caption_likelihoods` within rounding.

    The prompt of each picture runs once, and the decoder continues its key-value cache with each caption. The first
    rows are scored in both ways. If they differ, or if the model does not support the cache, all rows are scored by
    `caption_likelihoods`.
    """

    def __init__(self, vlm: Vlm) -> None:
        self._vlm = vlm
        self._continues = True  # False after the cache has failed.
        self._checked = False

    @torch.inference_mode()
    def __call__(self, samples: Sequence[Sample], captions: Sequence[str]) -> NDArray[np.float64]:
        """Return the log-likelihood of each caption as the answer to its sample's prompt, in nats, float64 (n,).

        Rows that share a sample object share the pass over its prompt.

        Raises:
            PromptError, ForwardError: as in `caption_likelihoods`.
        """
        likelihoods = self._continued(samples, captions) if self._continues else None
        if likelihoods is not None and not self._checked:
            complete = caption_likelihoods(self._vlm, samples[:_CHECKED], captions[:_CHECKED])
            tolerance = _TOLERANCES.get(self._vlm.dtype, _WIDE_TOLERANCE) * np.abs(complete).max()
            self._checked = bool(np.abs(likelihoods[:_CHECKED] - complete).max() <= tolerance)
        if likelihoods is None or not self._checked:
            self._continues = False
            return caption_likelihoods(self._vlm, samples, captions)
        return likelihoods

    def _continued(self, samples: Sequence[Sample], captions: Sequence[str]) -> NDArray[np.float64] | None:
        """Return the log-likelihoods from the key-value cache, or None if an error shows that it is unsupported."""
        try:
            return _cached_likelihoods(self._vlm, samples, captions)
        except Exception as error:  # The model's code may raise any type. The complete pass explains its errors.
            if is_out_of_memory(error):
                raise
            return None


def _cached_likelihoods(vlm: Vlm, samples: Sequence[Sample], captions: Sequence[str]) -> NDArray[np.float64]:
    pictures = list({id(sample): sample for sample in samples}.values())
    index = {id(picture): row for row, picture in enumerate(pictures)}
    prompt_of_row = torch.tensor([index[id(sample)] for sample in samples])
    targets, is_token = answer_tokens(vlm.processor, samples, captions)
    batch = encode(vlm.processor, pictures, vlm.anatomy.image_positions)
    stack = decoder_stack(vlm.model, vlm.anatomy)
    calls: list[tuple[dict[str, Any], Any]] = []
    handle = stack.register_forward_hook(lambda _, __, kwargs, output: calls.append((kwargs, output)), with_kwargs=True)
    try:
        ids = [picture.id for picture in pictures]
        output = forward_pass(vlm, batch.inputs, batch.groups.image, ids, keys_and_values=True)
    finally:
        handle.remove()
    ((arguments, prompt),) = calls
    first = log_probabilities(output.logits[:, -1][prompt_of_row.to(output.logits.device)], targets[:, 0])
    # The last token of an answer predicts nothing that is read, so only the tokens before it are fed.
    fed, is_fed = targets[:, :-1], is_token[:, 1:]
    if not is_fed.any():
        return summed_likelihoods(first, is_token)
    # transformers before 5.24 calls the cache `past_key_values`.
    name = "cache" if "cache" in inspect.signature(stack.forward).parameters else "past_key_values"
    cache = prompt[name]
    cache.batch_select_indices(prompt_of_row)
    inputs = {
        "input_ids": fed,
        "attention_mask": torch.cat([batch.inputs["attention_mask"][prompt_of_row], is_fed.long()], 1),
    }
    if arguments.get("position_ids") is not None:
        inputs["position_ids"] = _following(arguments["position_ids"], prompt_of_row, fed.shape[1])
    states = stack(**vlm.to_device(inputs), **{name: cache}, use_cache=True).last_hidden_state
    logits = vlm.anatomy.unembedding(states[is_fed.to(states.device)])
    values = torch.zeros(targets.shape, dtype=first.dtype)
    values[:, 0] = first
    values[:, 1:][is_fed] = log_probabilities(logits, targets[:, 1:][is_fed])
    return summed_likelihoods(values[is_token], is_token)


def decoder_stack(model: nn.Module, anatomy: Anatomy) -> nn.Module:
    """Return the module that runs the decoder layers and the final norm."""
    return next(module for module in model.modules() if _holds(module, anatomy))


def _holds(module: nn.Module, anatomy: Anatomy) -> bool:
    children = [*module.children()]
    lists = (tuple(child) for child in children if isinstance(child, nn.ModuleList))
    return anatomy.final_norm in children and anatomy.layers in lists


def _following(positions: torch.Tensor, prompt_of_row: torch.Tensor, tokens: int) -> torch.Tensor:
    """Return the positions of the tokens after the prompts, (..., rows, tokens), from those of the prompts.

    Models with left padding or several position axes pass positions to the decoder. Others pass none, and the decoder
    counts on from the cache. All of them number the tokens of an answer consecutively.
    """
    last = positions[..., -1:].cpu()
    if last.shape[-2] > 1:
        last = last[..., prompt_of_row, :]
    return (last + torch.arange(1, tokens + 1)).expand(*last.shape[:-2], len(prompt_of_row), -1)
