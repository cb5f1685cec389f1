"""The contestants of the benchmark: named ways to run one batch of a `Subject`."""

from __future__ import annotations

import copy
import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from types import MappingProxyType
from typing import Any

import torch

from harness.errors import first_line
from harness.lab.cost.naive import naive_reader
from harness.lab.cost.subject import Subject, UnavailableError
from harness.probe.similarity import GroupSums

PLAIN = "plain"
SIMILARITY = "similarity"
ATTENTION = "similarity + attention"
RECALL = "similarity + recall"
EVERYTHING = "everything"
NAIVE = "naive"
NNSIGHT = "nnsight"


@dataclass(frozen=True, slots=True)
class Contestant:
    """A way to run a batch.

    `prepare` takes a subject and returns the function to time, whose result is the readings. `description` is a line of
    the page. A `costly` contestant runs only once or twice if the budget is short.
    """

    prepare: Callable[[Subject], Callable[[], Any]]
    description: str
    costly: bool = False


def nnsight_reader(subject: Subject) -> Callable[[], Any]:
    """Return a function that runs the batch in a trace and returns (similarity (batch, P, 5), post_norm (batch, 5)).

    nnsight attaches permanent controllers to every module. It therefore gets a copy of the model that shares its
    tensors, so that the other contestants stay unaffected.

    Raises:
        UnavailableError: nnsight is missing, cannot be imported or does not run; the returned function raises it too.
    """
    try:
        nnsight = importlib.import_module("nnsight")
    except ModuleNotFoundError as error:
        missing = "not installed" if error.name == "nnsight" else f"cannot be imported: {error}"
        raise UnavailableError(missing) from None
    tensors = [*subject.model.parameters(), *subject.model.buffers()]
    twin = copy.deepcopy(subject.model, {id(tensor): tensor for tensor in tensors})
    paths = {module: path for path, module in subject.model.named_modules()}
    inputs, reduced = dict(subject.inputs), GroupSums(subject.groups)
    with _convert_errors(), warnings.catch_warnings():
        # nnsight warns about every submodule whose name clashes with its own attributes.
        warnings.simplefilter("ignore")
        traced = nnsight.NNsight(twin)
        points = [_submodule(traced, paths[module]) for module in (*subject.anatomy.layers, subject.anatomy.final_norm)]

    def read() -> Any:
        with torch.inference_mode(), _convert_errors():
            with traced.trace(**inputs, use_cache=False, logits_to_keep=1):
                states = nnsight.save([])
                for point in points:
                    states.append(point.input)
                states.append(points[-1].output)
            curves = [reduced.similarities(reduced(state)) for state in states]
            return torch.stack(curves[:-1], dim=1).cpu(), curves[-1].cpu()

    return read


@contextmanager
def _convert_errors() -> Iterator[None]:
    """Turn any error of nnsight, except a lack of memory, into an `UnavailableError` with its text."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise UnavailableError(f"does not run here: {type(error).__name__}: {first_line(error, '')}") from error


def _submodule(root: Any, path: str) -> Any:
    """Return the wrapped module at a dotted path."""
    return reduce(
        lambda parent, part: parent[int(part)] if part.isdigit() else getattr(parent, part), path.split("."), root
    )


def _observer(*, attention: bool, recall: bool) -> Callable[[Subject], Callable[[], Any]]:
    return lambda subject: partial(subject.observe, attention=attention, recall=recall)


CONTESTANTS: Mapping[str, Contestant] = MappingProxyType(
    {
        PLAIN: Contestant(lambda subject: subject.forward, "the model's forward pass alone"),
        SIMILARITY: Contestant(
            _observer(attention=False, recall=False),
            "similarity across and within the token groups at every residual point",
        ),
        ATTENTION: Contestant(
            _observer(attention=True, recall=False),
            "similarity, and the last token's norm-based attention in every layer",
        ),
        RECALL: Contestant(
            _observer(attention=False, recall=True),
            "similarity, and LogitLens recall (k = 1 and 5) at every image token and residual point",
        ),
        EVERYTHING: Contestant(
            _observer(attention=True, recall=True),
            "similarity, attention and recall, as in a measurement",
        ),
        NAIVE: Contestant(
            naive_reader,
            "the same measures from eager attention with every attention matrix and hidden state kept: full matrices "
            "of cosines, every head's values transformed, the whole vocabulary decoded at every image token and point",
            costly=True,
        ),
        NNSIGHT: Contestant(
            nnsight_reader,
            "similarity alone, computed from the layers' inputs after nnsight has saved them",
        ),
    }
)
