"""Model inputs of a tiny model: pictures in the form it takes, and a prompt with a place for every image feature."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from harness.errors import PhaseError, first_line
from harness.models.anatomy import Anatomy
from harness.models.forward_pass import prompt_options
from harness.models.prompts.prompt import TokenGroups
from harness.models.vlm import count_image_features
from harness.probe.self_checks import hearing_placeholders
from harness.probe.separators import find_separators, regrouped
from harness.releases.sweep.pictures import forms, optics_of

BATCH = 2
BOS = 1
_BEFORE, _AFTER = 3, 6
_MOST_FEATURES = 70
_STARTS = ("vision_start_token_id", "image_start_token_id", "boi_token_id", "image_bos_token_id")
_ENDS = ("vision_end_token_id", "image_end_token_id", "eoi_token_id", "image_eos_token_id")


class PromptFormError(PhaseError):
    """A model takes a picture in none of the forms that the sweep knows; the message says what it said to each."""


@dataclass(frozen=True, slots=True)
class TinyPrompt:
    """Model inputs of two samples, the second left-padded, and their token groups.

    `separators`, bool (batch, tokens), are image positions that hold a learned vector; no group but `other` has them.
    """

    inputs: Mapping[str, torch.Tensor]
    groups: TokenGroups
    separators: torch.Tensor


def tiny_prompt(model: Any, anatomy: Anatomy) -> TinyPrompt:
    """The inputs of the first form that the model accepts, with as many image tokens as it makes features.

    Raises:
        PromptFormError: it accepts none.
    """
    arguments = frozenset(inspect.signature(model.forward).parameters)
    said = []
    for pictures in forms(arguments, optics_of(model.config), BATCH):
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in pictures.items())
        try:
            features = _features(model, anatomy, arguments, pictures)
            prompt = _prompt(model, anatomy, arguments, pictures, features)
            run_prompt(model, prompt.inputs)
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, AssertionError) as error:
            said.append(f"{shapes}: {type(error).__name__}: {first_line(error, '')[:160]}")
            continue
        separators = find_separators(model, anatomy, prompt.inputs, prompt.groups.image)
        return TinyPrompt(prompt.inputs, regrouped(prompt.groups, separators), separators)
    raise PromptFormError(f"{anatomy.name} takes a picture in no known form; " + "; ".join(said or ["it takes none"]))


def run_prompt(model: Any, inputs: Mapping[str, torch.Tensor]) -> Any:
    """The model's answer to its inputs, asked as the harness asks."""
    with torch.inference_mode():
        return model(**inputs, **prompt_options(model))


def _features(model: Any, anatomy: Anatomy, arguments: frozenset[str], pictures: Mapping[str, torch.Tensor]) -> int:
    """How many image features the model makes of one picture: what it hands to its own placeholder mask."""
    seen: list[int] = []
    problem: Exception | None = None

    def asked(given: Mapping[str, Any]) -> None:
        features = (value for name, value in given.items() if name.endswith("features"))
        seen.extend(value.numel() // anatomy.width for value in features if isinstance(value, torch.Tensor))

    with hearing_placeholders(model, asked):
        try:
            run_prompt(model, _prompt(model, anatomy, arguments, pictures, 1).inputs)
        except Exception as error:
            problem = error
    if seen:
        return seen[0] // BATCH
    made = count_image_features(model, pictures)
    if made is not None:
        return made // BATCH
    if problem is not None and any(hasattr(module, "get_placeholder_mask") for module in model.modules()):
        raise problem
    for features in range(2, _MOST_FEATURES):
        try:
            run_prompt(model, _prompt(model, anatomy, arguments, pictures, features).inputs)
        except Exception as error:
            if type(error) is not type(problem):
                raise
            continue
        return features
    raise problem or PromptFormError(f"{anatomy.name} does not say how many image features it makes")


def _prompt(
    model: Any, anatomy: Anatomy, arguments: frozenset[str], pictures: Mapping[str, torch.Tensor], features: int
) -> TinyPrompt:
    config = model.config
    start = [value for name in _STARTS if isinstance(value := getattr(config, name, None), int)][:1]
    end = [value for name in _ENDS if isinstance(value := getattr(config, name, None), int)][:1]
    placeholder = max(anatomy.image_token_id, 0)
    rows = []
    for row in range(BATCH):
        written = torch.randint(10, 190, (_BEFORE + _AFTER - 2 * row,), generator=torch.Generator().manual_seed(row))
        words = written.tolist()
        tokens = [BOS, *words[:_BEFORE], *start, *[placeholder] * features, *end, *words[_BEFORE:]]
        rows.append((tokens, len(words) - _BEFORE))
    longest = max(len(tokens) for tokens, _ in rows)
    ids = torch.zeros(BATCH, longest, dtype=torch.long)
    real = torch.zeros(BATCH, longest, dtype=torch.bool)
    instruction = torch.zeros(BATCH, longest, dtype=torch.bool)
    for row, (tokens, asked) in enumerate(rows):
        ids[row, longest - len(tokens) :] = torch.tensor(tokens)
        real[row, longest - len(tokens) :] = True
        instruction[row, longest - asked :] = True
    image = (ids == placeholder) & real
    inputs = {"input_ids": ids, "attention_mask": real.long(), **pictures}
    for name in ("mm_token_type_ids", "token_type_ids", "moe_mm_token_type_ids"):
        if name in arguments:
            inputs[name] = image.long()
    if anatomy.image_input:
        inputs[anatomy.image_input] = image
    other = real & ~image & ~instruction
    text = real & ~image & (ids != BOS)
    groups = TokenGroups(image=image, text=text, instruction=instruction, other=other, real=real)
    return TinyPrompt(inputs, groups, torch.zeros_like(image))
