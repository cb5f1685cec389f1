"""Exactness check of a tiny model: every measured value equals the value that the model computes."""

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
from harness.probe.last_token import ShareReader
from harness.probe.lens_task import KS
from harness.probe.precision import upcast
from harness.probe.readings import Readings
from harness.probe.self_checks import check_image_positions, collect_placeholder_masks
from harness.probe.similarity import GroupSums
from harness.releases.tiny.dense_readings import observing_densely
from harness.releases.tiny.prompts import TinyPrompt, run_prompt

_TOLERANCE = 2e-4
_OTHER_IMAGES = 4


class ExactnessError(PhaseError):
    """A measured value differs from the model's; the message states the value, the position and the difference."""


def examine(model: Any, anatomy: Anatomy, prompt: TinyPrompt) -> list[str]:
    """Verify all measurements of a tiny model and return remarks on it.

    Raises:
        PhaseError: a part is missing, or a value differs from the model's.
    """
    examination = _Examination(model, anatomy, prompt)
    readings = examination.observe()
    states, weights, hidden = examination.run_eager()
    examination.compare_states(readings, states, hidden)
    examination.compare_attention(readings, weights)
    examination.compare_logits(states[-1])
    examination.compare_other_images()
    return examination.remarks


@dataclass
class _Examination:
    model: Any
    anatomy: Anatomy
    prompt: TinyPrompt
    remarks: list[str] = field(default_factory=list)

    def require(self, is_exact: bool, message: str) -> None:
        if not is_exact:
            raise ExactnessError(f"{self.anatomy.name}{message}")

    def remark(self, applies: bool, message: str) -> None:
        if applies:
            self.remarks.append(message)

    def observe(self) -> Readings:
        """Measure the prompt, then check the image positions and that the model's state is restored."""
        separators, image_or_separator = self.prompt.separators, self.prompt.groups.image | self.prompt.separators
        before = self._model_state()
        with (
            collect_placeholder_masks(self.model) as masks,
            observing_densely(self.model, self.anatomy, self.prompt, checking=True) as observation,
        ):
            run_prompt(self.model, self.prompt.inputs)
        readings = observation.readings()
        check_image_positions(self.model, self.anatomy.name, image_or_separator, self.prompt.inputs, masks)
        self.remark(
            bool(separators.any()),
            f"{int(separators.sum())} of {int(image_or_separator.sum())} image positions hold learned vectors, "
            "which count as neither image nor text",
        )
        self.require(self._model_state() == before, ": hooks, attention or training flags were not restored")
        return readings

    def _model_state(self) -> tuple[Any, ...]:
        modules = list(self.model.modules())
        hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)
        attributes = sum(len(vars(module)) for module in modules)
        return hooks, attributes, [module.training for module in modules], self.anatomy.text_config._attn_implementation

    def run_eager(self) -> tuple[list[torch.Tensor], dict[int, torch.Tensor], tuple[torch.Tensor, ...]]:
        """Run one pass with eager attention.

        Returns:
            The inputs of the decoder layers and of the final norm, (batch, tokens, d) each; the attention weights of
            the last query by layer, (batch, heads, keys); the model's own `hidden_states`.
        """
        weights: dict[int, torch.Tensor] = {}
        layer_of, key = self.anatomy.layer_by_module(), self.anatomy.attention_key

        def store_weights(module: nn.Module, _: Any, output: Any) -> None:
            for part in output if isinstance(output, tuple) else ():
                if isinstance(part, torch.Tensor) and part.ndim == 4 and part.shape[-2] == part.shape[-1]:
                    weights[layer_of[id(module)]] = part[:, :, -1]

        before = self.anatomy.text_config._attn_implementation
        with contextlib.ExitStack() as stack:
            for module in (module for layer in self.anatomy.layers for module in layer.modules()):
                stack.callback(module.register_forward_hook(store_weights).remove)
            stack.callback(self.model.set_attn_implementation, {key: before})
            self.model.set_attn_implementation({key: "eager"})
            states, output = self._run(self.prompt.inputs, output_hidden_states=True)
        inner = getattr(output, "language_model_outputs", None) or output
        return states, weights, tuple(getattr(inner, "hidden_states", None) or ())

    def compare_states(self, readings: Readings, states: list[torch.Tensor], hidden: tuple[torch.Tensor, ...]) -> None:
        sums, image_or_separator = GroupSums(self.prompt.groups), self.prompt.groups.image | self.prompt.separators
        points = self.anatomy.depth + 1
        self.require(len(states) == points, f": {len(states)} residual points were read, expected {points}")
        for point, state in enumerate(states):
            difference = _relative_difference(readings.similarity[:, point], sums.similarities(sums(state)))
            message = f": similarity at residual point {point} is off by {difference:.2g} from eager attention's"
            self.require(difference <= _TOLERANCE, message)
        if len(hidden) != points:
            self.remarks.append(f"gives {len(hidden)} hidden states for {points} residual points")
            return
        changed = []
        for point, (hidden_state, state) in enumerate(zip(hidden[:-1], states[:-1], strict=True)):
            differs = ((hidden_state - state).abs() > _TOLERANCE * state.abs().max().clamp(min=1.0)).any(-1)
            elsewhere = int((differs & ~image_or_separator).sum())
            self.require(
                not elsewhere,
                f": residual point {point} is not the model's own hidden state {point}, at {elsewhere} positions that "
                "are not image tokens",
            )
            if bool(differs.any()):
                changed.append(point)
        self.remark(bool(changed), f"adds states between layers: residual points {_join_numbers(changed)}")

    def compare_attention(self, readings: Readings, weights: dict[int, torch.Tensor]) -> None:
        shares, by_norm = readings.weight_shares, readings.norm_shares
        if shares is None:
            raise ExactnessError(f"{self.anatomy.name}: no attention was read")
        layers = range(self.anatomy.depth)
        read = [layer for layer in layers if shares[:, layer].any()]
        without = [layer + 1 for layer in layers if layer not in read]
        by_weight = [layer + 1 for layer in read if by_norm is None or not by_norm[:, layer].any()]
        missing = [layer + 1 for layer in read if layer not in weights]
        self.remark(bool(without), f"no softmax attention in layers {_join_numbers(without)}")
        self.remark(
            bool(by_weight),
            f"attention by weight only in layers {_join_numbers(by_weight)}: no gate, but a norm before the output "
            "projection",
        )
        self.remark(bool(missing), f"eager gives no weights in layers {_join_numbers(missing)}")
        reader, tokens = ShareReader(self.prompt.groups), self.prompt.groups.real.shape[1]
        for layer in (layer for layer in read if layer in weights):
            reference = reader(weights[layer][..., :tokens].mean(1).unsqueeze(1))[:, 0]
            difference = _relative_difference(shares[:, layer], reference)
            message = f", layer {layer + 1}: the last query's attention is off by {difference:.2g} from eager's"
            self.require(difference <= _TOLERANCE, message)

    def compare_logits(self, last: torch.Tensor) -> None:
        """Require that the lens at the last point has the same top entries as the model's output."""
        with torch.inference_mode():
            lens = upcast(self.anatomy.unembedding(self.anatomy.final_norm(last[:, -1:]))[:, -1])
        output = run_prompt(self.model, self.prompt.inputs)
        final = upcast((getattr(output, "language_model_outputs", None) or output).logits[:, -1])
        # The model suppresses forbidden entries after the unembedding.
        allowed = final > final.amax(-1, keepdim=True) - 1e4
        best = [logits.masked_fill(~allowed, -torch.inf).topk(max(KS), dim=-1).indices for logits in (lens, final)]
        self.require(torch.equal(*best), ": the top entries of the lens at the last point differ from the model's")
        self.remark(not bool(allowed.all()), "some vocabulary entries are never generated")
        self.remark(
            not _relative_difference(lens[allowed], final[allowed]) <= _TOLERANCE,
            "logits are scaled or capped after the norm: the lens has their order, but not their probabilities",
        )

    def compare_other_images(self) -> None:
        """Require that the first residual point that depends on the pixels does so at image positions only.

        Some image positions may stay unchanged because some models put ends of rows or images there.
        """
        image = self.prompt.groups.image
        base = self._layer_inputs()
        changed = [torch.zeros_like(image) for _ in base]
        # Use several other images, because the discrete codes of two images may coincide in part.
        for seed in range(_OTHER_IMAGES):
            points = zip(changed, self._layer_inputs(seed), base, strict=True)
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
        self.remark(first > 0, f"the image enters at residual point {first}")
        unchanged = f"{total - inside} of {total} image positions stayed the same with {_OTHER_IMAGES} other images"
        self.remark(inside < total, unchanged)

    def _layer_inputs(self, seed: int | None = None) -> list[torch.Tensor]:
        """Return the inputs of the decoder layers; with a seed, for other images."""
        inputs = dict(self.prompt.inputs)
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            for name, value in inputs.items():
                if value.is_floating_point():
                    drawn = torch.randn(value.shape, generator=generator).to(value.dtype)
                    # Integral values are positions or counts, not pixels.
                    inputs[name] = torch.where(value == value.round(), value, drawn)
        return self._run(inputs)[0][: self.anatomy.depth]

    def _run(self, inputs: Mapping[str, torch.Tensor], **options: Any) -> tuple[list[torch.Tensor], Any]:
        """Run the model; return the states at its residual points and its output."""
        states: list[torch.Tensor] = []
        with self.anatomy.residual_points(lambda _, point: states.append(point.clone())):
            output = run_prompt(self.model, inputs, **options)
        return states, output


def _relative_difference(measured: Any, reference: Any) -> float:
    measured, reference = np.asarray(measured), np.asarray(reference)
    return float(np.abs(measured - reference).max() / max(1.0, float(np.abs(reference).max())))


def _join_numbers(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
