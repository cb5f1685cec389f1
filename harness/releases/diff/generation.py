"""Cached generation of a model, compared with full forward passes over the same tokens."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from harness.errors import first_line
from harness.models.forward_pass import prompt_options
from harness.releases.tiny.prompts import TinyPrompt

#: Rounding moves the logits of tiny models by at most 7e-6 of the largest; the smallest fault known moves them by 4e-3.
GENERATION_TOLERANCE = 1e-4
# The prefill and three cached steps.
_STEPS = 4
# Ids of ordinary text in a tiny vocabulary. A generated image placeholder would need an image of its own.
_FIRST_TEXT, _END_OF_TEXT = 10, 190
# Logits of entries that a model never generates are minus infinity or the lowest number.
_FORBIDDEN = -1e4
_LONGEST_REMARK = 300

Inputs = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class GenerationCheck:
    """The result of `check_generation`.

    Attributes:
        difference: the largest relative difference of the logits; None if the model cannot be asked.
        step: the first step that differs, 0 for the prefill; None if all are equal.
        remark: the reason why the model cannot be asked, in the words of its own error; else a condition of the result.
    """

    difference: float | None
    step: int | None
    remark: str

    @property
    def differs(self) -> bool:
        """True if the logits of a step are not those of a full pass; a difference of NaN counts."""
        return self.difference is not None and not self.difference <= GENERATION_TOLERANCE


def check_generation(model: Any, prompt: TinyPrompt) -> GenerationCheck:
    """Compare the logits of greedy `generate` with those of a forward pass without a cache.

    The prefill and three cached steps are compared with one pass over the prompt and the generated tokens. Generation
    is limited to ids of ordinary text. Errors of the model's code become remarks.

    Args:
        model: a tiny model in eval mode.
        prompt: the inputs of left-padded samples.
    """
    if not callable(getattr(model, "generate", None)):
        return GenerationCheck(None, None, f"{type(model).__name__} has no generate")
    inputs = _pad_with_own_id(model, prompt.inputs)
    stage = "generate"
    try:
        tokens, logits = _generate(model, inputs)
        stage = "a pass over the prompt and the generated tokens"
        differences, remark = _compare(model, inputs, tokens, logits)
    except Exception as error:  # The model's code may raise any type.
        message = " ".join(first_line(error, "").split())
        return GenerationCheck(None, None, f"{stage}: {type(error).__name__}: {message}"[:_LONGEST_REMARK])
    beyond = ~(differences <= GENERATION_TOLERANCE)
    padded = _has_padding(inputs)
    if bool(beyond.any()) and not bool(beyond[~padded].any()) and not bool(padded.all()):
        remark = "; ".join(filter(None, (remark, "only in samples with left padding")))
    steps = beyond.any(0).nonzero().flatten().tolist()
    return GenerationCheck(float(differences.max()), steps[0] if steps else None, remark)


def _pad_with_own_id(model: Any, inputs: Inputs) -> Inputs:
    """Return the inputs with the model's own padding id at padding and nowhere else, if that id is small.

    Some models derive positions from the ids, and would take another id for text.
    """
    pad = getattr(model.config.get_text_config(decoder=True), "pad_token_id", None)
    if not isinstance(pad, int) or not 0 <= pad < _FIRST_TEXT - 1:
        return inputs
    ids = inputs["input_ids"]
    ids = ids.masked_fill(ids == pad, _FIRST_TEXT - 1).masked_fill(inputs["attention_mask"] == 0, pad)
    return {**inputs, "input_ids": ids}


def _generate(model: Any, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the generated ids, (batch, steps), and the raw logits, (batch, steps, entries)."""

    def allow_text(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        text = torch.full_like(scores, -torch.inf)
        text[:, _FIRST_TEXT:_END_OF_TEXT] = scores[:, _FIRST_TEXT:_END_OF_TEXT]
        return text

    with torch.inference_mode():
        output = model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=_STEPS,
            # The end of text must not stop a sample early. Raw logits do not depend on this and on the permitted ids.
            min_new_tokens=_STEPS,
            pad_token_id=0,
            use_cache=True,
            logits_processor=[allow_text],
            output_logits=True,
            return_dict_in_generate=True,
        )
    return output.sequences[:, -_STEPS:], torch.stack(output.logits, dim=1)


class _Extension(NamedTuple):
    """A way to extend the inputs by generated tokens: the type of new tokens, and explicit positions or the model's."""

    token_type: int
    has_positions: bool
    remark: str


def _compare(model: Any, inputs: Inputs, tokens: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, str]:
    """Return the relative differences of the generated logits from a full pass, (batch, steps), and a remark.

    One pass over all tokens serves every step, provided that the new tokens leave the states of the prompt alone. The
    prefill proves it: its logits must be those of the full pass at the end of the prompt. If they are not, a different
    extension of the inputs may be due. No alternative is used that leaves the prefill different.
    """
    first = _differences(model, inputs, tokens, logits, _Extension(0, False, ""))
    if _are_equal(first[:, 0]):
        return first, ""
    for extension in _alternatives(model, inputs, first[:, 0]):
        # Types of another meaning may not fit the images; then the first extension stands.
        with contextlib.suppress(Exception):
            differences = _differences(model, inputs, tokens, logits, extension)
            if _are_equal(differences[:, 0]):
                return differences, extension.remark
    alone = _relative_differences(logits[:, :1], _full_logits(model, inputs, 1))
    # Cached states of the prompt never see later tokens, so no later step can be equal then.
    return first, "tokens after the prompt change the logits at its end" if _are_equal(alone) else ""


def _alternatives(model: Any, inputs: Inputs, prefill: torch.Tensor) -> list[_Extension]:
    """Return the extensions to try when the prefill differs by this much, (batch,).

    - If the prefix is bidirectional, the new tokens need the type of tokens outside the prefix. The types' meaning
      differs between models, and `generate` repeats the last type because a cached token has no token after it.
    - If queries are scaled by absolute position, left padding must not count. A model's plain pass counts it, while
      `generate` states positions. Only padding may be the cause: rows without it must be equal already, or lost
      rotary sections would be excused.
    """
    alternatives = []
    if any(name.endswith("token_type_ids") for name in inputs):
        alternatives.append(_Extension(1, False, ""))
    padded = _has_padding(inputs)
    if (
        "position_ids" in inspect.signature(model.forward).parameters
        and not bool(padded.all())
        and _are_equal(prefill[~padded])
    ):
        alternatives.append(_Extension(0, True, "a pass without position_ids counts left padding as positions"))
    return alternatives


def _differences(
    model: Any, inputs: Inputs, tokens: torch.Tensor, logits: torch.Tensor, extension: _Extension
) -> torch.Tensor:
    return _relative_differences(logits, _full_logits(model, _extend(inputs, tokens[:, :-1], extension), _STEPS))


def _full_logits(model: Any, inputs: Inputs, positions: int) -> torch.Tensor:
    """Return the logits of the last positions of a pass without a cache, (batch, positions, entries)."""
    with torch.inference_mode():
        output = model(**inputs, **prompt_options(model, positions))
    logits: torch.Tensor = (getattr(output, "language_model_outputs", None) or output).logits
    return logits[:, -positions:].float()


def _extend(inputs: Inputs, tokens: torch.Tensor, extension: _Extension) -> dict[str, torch.Tensor]:
    """Return the inputs of a prompt that ends with these ids of text, (batch, tokens)."""
    shape = inputs["input_ids"].shape
    fills = {"attention_mask": 1} | {name: extension.token_type for name in inputs if name.endswith("token_type_ids")}
    extended = dict(inputs)
    for name, value in inputs.items():
        # A mask of pixels may have the shape of the ids by chance.
        if value.shape == shape and not name.startswith("pixel"):
            new = tokens if name == "input_ids" else torch.full_like(tokens, fills.get(name, 0))
            extended[name] = torch.cat([value, new.to(value.dtype)], dim=1)
    if extension.has_positions:
        extended["position_ids"] = (extended["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    return extended


def _has_padding(inputs: Inputs) -> torch.Tensor:
    """Return True for rows with padding, bool (batch,)."""
    return (inputs["attention_mask"] == 0).any(-1)


def _are_equal(differences: torch.Tensor) -> bool:
    return bool((differences <= GENERATION_TOLERANCE).all())


def _relative_differences(logits: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Return the largest difference over the entries, relative to the largest expected value, (batch, steps)."""
    # Equal infinities have no difference.
    difference = torch.where(logits == expected, 0.0, (logits - expected).abs()).amax(-1)
    scale = expected.abs().masked_fill(expected < _FORBIDDEN, 0.0).amax(-1)
    return difference / scale.clamp(min=1e-6)
