"""Exactness of a tiny model: everything measured of it equals what the model itself computes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.errors import PhaseError
from harness.models.anatomy import Anatomy
from harness.models.forward_pass import prompt_options
from harness.probe.last_token import ShareReader
from harness.probe.lens_task import KS, LensTask, References
from harness.probe.observation import Readings, observing
from harness.probe.self_checks import check_image_positions, collect_placeholder_masks
from harness.probe.similarity import GroupSums, upcast
from harness.releases.sweep.prompts import TinyPrompt, run_prompt

_TOLERANCE = 2e-4
_PICTURES = 4


class ExactnessError(PhaseError):
    """A measurement is not what the model computes; the message says which, where and by how much."""


def examine(model: Any, anatomy: Anatomy, prompt: TinyPrompt) -> list[str]:
    """Return remarks on a tiny model of which everything measured was exact.

    Raises:
        PhaseError: a part is missing, or a number is not the model's own.
    """
    examination = _Examination(model, anatomy, prompt)
    readings = examination.observed()
    states, weights, hidden = examination.eager()
    examination.compare_states(readings, states, hidden)
    examination.compare_attention(readings, weights)
    examination.compare_logits(states[-1])
    examination.change_pictures()
    return examination.remarks


@dataclass
class _Examination:
    model: Any
    anatomy: Anatomy
    prompt: TinyPrompt
    remarks: list[str] = field(default_factory=list)

    def require(self, exact: bool, message: str) -> None:
        if not exact:
            raise ExactnessError(f"{self.anatomy.name}{message}")

    def remark(self, noticed: bool, message: str) -> None:
        if noticed:
            self.remarks.append(message)

    def observed(self) -> Readings:
        """Measure the prompt; the model's own placeholders are heard and its state is compared afterwards."""
        groups, separators = self.prompt.groups, self.prompt.separators
        rows, placed = groups.real.shape[0], groups.image | separators
        words = (((11, 12), (13,)),) * rows
        task = LensTask(References(words=words, chance_words=words), tuple(range(64)), dense=True)
        ids = tuple(f"row {row}" for row in range(rows))
        before = self._condition()
        with (
            collect_placeholder_masks(self.model) as masks,
            torch.inference_mode(),
            observing(self.model, self.anatomy, groups, sample_ids=ids, lens=task, checking=True) as seen,
        ):
            self.model(**self.prompt.inputs, **prompt_options(self.model))
        readings = seen.readings()
        check_image_positions(self.model, self.anatomy.name, placed, self.prompt.inputs, masks)
        self.remark(
            bool(separators.any()),
            f"{int(separators.sum())} of {int(placed.sum())} image positions hold learned vectors, which count as "
            "neither image nor text",
        )
        self.require(self._condition() == before, ": hooks, attention or training flags were not put back")
        return readings

    def _condition(self) -> tuple[Any, ...]:
        modules = list(self.model.modules())
        hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)
        own = sum(len(vars(module)) for module in modules)
        return hooks, own, [module.training for module in modules], self.anatomy.text_config._attn_implementation

    def eager(self) -> tuple[list[torch.Tensor], dict[int, torch.Tensor], tuple[torch.Tensor, ...]]:
        """Return what the model computes in one pass with eager attention.

        The inputs of the decoder layers and of the final norm, (batch, tokens, d) each; the attention of the last
        query by layer, (batch, heads, keys); its own `hidden_states`.
        """
        weights: dict[int, torch.Tensor] = {}
        layer_of, key = self.anatomy.layer_by_module(), self.anatomy.attention_key

        def keep(module: nn.Module, _: Any, output: Any) -> None:
            for part in output if isinstance(output, tuple) else ():
                if isinstance(part, torch.Tensor) and part.ndim == 4 and part.shape[-2] == part.shape[-1]:
                    weights[layer_of[id(module)]] = part[:, :, -1]

        before = self.anatomy.text_config._attn_implementation
        with contextlib.ExitStack() as stack:
            for module in (module for layer in self.anatomy.layers for module in layer.modules()):
                stack.callback(module.register_forward_hook(keep).remove)
            stack.callback(self.model.set_attn_implementation, {key: before})
            self.model.set_attn_implementation({key: "eager"})
            states, output = self._run(self.prompt.inputs, output_hidden_states=True)
        inner = getattr(output, "language_model_outputs", None) or output
        return states, weights, tuple(getattr(inner, "hidden_states", None) or ())

    def compare_states(self, readings: Readings, states: list[torch.Tensor], hidden: tuple[torch.Tensor, ...]) -> None:
        sums, placed = GroupSums(self.prompt.groups), self.prompt.groups.image | self.prompt.separators
        points = self.anatomy.depth + 1
        self.require(len(states) == points, f": {len(states)} residual points were seen, expected {points}")
        for point, state in enumerate(states):
            apart = _apart(readings.similarity[:, point], sums.similarities(sums(state)))
            message = f": similarity at residual point {point} is off by {apart:.2g} from eager attention's"
            self.require(apart <= _TOLERANCE, message)
        if len(hidden) != points:
            self.remarks.append(f"gives {len(hidden)} hidden states for {points} residual points")
            return
        changed = []
        for point, (own, state) in enumerate(zip(hidden[:-1], states[:-1], strict=True)):
            moved = ((own - state).abs() > _TOLERANCE * state.abs().max().clamp(min=1.0)).any(-1)
            elsewhere = int((moved & ~placed).sum())
            self.require(
                not elsewhere,
                f": residual point {point} is not the model's own hidden state {point}, at {elsewhere} positions that "
                "are no image tokens",
            )
            if bool(moved.any()):
                changed.append(point)
        self.remark(bool(changed), f"adds states between layers: residual points {_listed(changed)}")

    def compare_attention(self, readings: Readings, weights: dict[int, torch.Tensor]) -> None:
        shares, by_norm = readings.weight_shares, readings.norm_shares
        if shares is None:
            raise ExactnessError(f"{self.anatomy.name}: no attention was read")
        layers = range(self.anatomy.depth)
        read = [layer for layer in layers if shares[:, layer].any()]
        without = [layer + 1 for layer in layers if layer not in read]
        refused = [layer + 1 for layer in read if by_norm is None or not by_norm[:, layer].any()]
        missing = [layer + 1 for layer in read if layer not in weights]
        self.remark(bool(without), f"no softmax attention in layers {_listed(without)}")
        self.remark(
            bool(refused),
            f"attention by weight only in layers {_listed(refused)}: no gate, but a norm before the output projection",
        )
        self.remark(bool(missing), f"eager gives no weights in layers {_listed(missing)}")
        reader, tokens = ShareReader(self.prompt.groups), self.prompt.groups.real.shape[1]
        for layer in (layer for layer in read if layer in weights):
            theirs = reader(weights[layer][..., :tokens].mean(1).unsqueeze(1))[:, 0]
            apart = _apart(shares[:, layer], theirs)
            message = f", layer {layer + 1}: the last query's attention is off by {apart:.2g} from eager's"
            self.require(apart <= _TOLERANCE, message)

    def compare_logits(self, last: torch.Tensor) -> None:
        """Require that the lens at the last point ranks the entries first that the model's answer ranks first."""
        with torch.inference_mode():
            lens = upcast(self.anatomy.unembedding(self.anatomy.final_norm(last[:, -1:]))[:, -1])
        output = run_prompt(self.model, self.prompt.inputs)
        own = upcast((getattr(output, "language_model_outputs", None) or output).logits[:, -1])
        # Entries that must never be said are pressed down behind the unembedding.
        sayable = own > own.amax(-1, keepdim=True) - 1e4
        best = [logits.masked_fill(~sayable, -torch.inf).topk(max(KS), dim=-1).indices for logits in (lens, own)]
        self.require(torch.equal(*best), ": the lens at the last point ranks other entries first than the model")
        self.remark(not bool(sayable.all()), "some entries are never said")
        self.remark(
            not _apart(lens[sayable], own[sayable]) <= _TOLERANCE,
            "logits are scaled or capped behind the norm: their order is the lens's, probabilities are not",
        )

    def change_pictures(self) -> None:
        """Require that where the pixels first change the residual stream, they change image positions only.

        Not all of these need change: some models keep the ends of rows or of pictures there.
        """
        image = self.prompt.groups.image
        base = self._points()
        changed = [torch.zeros_like(image) for _ in base]
        # Several other pictures, because one in discrete codes may share some of them with the first.
        for seed in range(_PICTURES):
            points = zip(changed, self._points(seed), base, strict=True)
            changed = [before | (other != state).any(-1) for before, other, state in points]
        first = next((point for point, reacts in enumerate(changed) if bool(reacts.any())), None)
        if first is None:
            raise ExactnessError(f"{self.anatomy.name}: no position changes with the pixels")
        reacts, inside, total = changed[first], int((changed[first] & image).sum()), int(image.sum())
        self.require(
            int(reacts.sum()) == inside and inside * 2 >= total,
            f": at residual point {first} {int(reacts.sum())} positions change with the pixels, {inside} of them among "
            f"the {total} image positions",
        )
        self.remark(first > 0, f"the picture enters at residual point {first}")
        still = f"{total - inside} of {total} image positions changed with none of {_PICTURES} other pictures"
        self.remark(inside < total, still)

    def _points(self, seed: int | None = None) -> list[torch.Tensor]:
        """Return the inputs of the decoder layers; with a seed, for other pictures."""
        inputs = dict(self.prompt.inputs)
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            for name, value in inputs.items():
                if value.is_floating_point():
                    drawn = torch.randn(value.shape, generator=generator).to(value.dtype)
                    # A whole number is a position or a count beside the pixels.
                    inputs[name] = torch.where(value == value.round(), value, drawn)
        return self._run(inputs)[0][: self.anatomy.depth]

    def _run(self, inputs: Mapping[str, torch.Tensor], **options: Any) -> tuple[list[torch.Tensor], Any]:
        """Run the model; return the states at its residual points and its output."""
        states: list[torch.Tensor] = []
        with self.anatomy.residual_points(lambda _, point: states.append(point.clone())):
            output = run_prompt(self.model, inputs, **options)
        return states, output


def _apart(ours: Any, theirs: Any) -> float:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return float(np.abs(ours - theirs).max() / max(1.0, float(np.abs(theirs).max())))


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
