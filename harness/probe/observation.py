"""An observed forward pass: all readings of a batch, reduced while the layers run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from harness.models.anatomy import Anatomy, AnatomyError
from harness.models.forward_errors import ForwardError, refuse_autocast
from harness.models.linear import observer
from harness.models.prompts.prompt import TokenGroups
from harness.probe.attention import LastRow, reading_attention
from harness.probe.attention_call import InstructionQueries
from harness.probe.attention_check import EXTRA_TOKENS, AttentionCheck, check_attended_tokens, check_layers_read
from harness.probe.dense_lens import DenseLens
from harness.probe.last_token import LastTokenAttention
from harness.probe.lens import Lens, open_lens
from harness.probe.lens_task import LensTask
from harness.probe.logits import dense_logits
from harness.probe.precision import upcast
from harness.probe.readings import Readings
from harness.probe.self_checks import (
    NotFiniteError,
    SelfCheckError,
    check_exit,
    check_last_state,
    check_logits_differ,
    find_non_finite,
)
from harness.probe.similarity import GroupSums, UnitSums, WideStates

_REMEDY = (
    "each decoder layer must run once over the whole prompt: exactly one forward pass, no generate(), and no module "
    "twice in the list of layers"
)
_STALE = "call harness.find_anatomy(model) after the last change to the parts of the model"


@dataclass
class Observation:
    """Collector of the readings of one forward pass; `readings()` returns them after the pass."""

    anatomy: Anatomy
    groups: TokenGroups
    lens: Lens | DenseLens | None
    drawing: bool
    checks: AttentionCheck | None
    sample_ids: Sequence[str]
    _points: list[UnitSums] = field(default_factory=list)
    _previous: WideStates | None = None  # The states of the previous point, until the next one.
    _steps: list[torch.Tensor] = field(default_factory=list)
    _last_units: list[torch.Tensor] = field(default_factory=list)
    _post_norm: UnitSums | None = None
    head_logits: torch.Tensor | None = None  # Logits of the last token, (batch, vocabulary).
    _last_state: torch.Tensor | None = None
    busy: bool = False  # True while the observation itself calls a module; hooks ignore such calls.

    def __post_init__(self) -> None:
        self._sums = GroupSums(self.groups)
        self._attention = LastTokenAttention(self.groups, self.anatomy.depth, drawing=self.drawing)

    def on_residual_point(self, states: torch.Tensor) -> None:
        """Reduce the residual stream at one point, (batch, tokens, d).

        Raises:
            SelfCheckError: the pass does not cover the whole prompt.
            ForwardError: the model's own code has enabled autocast, or returns states of another type or shape.
        """
        if not isinstance(states, torch.Tensor) or states.ndim < 3:
            shape = getattr(states, "shape", None)
            raise ForwardError(
                f"{self.anatomy.name}: the states at residual point {len(self._points)} are a {type(states).__name__}"
                f"{'' if shape is None else f' of shape {tuple(shape)}'} instead of a tensor (batch, tokens, d): a "
                "hook or a changed layer must return the same type as the original layer"
            )
        refuse_autocast(self.anatomy.name, states.device.type)
        if states.ndim != 3:
            raise AnatomyError(
                f"{self.anatomy.name} carries several residual streams side by side (states of shape "
                f"{tuple(states.shape)}), so similarities along a single stream are undefined"
            )
        if states.shape[:2] != self.groups.real.shape:
            raise SelfCheckError(
                f"{self.anatomy.name}: a forward pass covered {states.shape[0]} x {states.shape[1]} tokens, but "
                f"the prompts have {self.groups.real.shape[0]} x {self.groups.real.shape[1]}; "
                f"{EXTRA_TOKENS if states.shape[1] > self.groups.real.shape[1] else _REMEDY}"
            )
        self._read_states(states)
        if self.lens is not None:
            with self._unobserved_calls():
                self.lens.read(states)
        if self.checks is not None:
            self._last_state = states[:, -1:]

    def _read_states(self, states: torch.Tensor) -> None:
        """Reduce the states of a residual point, and their cosines with those of the previous one."""
        wide, device = self._sums.widen(states), self.groups.real.device
        self._points.append(self._sums.sums(wide).to(device))
        self._last_units.append(wide.last_units.to(device))
        if self._previous is not None:
            self._steps.append(self._sums.step_cosines(self._previous, wide).to(device))
        # A copy, because a layer may change its input in place.
        self._previous = replace(wide, states=states.clone()) if wide.states is states else wide

    def on_final_norm(self, states: torch.Tensor) -> None:
        """Reduce the states after the final norm, (batch, tokens, d), the last point of most published curves."""
        self._post_norm, self._previous = self._sums(states).to(self.groups.real.device), None

    def on_attention(self, layer: int, projection: nn.Module, row: LastRow) -> None:
        """Reduce the last token's attention in one decoder layer.

        Raises:
            ForwardError: autocast is enabled.
            SelfCheckError: attention covers more tokens than the prompts have.
        """
        refuse_autocast(self.anatomy.name, row.values.device.type)
        check_attended_tokens(self.anatomy.name, layer, row.weights.shape[-1], self.groups.real.shape[1])
        with self._unobserved_calls():
            read = self._attention.read(layer, projection, row)
            if self.checks is not None and read is not None:
                vectors, bias = read
                total = vectors.sum(1) + (0.0 if bias is None else bias)
                self.checks.record_parts(layer, projection, row.values.sum(1), total)

    def on_logits(self, logits: torch.Tensor) -> None:
        """Store the model's own logits of the last prompt token."""
        # A copy, because some models afterwards overwrite the logits of entries that must never be generated.
        self.head_logits = logits[:, -1].clone()

    def _last_logits(self) -> torch.Tensor:
        """Return the last token's logits at the last residual point, decoded like the readings."""
        if self.lens is not None:
            return self.lens.last_logits()
        assert self._last_state is not None
        return dense_logits(self.anatomy.final_norm(self._last_state)[:, -1], self.anatomy.unembedding)

    @contextlib.contextmanager
    def _unobserved_calls(self) -> Iterator[None]:
        self.busy = True
        try:
            yield
        finally:
            self.busy = False

    def readings(self) -> Readings:
        """Return the readings of the pass.

        Raises:
            SelfCheckError: residual points are missing. With checks enabled also: the last state does not decode to the
                model's logits, or the attention parts do not sum to the layer's output.
            NotFiniteError: a value is not finite; the error holds the readings of the other samples.
        """
        expected = self.anatomy.depth + 1
        if self.head_logits is None or self._post_norm is None or len(self._points) != expected:
            parts = {"final norm": self._post_norm, "unembedding": self.head_logits}
            uncalled = [f"its {part} was not called; " for part, output in parts.items() if output is None]
            stale = bool(uncalled) and len(self._points) == expected
            raise SelfCheckError(
                f"{self.anatomy.name}: {len(self._points)} residual points were observed, expected {expected}; "
                f"{''.join(uncalled)}{_STALE if stale else _REMEDY}"
            )
        model_logits = upcast(self.head_logits)
        if self.checks is not None:
            check_logits_differ(self.anatomy.name, model_logits)
        points = UnitSums.stacked(self._points)
        arrays = {
            "similarity": self._sums.similarities(points).transpose(0, 1),
            "post_norm": self._sums.similarities(self._post_norm),
            "means": self._sums.means(points).transpose(0, 1),
            "norm_ratio": self._sums.norm_ratio(points).transpose(0, 1),
            "step_cosine": torch.stack(self._steps, dim=1),
            "last_units": torch.stack(self._last_units, dim=1),
            # The sum of a row of logits is finite only if all of them are.
            "logits": model_logits.sum(-1),
        }
        arrays |= self._attention.arrays()
        if self.lens is not None:
            with self._unobserved_calls():
                arrays["exit_agreement"] = self.lens.exit_agreement(model_logits)
                arrays["hits"] = self.lens.hits()
                if isinstance(self.lens, DenseLens) and self.lens.dense:
                    arrays |= {"decoded": self.lens.decoded(), "decoded_last": self.lens.decoded_last()}
        numbers: dict[str, Any] = _to_cpu({name: tensor.to(self.groups.real.device) for name, tensor in arrays.items()})
        # Before the checks, because a NaN fails all of them, and only this message names its sample and layer.
        faults = find_non_finite(self.anatomy.name, numbers, self.sample_ids)
        del numbers["logits"]
        if faults:
            raise NotFiniteError(next(iter(faults.values())), faults, Readings(**numbers))
        if self.checks is not None:
            check_layers_read(self.anatomy, self._attention.layers)
            self.checks.check()
            with self._unobserved_calls():
                logits = self._last_logits()
            check_last_state(self.anatomy, logits, self.head_logits)
            if "exit_agreement" in numbers:
                check_exit(self.anatomy, logits, model_logits, arrays["exit_agreement"][:, -1])
        return Readings(**numbers)


@contextlib.contextmanager
def observing(
    model: Any,
    anatomy: Anatomy,
    groups: TokenGroups,
    *,
    sample_ids: Sequence[str],
    lens: LensTask | None = None,
    attention: bool = True,
    checking: bool = False,
) -> Iterator[Observation]:
    """Observe the one forward pass made inside the block.

    ```
    with observing(model, anatomy, batch.groups, sample_ids=ids) as observation:
        model(**batch.inputs, **prompt_options(model))
    readings = observation.readings()
    ```

    Args:
        model: a transformers model; its hooks, attention implementation and training flags are restored on leaving.
        anatomy: the parts of the model.
        groups: token groups of the batch, on the model's device.
        sample_ids: names for messages, one per row of the batch.
        lens: the words to look for; None omits LogitLens. A dense task also stores the decoded entries and, if it has
            all points, the norms of every token.
        attention: True to read the last token's attention.
        checking: True to compare the readings with the model's own outputs (`self_checks`).
    """
    observation = Observation(
        anatomy=anatomy,
        groups=groups,
        lens=open_lens(lens, groups.image, anatomy.unembedding, anatomy.final_norm) if lens is not None else None,
        drawing=lens is not None and lens.dense and not lens.points,
        checks=AttentionCheck(anatomy.name) if checking and attention else None,
        sample_ids=sample_ids,
    )

    def at_point(_: int, states: torch.Tensor) -> None:
        if not observation.busy:
            observation.on_residual_point(states)

    def after_norm(_: nn.Module, __: Any, output: torch.Tensor) -> None:
        if not observation.busy:
            observation.on_final_norm(output)

    @observer
    def after_head(_: nn.Module, __: Any, output: torch.Tensor) -> None:
        if not observation.busy:
            observation.on_logits(output)

    with contextlib.ExitStack() as stack:
        if attention:
            queries = InstructionQueries(groups)
            stack.enter_context(reading_attention(model, anatomy, observation.on_attention, queries))
        stack.enter_context(anatomy.residual_points(at_point))
        stack.callback(anatomy.final_norm.register_forward_hook(after_norm).remove)
        stack.callback(anatomy.unembedding.register_forward_hook(after_head).remove)
        if observation.checks is not None:
            stack.enter_context(observation.checks.recording_outputs(anatomy, lambda: observation.busy))
        for module in [module for module in model.modules() if module.training]:
            stack.callback(setattr, module, "training", True)
            module.training = False
        yield observation


def _to_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    """Return the tensors as arrays, copied in one transfer, because each transfer synchronises the GPU."""
    flat = [tensor.contiguous().flatten().view(torch.uint8) for tensor in tensors.values()]
    content = torch.cat(flat).cpu().numpy()
    arrays, start = {}, 0
    for (name, tensor), part in zip(tensors.items(), flat, strict=True):
        kind = torch.empty(0, dtype=tensor.dtype).numpy().dtype
        # A copy, because a slice may be misaligned for its dtype and would keep the whole buffer in memory.
        piece = np.frombuffer(content[start : start + len(part)].tobytes(), dtype=kind)
        arrays[name] = piece.reshape(tensor.shape).copy()
        start += len(part)
    return arrays
