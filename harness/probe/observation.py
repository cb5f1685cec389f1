"""One observed forward pass: everything that is measured of a batch, reduced while the layers run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
from harness.probe.attention_check import EXTRA_TOKENS, AttentionCheck, check_attended_tokens, check_layers_read
from harness.probe.dense_lens import DenseLens, dense_logits
from harness.probe.last_token import LastTokenAttention
from harness.probe.lens import Lens, open_lens
from harness.probe.lens_task import LensTask, learn_block
from harness.probe.self_checks import (
    NotFiniteError,
    SelfCheckError,
    check_exit,
    check_last_state,
    check_logits_differ,
    find_non_finite,
)
from harness.probe.similarity import GroupSums, UnitSums, upcast

FloatArray = NDArray[np.floating[Any]]

_REMEDY = (
    "each decoder layer must run once over the whole prompt: exactly one forward pass, no generate(), and no module "
    "twice in the list of layers"
)
_STALE = "call harness.find_anatomy(model) after the last change to the parts of the model"


@dataclass(frozen=True, slots=True)
class Readings:
    """What one forward pass gave, a row per sample; P = L + 1 residual points.

    similarity: (batch, P, 5), columns of `GroupSums.similarities`. post_norm: (batch, 5), after the final norm. means:
    mean unit vectors of image and text tokens, (batch, P, 2, d). norm_shares and weight_shares: shares of the
    last token's attention, (batch, L, 4), columns of `ShareReader`; zeros in layers without softmax attention, and
    without a value transform that norms could be taken of. hits: words found by the lens, int
    (batch, P, 2, 2): own words and another sample's, k = 1 and 5. exit_agreement: bool (batch, P). Arrays that were not
    asked for are None; the last three are there only when drawing: norm_rows (batch, L, tokens), decoded entries at the
    image tokens (batch, P, image tokens, 5) and at the last token (batch, P, 5).
    """

    similarity: FloatArray
    post_norm: FloatArray
    means: FloatArray
    norm_shares: FloatArray | None = None
    weight_shares: FloatArray | None = None
    hits: NDArray[np.int64] | None = None
    exit_agreement: NDArray[np.bool_] | None = None
    norm_rows: FloatArray | None = None
    decoded: NDArray[np.int64] | None = None
    decoded_last: NDArray[np.int64] | None = None

    def learn_block(self, vocabulary_size: int) -> tuple[int, ...]:
        """Return the block for a `LensTask` that a dense lens's readings teach."""
        assert self.decoded is not None
        assert self.decoded_last is not None
        return learn_block(torch.from_numpy(self.decoded), vocabulary_size, last=torch.from_numpy(self.decoded_last))


@dataclass
class Observation:
    """Collects the readings of one forward pass; `readings()` returns them once the pass is over."""

    anatomy: Anatomy
    groups: TokenGroups
    lens: Lens | DenseLens | None
    drawing: bool
    checks: AttentionCheck | None
    sample_ids: Sequence[str]
    _points: list[UnitSums] = field(default_factory=list)
    _post_norm: UnitSums | None = None
    head_logits: torch.Tensor | None = None  # Of the last token, (batch, vocabulary).
    _last_state: torch.Tensor | None = None
    busy: bool = False  # True while the observation itself calls a module, which is not observed.

    def __post_init__(self) -> None:
        self._sums = GroupSums(self.groups)
        self._attention = LastTokenAttention(self.groups, self.anatomy.depth, drawing=self.drawing)

    def on_residual_point(self, states: torch.Tensor) -> None:
        """Reduce the residual stream at one point, (batch, tokens, d).

        Raises:
            SelfCheckError: the pass is not over the whole prompt.
            ForwardError: the model's own code has switched autocast on, or gives no such states.
        """
        if not isinstance(states, torch.Tensor) or states.ndim < 3:
            shape = getattr(states, "shape", None)
            raise ForwardError(
                f"{self.anatomy.name}: the states at residual point {len(self._points)} are a {type(states).__name__}"
                f"{'' if shape is None else f' of shape {tuple(shape)}'} instead of a tensor (batch, tokens, d): a "
                "hook or a changed layer must give what the layer gave before"
            )
        refuse_autocast(self.anatomy.name, states.device.type)
        if states.ndim != 3:
            raise AnatomyError(
                f"{self.anatomy.name} carries several residual streams side by side (states of shape "
                f"{tuple(states.shape)}), so there is no one stream whose similarities could be followed"
            )
        if states.shape[:2] != self.groups.real.shape:
            raise SelfCheckError(
                f"{self.anatomy.name}: a forward pass over {states.shape[0]} x {states.shape[1]} tokens was seen where "
                f"the prompts are {self.groups.real.shape[0]} x {self.groups.real.shape[1]}; "
                f"{EXTRA_TOKENS if states.shape[1] > self.groups.real.shape[1] else _REMEDY}"
            )
        self._points.append(self._sums(states).to(self.groups.real.device))
        if self.lens is not None:
            with self._own_calls():
                self.lens.read(states)
        if self.checks is not None:
            self._last_state = states[:, -1:]

    def on_final_norm(self, states: torch.Tensor) -> None:
        """Reduce the normed last state, which most published curves show as their last point."""
        self._post_norm = self._sums(states).to(self.groups.real.device)

    def on_attention(self, layer: int, projection: nn.Module, row: LastRow) -> None:
        """Reduce the last token's attention in one decoder layer.

        Raises:
            ForwardError, SelfCheckError: autocast is on, or it sees more tokens than the prompts have.
        """
        refuse_autocast(self.anatomy.name, row.values.device.type)
        check_attended_tokens(self.anatomy.name, layer, row.weights.shape[-1], self.groups.real.shape[1])
        with self._own_calls():
            read = self._attention.read(layer, projection, row)
            if self.checks is not None and read is not None:
                vectors, bias = read
                total = vectors.sum(1) + (0.0 if bias is None else bias)
                self.checks.record_parts(layer, projection, row.values.sum(1), total)

    def on_logits(self, logits: torch.Tensor) -> None:
        """Keep the model's own logits of the last prompt token."""
        # A copy, because some models overwrite entries afterwards that are never to be said.
        self.head_logits = logits[:, -1].clone()

    def _last_logits(self) -> torch.Tensor:
        """Logits of the last token at the last residual point, decoded as the readings are."""
        if self.lens is not None:
            return self.lens.last_logits()
        assert self._last_state is not None
        return dense_logits(self.anatomy.final_norm(self._last_state)[:, -1], self.anatomy.unembedding)

    @contextlib.contextmanager
    def _own_calls(self) -> Iterator[None]:
        self.busy = True
        try:
            yield
        finally:
            self.busy = False

    def readings(self) -> Readings:
        """Return the readings of the pass.

        Raises:
            SelfCheckError: residual points are missing, or (where checks were asked for) the last state does not give
                the model's logits or the attention parts do not sum to the layer's output.
            NotFiniteError: a number is not finite; the readings of the other samples come with it.
        """
        expected = self.anatomy.depth + 1
        if self.head_logits is None or self._post_norm is None or len(self._points) != expected:
            parts = {"final norm": self._post_norm, "unembedding": self.head_logits}
            uncalled = [f"its {part} was not called; " for part, output in parts.items() if output is None]
            stale = bool(uncalled) and len(self._points) == expected
            raise SelfCheckError(
                f"{self.anatomy.name}: {len(self._points)} residual points were seen, expected {expected}; "
                f"{''.join(uncalled)}{_STALE if stale else _REMEDY}"
            )
        own_logits = upcast(self.head_logits)
        if self.checks is not None:
            check_logits_differ(self.anatomy.name, own_logits)
        points = UnitSums.stacked(self._points)
        arrays = {
            "similarity": self._sums.similarities(points).transpose(0, 1),
            "post_norm": self._sums.similarities(self._post_norm),
            "means": self._sums.means(points).transpose(0, 1),
            # Of a row of logits its sum says as much as all of them do.
            "logits": own_logits.sum(-1),
        }
        arrays |= self._attention.arrays()
        if self.lens is not None:
            with self._own_calls():
                arrays["exit_agreement"] = self.lens.exit_agreement(own_logits)
                arrays["hits"] = self.lens.hits()
                if isinstance(self.lens, DenseLens) and self.drawing:
                    arrays |= {"decoded": self.lens.decoded(), "decoded_last": self.lens.decoded_last()}
        numbers: dict[str, Any] = _on_cpu({name: tensor.to(self.groups.real.device) for name, tensor in arrays.items()})
        # Before the checks, because a NaN fails every one of them and only this names its sample and layer.
        faults = find_non_finite(self.anatomy.name, numbers, self.sample_ids)
        del numbers["logits"]
        if faults:
            raise NotFiniteError(next(iter(faults.values())), faults, Readings(**numbers))
        if self.checks is not None:
            check_layers_read(self.anatomy, self._attention.layers)
            self.checks.check()
            with self._own_calls():
                logits = self._last_logits()
            check_last_state(self.anatomy, logits, self.head_logits)
            if "exit_agreement" in numbers:
                check_exit(self.anatomy, logits, own_logits, arrays["exit_agreement"][:, -1])
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
    with observing(model, anatomy, batch.groups, sample_ids=ids) as seen:
        model(**batch.inputs, **prompt_options(model))
    readings = seen.readings()
    ```

    Args:
        model: a transformers model; it leaves the block as it came: hooks, attention implementation, training flag.
        anatomy: its parts.
        groups: token groups of the batch, on the model's device.
        sample_ids: names for messages, one a row of the batch.
        lens: the words to look for, or None to leave LogitLens out; a dense task also keeps what is drawn.
        attention: whether to read the last token's attention.
        checking: whether to hold the readings against the model's own numbers (`self_checks`).
    """
    seen = Observation(
        anatomy=anatomy,
        groups=groups,
        lens=open_lens(lens, groups.image, anatomy.unembedding, anatomy.final_norm) if lens is not None else None,
        drawing=lens is not None and lens.dense,
        checks=AttentionCheck(anatomy.name) if checking and attention else None,
        sample_ids=sample_ids,
    )

    def at_point(_: int, states: torch.Tensor) -> None:
        if not seen.busy:
            seen.on_residual_point(states)

    def after_norm(_: nn.Module, __: Any, output: torch.Tensor) -> None:
        if not seen.busy:
            seen.on_final_norm(output)

    @observer
    def after_head(_: nn.Module, __: Any, output: torch.Tensor) -> None:
        if not seen.busy:
            seen.on_logits(output)

    with contextlib.ExitStack() as stack:
        if attention:
            stack.enter_context(reading_attention(model, anatomy, seen.on_attention))
        stack.enter_context(anatomy.residual_points(at_point))
        stack.callback(anatomy.final_norm.register_forward_hook(after_norm).remove)
        stack.callback(anatomy.unembedding.register_forward_hook(after_head).remove)
        if seen.checks is not None:
            stack.enter_context(seen.checks.recording_outputs(anatomy, lambda: seen.busy))
        for module in [module for module in model.modules() if module.training]:
            stack.callback(setattr, module, "training", True)
            module.training = False
        yield seen


def _on_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    """Return the tensors as arrays, brought over in one piece: each transfer makes a GPU wait for the CPU."""
    flat = [tensor.contiguous().flatten().view(torch.uint8) for tensor in tensors.values()]
    content = torch.cat(flat).cpu().numpy()
    arrays, start = {}, 0
    for (name, tensor), part in zip(tensors.items(), flat, strict=True):
        kind = torch.empty(0, dtype=tensor.dtype).numpy().dtype
        # A copy, because a part of the piece may begin where no number of its type can, and would keep all of it.
        piece = np.frombuffer(content[start : start + len(part)].tobytes(), dtype=kind)
        arrays[name] = piece.reshape(tensor.shape).copy()
        start += len(part)
    return arrays
