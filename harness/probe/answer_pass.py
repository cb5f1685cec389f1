"""A forward pass over prompts and their answers, which can be repeated in part with some attention blocked."""

from __future__ import annotations

import contextlib
import inspect
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from harness.errors import PhaseError
from harness.models.anatomy import Anatomy
from harness.models.caption_scorer import decoder_stack
from harness.models.likelihood import log_probabilities, summed_likelihoods
from harness.probe.answered_prompts import AnsweredPrompts
from harness.probe.attention_call import AttentionCall
from harness.probe.attention_function import attention_calls

#: Surrounds each pass in which image features enter, for example to replace them by noise; it receives the mask of
#: image positions, bool (batch, tokens).
Surrounding = Callable[[torch.Tensor], contextlib.AbstractContextManager[Any]]


class KnockoutError(PhaseError):
    """The model's attention cannot be blocked; the message gives the reason."""


@dataclass(frozen=True, slots=True, eq=False)
class Blocked:
    """Attention from `queries` to `keys`, bool (batch, tokens) each, in some `layers` (from 0); never to itself."""

    layers: range
    queries: torch.Tensor
    keys: torch.Tensor


@dataclass
class _Reference:
    """The complete pass: arguments and output of the decoder stack, attention calls and residual states by layer."""

    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    calls: Mapping[int, Sequence[AttentionCall]]
    states: Mapping[int, torch.Tensor]
    tuples: Mapping[int, tuple[Any, ...]]
    output: Any


#: Runs the model on the prompts with their answers; receives the number of last positions that need logits.
Run = Callable[[int], Any]


class AnswerPass:
    """A complete pass over prompts with answers. `likelihoods` can repeat it with attention blocked.

    A pass is repeated in part: from the first layer in which attention is blocked, and from the first token whose
    attention is blocked. Earlier layers and tokens have the same states, which the complete pass recorded.
    """

    def __init__(
        self,
        model: nn.Module,
        anatomy: Anatomy,
        prompts: AnsweredPrompts,
        run: Run,
        starts: Collection[int],
        surrounding: Surrounding = contextlib.nullcontext,
        *,
        checking: bool = False,
        unembeds: bool = True,
    ) -> None:
        """Run the complete pass.

        Args:
            model: the model.
            anatomy: its parts.
            prompts: the prompts with their answers.
            run: runs the model on them.
            starts: the layers (from 0) from which the pass will be repeated.
            surrounding: surrounds each pass in which image features enter.
            checking: True to keep the model's own log-probabilities in `own`.
            unembeds: False to compute logits from states with the model's own code, as in `use_own_logits`.

        Raises:
            KnockoutError: the decoder runs several times, a layer has no softmax attention, or prompts attend to their
                answers.
            AttentionError: as in `attention_calls`.
        """
        self.own: torch.Tensor | None = None
        self.prompts = prompts
        self._model, self._anatomy, self._surrounding = model, anatomy, surrounding
        self._stack = decoder_stack(model, anatomy)
        self._run, self._unembeds = run, unembeds
        self._reference = self._record(starts, checking or not unembeds)
        if self.earlier_tokens_attend_after(prompts.prompt_tokens):
            raise KnockoutError(
                f"{anatomy.name}: its prompt attends to the caption that follows it, so the caption has no likelihood"
            )
        self.log_probabilities = self._log_probabilities(self._reference.output.last_hidden_state)

    def use_own_logits(self) -> None:
        """Compute logits from states with all of the model's code after its decoder.

        Models that scale, cap or mask their logits need it. Their code before the decoder runs along.
        """
        self._unembeds = False
        self.log_probabilities = self._log_probabilities(self._reference.output.last_hidden_state)

    def _record(self, starts: Collection[int], checking: bool) -> _Reference:
        calls: dict[int, list[AttentionCall]] = defaultdict(list)
        states: dict[int, torch.Tensor] = {}
        tuples: dict[int, tuple[Any, ...]] = {}
        entered: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        left: list[Any] = []

        def record(layer: int, call: AttentionCall) -> AttentionCall:
            # The query is not needed again; a view would keep it in memory.
            calls[layer].append(replace(call, query=call.query.new_empty(0)))
            return call

        def keep_states(point: int, tensor: torch.Tensor) -> None:
            if point in starts:
                states[point] = tensor

        def keep_output(layer: int) -> Callable[..., None]:
            def keep(_: nn.Module, __: Any, output: Any) -> None:
                tuples[layer] = output[1:] if isinstance(output, tuple) else ()

            return keep

        with contextlib.ExitStack() as stack:
            stack.enter_context(self._surrounding(self.prompts.image))
            stack.enter_context(attention_calls(self._model, self._anatomy, edit=record))
            stack.enter_context(self._anatomy.residual_points(keep_states))
            for index, layer in enumerate(self._anatomy.layers):
                stack.callback(layer.register_forward_hook(keep_output(index)).remove)
            hook = self._stack.register_forward_pre_hook(
                lambda _, args, kwargs: entered.append((args, kwargs)), with_kwargs=True
            )
            stack.callback(hook.remove)
            stack.callback(self._stack.register_forward_hook(lambda _, __, output: left.append(output)).remove)
            logits = self._run(self.prompts.targets.shape[1] + 1 if checking else 1).logits
        if checking:
            self.own = self._read(logits)
        if len(entered) != 1 or len(left) != 1:
            raise KnockoutError(f"{self._anatomy.name}: its decoder ran {len(entered)} times in a forward pass")
        if unread := [layer + 1 for layer in range(self._anatomy.depth) if layer not in calls]:
            raise KnockoutError(
                f"{self._anatomy.name}: layer {unread[0]} has no softmax attention, so the image reaches later tokens "
                "in another way, which cannot be blocked"
            )
        arguments, keywords = entered[0]
        return _Reference(arguments, keywords, calls, states, tuples, left[0])

    def likelihoods(self, blocked: Blocked | None = None, *, start: int = 0, first: int = 0) -> NDArray[np.float64]:
        """Return the log-likelihood of each answer, in nats, float64 (n,).

        Args:
            blocked: the blocked attention; None repeats the pass as it was.
            start: the first layer that is repeated, a member of `starts`.
            first: the first token that is repeated.
        """
        return self.sums(self._log_probabilities(self._repeat(blocked, start, first), first))

    def sums(self, log_probabilities: torch.Tensor) -> NDArray[np.float64]:
        """Return the sum of each answer's log-probabilities, float64 (n,)."""
        return summed_likelihoods(log_probabilities, self.prompts.is_token)

    def earlier_tokens_attend_after(self, first: int) -> bool:
        """Return True if a token before `first` attends to a later one, so that its states change with a knockout."""
        recorded = {id(call.mask): call for calls in self._reference.calls.values() for call in calls}
        earlier, later = self.prompts.real[:, :first], self.prompts.real[:, first:]
        return any(call.attends(earlier, later) for call in recorded.values())

    def _repeat(self, blocked: Blocked | None, start: int, first: int) -> torch.Tensor:
        reference = self._reference
        masks: dict[tuple[int, bool, bool], torch.Tensor] = {}
        count: dict[int, int] = defaultdict(int)

        def edit(layer: int, call: AttentionCall) -> AttentionCall:
            recorded = reference.calls[layer][count[layer]]
            count[layer] += 1
            is_blocked = blocked is not None and layer in blocked.layers
            if not first and not is_blocked:
                return call
            key = id(recorded.mask), recorded.causal, is_blocked
            if key not in masks:
                masks[key] = _mask(recorded, first, blocked if is_blocked else None)
            keys, values = call.key, call.value
            if first:
                keys = torch.cat([recorded.key[:, :, :first], keys], 2)
                values = torch.cat([recorded.value[:, :, :first], values], 2)
            return replace(call, key=keys, value=values, mask=masks[key])

        def replaced(point: int, _: torch.Tensor) -> torch.Tensor | None:
            return reference.states[start][:, first:] if point == start else None

        arguments, keywords = reference.arguments, reference.keywords
        if first:
            arguments = _after(arguments, first, self.prompts.tokens)
            keywords = _after(keywords, first, self.prompts.tokens)
            accepted = inspect.signature(self._stack.forward).parameters
            if keywords.get("position_ids") is None and "position_ids" in accepted:
                device = reference.states[start].device
                keywords["position_ids"] = torch.arange(first, self.prompts.tokens, device=device)[None]
        with contextlib.ExitStack() as stack:
            if not first:
                stack.enter_context(self._surrounding(self.prompts.image))
            stack.enter_context(attention_calls(self._model, self._anatomy, edit=edit))
            stack.enter_context(self._anatomy.residual_points(replaced))
            for index in range(start):
                stack.enter_context(_replaced_forward(self._anatomy.layers[index], _skip(reference.tuples[index])))
            states = self._stack(*arguments, **keywords).last_hidden_state
        return states  # type: ignore[no-any-return]

    def _log_probabilities(self, states: torch.Tensor, first: int = 0) -> torch.Tensor:
        """Return the log-probabilities of all answers' tokens, answer by answer, from states from `first` on."""
        prompts = self.prompts
        if not self._unembeds:
            output = copy(self._reference.output)
            output.last_hidden_state = states
            with _replaced_forward(self._stack, lambda *_, **__: output):
                return self._read(self._run(prompts.targets.shape[1] + 1).logits)
        before = states[:, prompts.prompt_tokens - 1 - first : prompts.tokens - 1 - first]
        logits = self._anatomy.unembedding(before[prompts.is_token.to(before.device)])
        return log_probabilities(logits, prompts.targets[prompts.is_token])

    def _read(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the log-probabilities of all answers' tokens from logits (batch, positions, vocabulary)."""
        targets, is_token = self.prompts.targets, self.prompts.is_token
        before = logits[:, -targets.shape[1] - 1 : -1]
        return log_probabilities(before[is_token.to(before.device)], targets[is_token])


def _mask(call: AttentionCall, first: int, blocked: Blocked | None) -> torch.Tensor:
    """Return the mask of a recorded call for the queries from `first` on, (batch, heads or 1, queries, keys)."""
    tokens = call.key.shape[2]
    mask = call.mask
    if mask is None:
        mask = torch.ones(1, 1, tokens, tokens, dtype=torch.bool, device=call.key.device)
        mask = mask.tril() if call.causal else mask
    mask = mask[:, :, first:]
    if blocked is None:
        return mask
    queries, keys = blocked.queries.to(mask.device), blocked.keys.to(mask.device)
    forbidden = queries[:, first:, None] & keys[:, None, :]
    forbidden &= ~torch.eye(tokens, dtype=torch.bool, device=mask.device)[first:]
    if mask.dtype == torch.bool:
        return mask & ~forbidden[:, None]
    return mask.masked_fill(forbidden[:, None], torch.finfo(mask.dtype).min)


def _after(value: Any, first: int, tokens: int) -> Any:
    """Return arguments of a decoder stack restricted to the tokens from `first` on."""
    match value:
        case torch.Tensor() if value.ndim == 4 and value.shape[-2:] == (tokens, tokens):
            return value[..., first:, first:]
        case torch.Tensor() if value.ndim == 3 and value.shape[1] == tokens and value.is_floating_point():
            return value[:, first:]
        case torch.Tensor() if value.ndim and value.shape[-1] == tokens:
            return value[..., first:]
        case dict():
            return {name: _after(item, first, tokens) for name, item in value.items()}
        case tuple() | list():
            return type(value)(_after(item, first, tokens) for item in value)
    return value


def _skip(further: tuple[Any, ...]) -> Callable[..., Any]:
    """Return a forward of a decoder layer that returns its input; `further` are the other parts of its output."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        states = args[0] if args else kwargs["hidden_states"]
        return (states, *further) if further else states

    return forward


@contextlib.contextmanager
def _replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Give a module another forward inside the block."""
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
