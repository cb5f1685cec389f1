"""What is asked of a tiny model: that everything measured of it is what the model itself computes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.errors import PhaseError
from harness.models.anatomy import Anatomy
from harness.models.forward_pass import prompt_options
from harness.models.prompts.prompt import TokenGroups
from harness.probe.last_token import ShareReader
from harness.probe.lens_task import KS, LensTask, References
from harness.probe.observation import Readings, observing
from harness.probe.self_checks import check_image_positions, hearing_placeholders
from harness.probe.similarity import GroupSums, upcast
from harness.releases.sweep.prompts import TinyPrompt, run_prompt

_TOLERANCE = 2e-4
_PICTURES = 4


class ExactnessError(PhaseError):
    """A measurement is not what the model computes; the message says which, where and by how much."""


@dataclass
class Reference:
    """What the model itself says of one forward pass with eager attention.

    states: inputs of the decoder layers and of the final norm, (batch, tokens, d) each. weights: attention of the last
    query by layer, (batch, heads, keys). hidden: its own `hidden_states`.
    """

    states: list[torch.Tensor] = field(default_factory=list)
    weights: dict[int, torch.Tensor] = field(default_factory=dict)
    hidden: tuple[torch.Tensor, ...] = ()


def examine(model: Any, anatomy: Anatomy, prompt: TinyPrompt) -> list[str]:
    """Remarks on a tiny model of which everything measured was exact.

    Raises:
        PhaseError: a part is missing, or a number is not the model's own.
    """
    remarks: list[str] = []
    before = _condition(model, anatomy)
    with hearing_placeholders(model) as masks:
        readings = _observed(model, anatomy, prompt)
    check_image_positions(model, anatomy.name, prompt.groups.image | prompt.separators, prompt.inputs, masks)
    if bool(prompt.separators.any()):
        remarks.append(
            f"{int(prompt.separators.sum())} of {int((prompt.groups.image | prompt.separators).sum())} image positions "
            "hold learned vectors, which count as neither image nor text"
        )
    if _condition(model, anatomy) != before:
        raise ExactnessError(f"{anatomy.name}: hooks, attention or training flags were not put back")
    reference = _reference(model, anatomy, prompt)
    _same_states(anatomy, prompt, readings, reference, remarks)
    _same_attention(anatomy, prompt.groups, readings, reference, remarks)
    _same_logits(model, anatomy, prompt, reference, remarks)
    _reacting(model, anatomy, prompt, remarks)
    return remarks


def _observed(model: Any, anatomy: Anatomy, prompt: TinyPrompt) -> Readings:
    words = (((11, 12), (13,)),) * prompt.groups.real.shape[0]
    task = LensTask(References(own=words, chance=words), tuple(range(64)), dense=True)
    ids = tuple(f"row {row}" for row in range(prompt.groups.real.shape[0]))
    with (
        torch.inference_mode(),
        observing(model, anatomy, prompt.groups, sample_ids=ids, lens=task, checking=True) as seen,
    ):
        model(**prompt.inputs, **prompt_options(model))
    return seen.readings()


def _condition(model: Any, anatomy: Anatomy) -> tuple[Any, ...]:
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
    flags = tuple(module.training for module in model.modules())
    own = sum(len(vars(module)) for module in model.modules())
    return hooks, flags, own, anatomy.text_config._attn_implementation


@contextlib.contextmanager
def _eager(model: Any, anatomy: Anatomy) -> Iterator[None]:
    before = anatomy.text_config._attn_implementation
    model.set_attn_implementation({anatomy.attention_key: "eager"})
    try:
        yield
    finally:
        model.set_attn_implementation({anatomy.attention_key: before})


def _reference(model: Any, anatomy: Anatomy, prompt: TinyPrompt) -> Reference:
    reference = Reference()

    def weights(module: nn.Module, _: Any, output: Any) -> None:
        for part in output if isinstance(output, tuple) else ():
            if isinstance(part, torch.Tensor) and part.ndim == 4 and part.shape[-2] == part.shape[-1]:
                reference.weights[owner[id(module)]] = part[:, :, -1]

    owner = anatomy.layer_of_attention()
    with contextlib.ExitStack() as stack:
        reference.states = stack.enter_context(_following(anatomy))
        for module in (module for layer in anatomy.layers for module in layer.modules()):
            stack.callback(module.register_forward_hook(weights).remove)
        stack.enter_context(_eager(model, anatomy))
        stack.enter_context(torch.inference_mode())
        output = model(**prompt.inputs, **prompt_options(model), output_hidden_states=True)
    inner = getattr(output, "language_model_outputs", None) or output
    reference.hidden = tuple(getattr(inner, "hidden_states", None) or ())
    return reference


def _apart(ours: Any, theirs: Any) -> float:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return float(np.abs(ours - theirs).max() / max(1.0, float(np.abs(theirs).max())))


def _same_states(
    anatomy: Anatomy, prompt: TinyPrompt, readings: Readings, reference: Reference, remarks: list[str]
) -> None:
    sums, placed = GroupSums(prompt.groups), prompt.groups.image | prompt.separators
    points = anatomy.depth + 1
    if len(reference.states) != points:
        raise ExactnessError(f"{anatomy.name}: {len(reference.states)} residual points were seen, expected {points}")
    for point, states in enumerate(reference.states):
        apart = _apart(readings.similarity[:, point], sums.similarities(sums(states)))
        if not apart <= _TOLERANCE:
            raise ExactnessError(
                f"{anatomy.name}: similarity at residual point {point} is off by {apart:.2g} from eager attention's"
            )
    if len(reference.hidden) != points:
        remarks.append(f"gives {len(reference.hidden)} hidden states for {points} residual points")
        return
    changed = []
    for point in range(anatomy.depth):
        hidden, states = reference.hidden[point], reference.states[point]
        moved = ((hidden - states).abs() > _TOLERANCE * states.abs().max().clamp(min=1.0)).any(-1)
        if bool((moved & ~placed).any()):
            raise ExactnessError(
                f"{anatomy.name}: residual point {point} is not the model's own hidden state {point}, at "
                f"{int((moved & ~placed).sum())} positions that are no image tokens"
            )
        if bool(moved.any()):
            changed.append(point)
    if changed:
        remarks.append(f"adds states between layers: residual points {', '.join(map(str, changed))}")


def _same_attention(
    anatomy: Anatomy, groups: TokenGroups, readings: Readings, reference: Reference, remarks: list[str]
) -> None:
    if readings.weight_shares is None:
        raise ExactnessError(f"{anatomy.name}: no attention was read")
    shares = ShareReader(groups)
    read = [layer for layer in range(anatomy.depth) if readings.weight_shares[:, layer].any()]
    without = sorted(set(range(anatomy.depth)) - set(read))
    if without:
        remarks.append(f"no softmax attention in layers {', '.join(str(layer + 1) for layer in without)}")
    refused = [layer for layer in read if readings.norm_shares is None or not readings.norm_shares[:, layer].any()]
    if refused:
        layers = ", ".join(str(layer + 1) for layer in refused)
        remarks.append(f"attention by weight only in layers {layers}: no gate, but a norm before the output projection")
    missing = sorted(set(read) - set(reference.weights))
    if missing:
        remarks.append(f"eager gives no weights in layers {', '.join(str(layer + 1) for layer in missing)}")
    for layer in sorted(set(read) & set(reference.weights)):
        weights = reference.weights[layer]
        theirs = shares(weights[..., : groups.real.shape[1]].mean(1).unsqueeze(1))[:, 0]
        apart = _apart(readings.weight_shares[:, layer], theirs)
        if not apart <= _TOLERANCE:
            raise ExactnessError(
                f"{anatomy.name}, layer {layer + 1}: the last query's attention is off by {apart:.2g} from eager's"
            )


def _same_logits(model: Any, anatomy: Anatomy, prompt: TinyPrompt, reference: Reference, remarks: list[str]) -> None:
    """Asserts that the lens at the last point ranks the entries first that the model's answer ranks first."""
    with torch.inference_mode():
        lens = upcast(anatomy.unembedding(anatomy.final_norm(reference.states[-1][:, -1:]))[:, -1])
    output = run_prompt(model, prompt.inputs)
    own = upcast((getattr(output, "language_model_outputs", None) or output).logits[:, -1])
    # Entries that must never be said are pressed down behind the unembedding.
    sayable = own > own.amax(-1, keepdim=True) - 1e4
    best = [logits.masked_fill(~sayable, -torch.inf).topk(max(KS), dim=-1).indices for logits in (lens, own)]
    if not torch.equal(*best):
        raise ExactnessError(f"{anatomy.name}: the lens at the last point ranks other entries first than the model")
    if not bool(sayable.all()):
        remarks.append("some entries are never said")
    if not _apart(lens[sayable], own[sayable]) <= _TOLERANCE:
        remarks.append("logits are scaled or capped behind the norm: their order is the lens's, probabilities are not")


def _reacting(model: Any, anatomy: Anatomy, prompt: TinyPrompt, remarks: list[str]) -> None:
    """Asserts that where the pixels first change the residual stream, they change image positions only.

    Not all of these need change: some models keep the ends of rows or of pictures there.
    """
    image = prompt.groups.image
    base = _points(model, anatomy, prompt.inputs)
    changed = [torch.zeros_like(image) for _ in base]
    # Several other pictures, because one in discrete codes may share some of them with the first.
    for seed in range(_PICTURES):
        points = _points(model, anatomy, _other_pictures(prompt.inputs, seed))
        changed = [seen | (now != then).any(-1) for seen, now, then in zip(changed, points, base, strict=True)]
    first = next((point for point, reacts in enumerate(changed) if bool(reacts.any())), None)
    if first is None:
        raise ExactnessError(f"{anatomy.name}: no position changes with the pixels")
    reacts = changed[first]
    if bool((reacts & ~image).any()) or bool((reacts & image).sum() * 2 < image.sum()):
        raise ExactnessError(
            f"{anatomy.name}: at residual point {first} {int(reacts.sum())} positions change with the pixels, "
            f"{int((reacts & image).sum())} of them among the {int(image.sum())} image positions"
        )
    if first:
        remarks.append(f"the picture enters at residual point {first}")
    if still := int((image & ~reacts).sum()):
        remarks.append(f"{still} of {int(image.sum())} image positions changed with none of {_PICTURES} other pictures")


def _points(model: Any, anatomy: Anatomy, inputs: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    with _following(anatomy) as states:
        run_prompt(model, inputs)
    return states[: anatomy.depth]


@contextlib.contextmanager
def _following(anatomy: Anatomy) -> Iterator[list[torch.Tensor]]:
    """Collects the inputs of the decoder layers and of the final norm, as they come."""
    states: list[torch.Tensor] = []

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states.append((args[0] if args else kwargs["hidden_states"]).clone())

    with contextlib.ExitStack() as stack:
        for part in (*anatomy.layers, anatomy.final_norm):
            stack.callback(part.register_forward_pre_hook(before, with_kwargs=True).remove)
        yield states


def _other_pictures(inputs: Mapping[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        # What is whole is a place or a count beside the pixels.
        name: torch.where(value == value.round(), value, torch.randn(value.shape, generator=generator).to(value.dtype))
        if value.is_floating_point()
        else value
        for name, value in inputs.items()
    }
