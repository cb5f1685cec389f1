"""Attention weights and weighted value vectors of the last prompt token, read in the model's attention function."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from harness.models.anatomy import Anatomy, output_projection
from harness.models.linear import observer
from harness.probe.attention_call import AttentionCall, InstructionQueries
from harness.probe.attention_function import AttentionError as AttentionError
from harness.probe.attention_function import attention_calls
from harness.probe.precision import upcast


@dataclass(frozen=True, slots=True)
class LastRow:
    """Attention of the last query in one layer.

    weights: softmax weights, (batch, heads, keys). values: weighted value vectors alpha_j^h v_j^h of every key, heads
    concatenated, (batch, keys, heads x value dimension). instruction: the image's share of the attention of the
    instruction's tokens, (batch,); None if it was not requested. unusable: the reason why the output projection does
    not sum these values; empty if it does.
    """

    weights: torch.Tensor
    values: torch.Tensor
    unusable: str = ""
    instruction: torch.Tensor | None = None


def last_row(call: AttentionCall) -> LastRow:
    """Return the attention weights of the last query and the weighted value vectors that it sums.

    Returns:
        Weights and weighted values in float32 or better (Kobayashi et al. 2020, eq. 4, before W_O).
    """
    batch, heads, queries, _ = call.query.shape
    key_heads, keys = call.key.shape[1], call.key.shape[2]
    last = torch.full((batch, 1), queries - 1, device=call.query.device)
    weights = call.weights(last)[:, :, 0]
    grouped = weights.view(batch, key_heads, heads // key_heads, keys, 1)
    weighted = grouped * upcast(call.value).unsqueeze(2)
    return LastRow(weights, weighted.reshape(batch, heads, keys, -1).transpose(1, 2).reshape(batch, keys, -1))


_SEVERAL = "it computes attention several times in one layer, and no single result is what the layer sums"
# The connection between attention output and output projection: direct, a gate, or the reason why it is neither. It is
# a property of the model. It is classified at the first row only, because reading values would synchronise the GPU.
_DIRECT, _GATE = "direct", "a gate"
_connections: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def apply_gate(
    row: LastRow, projection: nn.Module, attention_output: torch.Tensor, projection_input: torch.Tensor
) -> LastRow:
    """Return the row with its values scaled by the gate between attention and output projection, if there is one.

    Args:
        row: attention of the last query.
        projection: W_O.
        attention_output: result of the attention function for the last query, (batch, heads x value dimension).
        projection_input: input of W_O for the same query; it has the same shape if only a gate lies between.

    Returns:
        The row itself, the row with every value scaled by the gate, or an unusable row if the operation is no gate.
        It is no gate if it changes the width or flips signs, as a norm does, which is not linear in the values.
    """
    if row.unusable or _connections.get(projection) == _DIRECT:
        return row
    attention_output, projection_input = upcast(attention_output), upcast(projection_input)
    if projection not in _connections:
        # A sample with NaN gives no information about the model.
        finite = attention_output.isfinite().all(-1) & projection_input.isfinite().all(-1)
        if not bool(finite.any()):
            return row
        _connections[projection] = _classify_connection(attention_output[finite], projection_input[finite])
    connection = _connections[projection]
    if connection == _DIRECT:
        return row
    if connection == _GATE:
        return replace(row, values=row.values * _gate(attention_output, projection_input).unsqueeze(1))
    return replace(row, unusable=connection)


def _classify_connection(attention_output: torch.Tensor, projection_input: torch.Tensor) -> str:
    if attention_output.shape != projection_input.shape:
        return (
            f"the input of its output projection has width {projection_input.shape[-1]}, its attention output "
            f"{attention_output.shape[-1]}"
        )
    if torch.equal(attention_output, projection_input):
        return _DIRECT
    if bool((_gate(attention_output, projection_input) < 0).any()):
        return "the operation between its attention and its output projection is no gate (a norm?)"
    return _GATE


def _gate(attention_output: torch.Tensor, projection_input: torch.Tensor) -> torch.Tensor:
    """Return the factor from attention output to projection input; 0 where the attention output is almost 0."""
    # The threshold is relative to each sample, so that samples do not affect each other.
    return torch.where(
        attention_output.abs() > 1e-6 * attention_output.abs().amax(-1, keepdim=True),
        projection_input / attention_output,
        torch.zeros_like(projection_input),
    )


@contextlib.contextmanager
def reading_attention(
    model: Any,
    anatomy: Anatomy,
    read: Callable[[int, nn.Module, LastRow], None],
    instruction: InstructionQueries | None = None,
) -> Iterator[None]:
    """Call `read(layer, output projection, last row)` in every softmax attention of the decoder layers.

    The attention implementation of the decoder is replaced by one that calls the original and observes it. It is
    restored on leaving, also after an exception. Calls from outside the decoder layers are ignored. `read` is called
    when the output projection receives its input, which shows whether the attention output was gated. With
    `instruction` the row also holds the image's share of the attention of the instruction's tokens.

    Raises:
        AttentionError: the model's implementation is neither sdpa nor eager, or the model does not accept another.
    """
    waiting: dict[nn.Module, tuple[int, LastRow, torch.Tensor]] = {}
    hooked: set[nn.Module] = set()
    weights_by_layer: dict[int, torch.Tensor] = {}
    stack = contextlib.ExitStack()

    def dispatch(layer: int, module: nn.Module, call: AttentionCall, attention_output: torch.Tensor) -> None:
        row, projection = last_row(call), output_projection(module)
        if instruction is not None:
            row = replace(row, instruction=instruction.image_share(call))
        if layer in weights_by_layer:
            is_same = torch.equal(weights_by_layer[layer], row.weights)
            # Weights that differ between the calls become zeros, as in layers without attention.
            share = None if row.instruction is None else row.instruction * is_same
            row = replace(row, weights=row.weights * is_same, instruction=share, unusable=_SEVERAL)
        weights_by_layer[layer] = row.weights
        waiting[projection] = layer, row, attention_output
        if projection not in hooked:
            hooked.add(projection)
            # Before the model's own hooks, which then count as part of the projection.
            stack.callback(projection.register_forward_pre_hook(on_projection_input, prepend=True).remove)

    @observer
    def on_projection_input(projection: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if projection in waiting:
            layer, row, attention_output = waiting.pop(projection)
            last = args[0].reshape(len(attention_output), -1, args[0].shape[-1])[:, -1]
            read(layer, projection, apply_gate(row, projection, attention_output, last))

    with stack, attention_calls(model, anatomy, read=dispatch):
        yield
