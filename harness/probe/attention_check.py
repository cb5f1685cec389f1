"""Checks of the attention that was read: its parts, its layers and its tokens against the model's own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from harness.models.anatomy import Anatomy, output_projections
from harness.models.linear import is_plain, observer, stores_codes
from harness.probe.attention import AttentionError
from harness.probe.self_checks import TOLERANCE, SelfCheckError, relative_difference
from harness.probe.similarity import upcast

# Of an output projection that rounds its inputs to codes: differences up to 0.022 were seen in 8 bits with one scale a
# row, up to 0.084 with one scale for all rows. Its map is taken without that rounding.
_CODED = 0.2
EXTRA_TOKENS = (
    "the model adds tokens of its own, as prompt tuning, prefix tuning or a cache does, and they belong to no group of "
    "tokens: measure it without them, or train an adapter that changes weights (LoRA)"
)


class AttentionCheck:
    """Holds the sum of the attention parts of the last token against the layer's own attention output."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._awaited: dict[nn.Module, int] = {}
        # By layer: projection, sum of the values and sum of the parts; then what the projection takes and gives.
        self._read: dict[int, tuple[nn.Module, torch.Tensor, torch.Tensor]] = {}
        self._own: dict[int, list[torch.Tensor]] = {}

    def record_parts(self, layer: int, projection: nn.Module, values: torch.Tensor, total: torch.Tensor) -> None:
        """Take the sums over the keys of one layer.

        Args:
            layer: 0-based.
            projection: W_O.
            values: the weighted values summed, (batch, heads x value dimension).
            total: the projected vectors summed, (batch, d), the projection's bias added.
        """
        self._read[layer] = projection, values, total
        self._awaited[projection] = layer

    @contextlib.contextmanager
    def recording_outputs(self, anatomy: Anatomy, busy: Callable[[], bool]) -> Iterator[None]:
        """Record what the output projections of the decoder layers take and give for the last token."""

        @observer
        def record(projection: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if not busy() and projection in self._awaited:
                layer = self._awaited.pop(projection)
                batch = len(self._read[layer][1])
                self._own[layer] = [rows.reshape(batch, -1, rows.shape[-1])[:, -1] for rows in (args[0], output)]

        with contextlib.ExitStack() as stack:
            for layer in anatomy.layers:
                for projection in output_projections(layer):
                    stack.callback(projection.register_forward_hook(record).remove)
            yield

    def check(self) -> None:
        """Assert that parts and outputs agree in every layer that was read.

        Raises:
            SelfCheckError: naming the layer and both norms.
        """
        for layer, (projection, values, parts) in sorted(self._read.items()):
            given, output = self._own[layer]
            tolerance, remedy = TOLERANCE.get(output.dtype, 5e-2), ""
            if not is_plain(projection):
                name = type(projection).__name__
                remedy = f"; {name} is too far from linear: dequantise the model or merge the adapter, and measure that"
            if stores_codes(projection):
                self._hold(layer, values, given, tolerance, "input to W_O")
                tolerance = _CODED
            self._hold(layer, parts, output, tolerance, "attention output", remedy)

    def _hold(
        self, layer: int, parts: torch.Tensor, own: torch.Tensor, tolerance: float, what: str, remedy: str = ""
    ) -> None:
        apart = relative_difference(parts, own)
        if not apart <= tolerance:
            raise SelfCheckError(
                f"{self._name}, layer {layer + 1}: the attention parts of the last token sum to a vector of norm "
                f"{float(parts.norm()):.6g}, but the layer's {what} has norm "
                f"{float(upcast(own).norm()):.6g} (relative difference {apart:.2g}){remedy}"
            )


def check_layers_read(anatomy: Anatomy, read: Sequence[int]) -> None:
    """Assert that attention was read in exactly the layers that have softmax attention.

    Raises:
        AttentionError: none was read.
        SelfCheckError: some were not; names them.
    """
    expected = anatomy.softmax_layers
    if not read:
        raise AttentionError(
            f"{anatomy.name} computes its attention in code of its own (no AttentionInterface), so its weights cannot "
            "be read"
        )
    if list(read) != list(expected):
        missing = [layer + 1 for layer in expected if layer not in read]
        raise SelfCheckError(
            f"{anatomy.name}: attention was read in layers {[layer + 1 for layer in read]}, but not in {missing}; some "
            "layer's attention does not go through the exchanged function"
        )


def check_attended_tokens(name: str, layer: int, keys: int, tokens: int) -> None:
    """Assert that the attention of a layer, counted from 0, sees no more tokens than the prompts have.

    Raises:
        SelfCheckError: with both numbers.
    """
    if keys > tokens:
        raise SelfCheckError(
            f"{name}, layer {layer + 1}: attention sees {keys} tokens where the prompts have {tokens}; {EXTRA_TOKENS}"
        )
