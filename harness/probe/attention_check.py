"""Checks of the attention that was read: its parts, layers and tokens, compared with the model's own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from harness.models.anatomy import Anatomy, output_projections
from harness.models.linear import is_plain, observer, stores_codes
from harness.probe.attention import AttentionError
from harness.probe.precision import upcast
from harness.probe.self_checks import TOLERANCE, SelfCheckError, relative_difference

# Tolerance for an output projection that rounds its inputs to codes, since its linear map is read without that
# rounding. Measured differences in 8 bits: up to 0.022 with one scale per row, up to 0.084 with one scale for all rows.
_CODED_TOLERANCE = 0.2
EXTRA_TOKENS = (
    "the model adds tokens of its own, as prompt tuning, prefix tuning or a cache does, which belong to no token "
    "group: measure it without them, or train an adapter that changes weights (LoRA)"
)


class AttentionCheck:
    """Comparison of the summed attention parts of the last token with the layer's own attention output."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._awaited: dict[nn.Module, int] = {}
        # By layer: projection, sum of the values and sum of the parts; then input and output of the projection.
        self._read: dict[int, tuple[nn.Module, torch.Tensor, torch.Tensor]] = {}
        self._recorded: dict[int, list[torch.Tensor]] = {}

    def record_parts(self, layer: int, projection: nn.Module, values: torch.Tensor, total: torch.Tensor) -> None:
        """Record the sums over the keys of one layer.

        Args:
            layer: 0-based.
            projection: W_O.
            values: sum of the weighted value vectors, (batch, heads x value dimension).
            total: sum of the projected vectors plus the projection's bias, (batch, d).
        """
        self._read[layer] = projection, values, total
        self._awaited[projection] = layer

    @contextlib.contextmanager
    def recording_outputs(self, anatomy: Anatomy, busy: Callable[[], bool]) -> Iterator[None]:
        """Record inputs and outputs of the decoder layers' output projections for the last token."""

        @observer
        def record(projection: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if not busy() and projection in self._awaited:
                layer = self._awaited.pop(projection)
                batch = len(self._read[layer][1])
                self._recorded[layer] = [rows.reshape(batch, -1, rows.shape[-1])[:, -1] for rows in (args[0], output)]

        with contextlib.ExitStack() as stack:
            for layer in anatomy.layers:
                for projection in output_projections(layer):
                    stack.callback(projection.register_forward_hook(record).remove)
            yield

    def check(self) -> None:
        """Assert that parts and outputs agree in every layer that was read.

        Raises:
            SelfCheckError: they differ; the message gives the layer and both norms.
        """
        for layer, (projection, values, parts) in sorted(self._read.items()):
            projection_input, output = self._recorded[layer]
            tolerance, remedy = TOLERANCE.get(output.dtype, 5e-2), ""
            if not is_plain(projection):
                name = type(projection).__name__
                remedy = (
                    f"; {name} is not linear enough: dequantise the model or merge the adapter, and measure the result"
                )
            if stores_codes(projection):
                self._compare(layer, values, projection_input, tolerance, "input to W_O")
                tolerance = _CODED_TOLERANCE
            self._compare(layer, parts, output, tolerance, "attention output", remedy)

    def _compare(
        self,
        layer: int,
        parts: torch.Tensor,
        reference: torch.Tensor,
        tolerance: float,
        quantity: str,
        remedy: str = "",
    ) -> None:
        difference = relative_difference(parts, reference)
        if not difference <= tolerance:
            raise SelfCheckError(
                f"{self._name}, layer {layer + 1}: the attention parts of the last token sum to a vector of norm "
                f"{float(parts.norm()):.6g}, but the layer's {quantity} has norm "
                f"{float(upcast(reference).norm()):.6g} (relative difference {difference:.2g}){remedy}"
            )


def check_layers_read(anatomy: Anatomy, read: Sequence[int]) -> None:
    """Assert that attention was read in exactly the layers that have softmax attention.

    Raises:
        AttentionError: attention was read in no layer.
        SelfCheckError: attention was not read in some layers; the message lists them.
    """
    expected = anatomy.softmax_layers
    if not read:
        raise AttentionError(
            f"{anatomy.name} does not compute attention through transformers' AttentionInterface, so its attention "
            "weights cannot be read"
        )
    if list(read) != list(expected):
        missing = [layer + 1 for layer in expected if layer not in read]
        raise SelfCheckError(
            f"{anatomy.name}: attention was read in layers {[layer + 1 for layer in read]}, but not in {missing}; "
            "these layers bypass transformers' AttentionInterface"
        )


def check_attended_tokens(name: str, layer: int, keys: int, tokens: int) -> None:
    """Assert that the attention of a layer, counted from 0, covers no more tokens than the prompts have.

    Raises:
        SelfCheckError: it covers more; the message gives both numbers.
    """
    if keys > tokens:
        raise SelfCheckError(
            f"{name}, layer {layer + 1}: attention covers {keys} tokens, but the prompts have {tokens}; {EXTRA_TOKENS}"
        )
