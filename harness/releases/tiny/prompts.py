"""Inputs of a tiny model: images in a form it accepts, and a prompt with a placeholder for every image feature."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from harness.errors import PhaseError, first_line
from harness.models.anatomy import Anatomy
from harness.models.forward_pass import prompt_options
from harness.models.kinds import kind_of
from harness.models.prompts.prompt import TokenGroups
from harness.models.vlm import count_image_features
from harness.probe.self_checks import collect_placeholder_masks
from harness.probe.separators import assign_separators_to_other, find_separators
from harness.releases.tiny.image_forms import Inputs, Pictures, list_image_forms
from harness.releases.tiny.tiny_model import SIDE, WINDOW

_BATCH = 2
_BOS = 1
_BEFORE, _BETWEEN = 3, 2
_MOST_FEATURES = 70
_STARTS = ("vision_start_token_id", "image_start_token_id", "boi_token_id", "image_bos_token_id")
_TOKEN_TYPES = ("mm_token_type_ids", "token_type_ids", "moe_mm_token_type_ids")
_REFUSALS = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, AssertionError)
_ENDS = ("vision_end_token_id", "image_end_token_id", "eoi_token_id", "image_eos_token_id")


class PromptFormError(PhaseError):
    """A model accepts none of the sweep's image forms; the message lists its error for each form."""


class TinyPrompt(NamedTuple):
    """Model inputs of two samples, the second left-padded, and their token groups.

    `separators`, bool (batch, tokens), marks image positions with a learned vector; they belong to group `other` only.
    """

    inputs: Mapping[str, torch.Tensor]
    groups: TokenGroups
    separators: torch.Tensor


class TinyPrompts(dict[str, TinyPrompt]):
    """The prompts of a model by the name of their variant, the first `"base"`.

    `skipped` has the variants that the model refuses, each with the model's own reason.
    """

    def __init__(self, prompts: Mapping[str, TinyPrompt], skipped: Mapping[str, str]) -> None:
        super().__init__(prompts)
        self.skipped: dict[str, str] = dict(skipped)


@dataclass(frozen=True, slots=True)
class _Variant:
    """Pictures of a prompt, and the number of instruction tokens of its longest sample."""

    pictures: Pictures
    instruction: int = 6


_BASE = _Variant(Pictures(_BATCH))
#: Every variant adds one thing to the base prompt, so that a difference points to its cause.
_VARIANTS: Mapping[str, _Variant] = {
    "two pictures": _Variant(Pictures(_BATCH, per_sample=2)),
    "wide picture": _Variant(Pictures(_BATCH, rows=SIDE // 2)),
    "long": _Variant(Pictures(_BATCH), instruction=3 * WINDOW),
}


def tiny_prompt(model: Any, anatomy: Anatomy) -> TinyPrompt:
    """Return the inputs in the first form that the model accepts, with one image token per image feature.

    Raises:
        PromptFormError: the model accepts none of the forms.
    """
    return _base_prompt(model, anatomy)[0]


def tiny_prompts(model: Any, anatomy: Anatomy) -> TinyPrompts:
    """Return the base prompt, as `tiny_prompt` does, and the variants of it that the model accepts.

    The variants: `"two pictures"` per sample; `"wide picture"`, with half as many rows as columns of patches; `"long"`,
    longer than the sliding window of a tiny model; `"without token types"`. All values follow from shapes and fixed
    seeds.

    Raises:
        PromptFormError: the model accepts the base prompt in none of the forms.
    """
    base, form, features = _base_prompt(model, anatomy)
    prompts, skipped = {"base": base}, {}
    for name, variant in _VARIANTS.items():
        is_same_size = variant.pictures.patches == _BASE.pictures.patches
        try:
            prompts[name] = _write(model, anatomy, form, variant, features if is_same_size else None)[0]
        except _REFUSALS as error:
            skipped[name] = _describe(error)
    if any(name in base.inputs for name in _TOKEN_TYPES):
        inputs = {name: value for name, value in base.inputs.items() if name not in _TOKEN_TYPES}
        try:
            run_prompt(model, inputs)
            prompts["without token types"] = base._replace(inputs=inputs)
        except _REFUSALS as error:
            skipped["without token types"] = _describe(error)
    return TinyPrompts(prompts, skipped)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error, '')[:160]}"


def add_token_types(model: Any, prompt: TinyPrompt) -> TinyPrompt | None:
    """Return the prompt with the token types that the model takes and the prompt lacks; None if it lacks none."""
    names = [name for name in _TOKEN_TYPES if name in _arguments(model) and name not in prompt.inputs]
    types = _token_types(model, prompt.groups.image | prompt.separators)
    return prompt._replace(inputs={**prompt.inputs, **dict.fromkeys(names, types)}) if names else None


def _token_types(model: Any, image: torch.Tensor) -> torch.Tensor:
    """Return the token types of a prompt, int (batch, tokens).

    They mark the image, except in models whose types tell the answer from everything before it.
    """
    return torch.zeros_like(image).long() if kind_of(model.config.model_type).answer_type else image.long()


def _base_prompt(model: Any, anatomy: Anatomy) -> tuple[TinyPrompt, int, int]:
    """Return the base prompt, the index of its image form, and the number of features per picture."""
    refusals = []
    forms = list_image_forms(_arguments(model), model.config, _BASE.pictures)
    for form, images in enumerate(forms):
        try:
            prompt, features = _write(model, anatomy, form, _BASE)
        except _REFUSALS as error:
            shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in images().items())
            refusals.append(f"{shapes}: {_describe(error)}")
            continue
        return prompt, form, features
    raise PromptFormError(
        f"{anatomy.name} takes an image in no known form; " + "; ".join(refusals or ["it takes no image"])
    )


def _write(
    model: Any, anatomy: Anatomy, form: int, variant: _Variant, features: int | None = None
) -> tuple[TinyPrompt, int]:
    """Return a prompt that the model accepts, and its number of features per picture, which is counted if None."""
    arguments = _arguments(model)
    images = list_image_forms(arguments, model.config, variant.pictures)[form]()
    writer = _Writer(model, anatomy, arguments, images, variant)
    features = features or writer.count_features()
    inputs, groups = writer.prompt(features)
    run_prompt(model, inputs)
    separators = find_separators(model, anatomy, inputs, groups.image)
    return TinyPrompt(inputs, assign_separators_to_other(groups, separators), separators), features


def _arguments(model: Any) -> frozenset[str]:
    return frozenset(inspect.signature(model.forward).parameters)


def run_prompt(model: Any, inputs: Mapping[str, torch.Tensor], **options: Any) -> Any:
    """Return the model's output, called with the options of the harness."""
    with torch.inference_mode():
        return model(**inputs, **prompt_options(model), **options)


@dataclass(frozen=True, slots=True)
class _Writer:
    model: Any
    anatomy: Anatomy
    arguments: frozenset[str]
    images: Inputs
    variant: _Variant

    def count_features(self) -> int:
        """Return the number of image features per image, as the model passes them to its own placeholder mask."""
        sizes: list[int] = []

        def record_features(inputs: Mapping[str, Any]) -> None:
            features = (value for name, value in inputs.items() if name.endswith("features"))
            sizes.extend(value.numel() // self.anatomy.width for value in features if isinstance(value, torch.Tensor))

        with collect_placeholder_masks(self.model, record_features):
            problem = self._problem(1)
        if sizes:
            return int(sizes[0] // self.variant.pictures.count)
        count = count_image_features(self.model, self.images)
        if count is not None:
            return count // self.variant.pictures.count
        if problem and any(hasattr(module, "get_placeholder_mask") for module in self.model.modules()):
            raise problem
        for features in range(2, _MOST_FEATURES):
            error = self._problem(features)
            if error is None:
                return features
            if type(error) is not type(problem):
                raise error
        raise problem or PromptFormError(f"{self.anatomy.name} does not report its number of image features")

    def _problem(self, features: int) -> Exception | None:
        try:
            run_prompt(self.model, self.prompt(features)[0])
        except Exception as error:
            return error
        return None

    def prompt(self, features: int) -> tuple[Inputs, TokenGroups]:
        """Return the model inputs with `features` image tokens per image, and their token groups."""
        start, end = (
            [value for name in names if isinstance(value := getattr(self.model.config, name, None), int)][:1]
            for names in (_STARTS, _ENDS)
        )
        placeholder = max(self.anatomy.image_token_id, 0)
        picture, further = [*start, *[placeholder] * features, *end], self.variant.pictures.per_sample - 1
        longest = 1 + len(picture) + further * (_BETWEEN + len(picture)) + _BEFORE + self.variant.instruction
        ids = torch.zeros(_BATCH, longest, dtype=torch.long)
        real, instruction = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
        for row in range(_BATCH):
            after = self.variant.instruction - 2 * row
            words = _words(_BEFORE + after, seed=row, reserved=placeholder)
            pictures = [*picture, *further * [*_words(_BETWEEN, seed=_BATCH + row, reserved=placeholder), *picture]]
            tokens = [_BOS, *words[:_BEFORE], *pictures, *words[_BEFORE:]]
            ids[row, -len(tokens) :] = torch.tensor(tokens)
            real[row, -len(tokens) :] = True
            instruction[row, -after:] = True
        image = (ids == placeholder) & real
        inputs = {"input_ids": ids, "attention_mask": real.long(), **self.images}
        for name in _TOKEN_TYPES:
            if name in self.arguments:
                inputs[name] = _token_types(self.model, image)
        if self.anatomy.image_input:
            inputs[self.anatomy.image_input] = image
        text, other = real & ~image & (ids != _BOS), real & ~image & ~instruction
        return inputs, TokenGroups(image=image, text=text, instruction=instruction, other=other, real=real)


def _words(count: int, seed: int, reserved: int) -> list[int]:
    """Return random token ids of text; some image token ids are in their range."""
    words = torch.randint(10, 190, (count,), generator=torch.Generator().manual_seed(seed))
    return (words + (words == reserved)).tolist()
