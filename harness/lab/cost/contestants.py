"""The ways to run one batch, each a name and a function of a `Subject`."""

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
from harness.lab.cost.subject import AbsentError, Subject
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
    """One way to run a batch.

    `prepared` takes a subject and gives the function that is timed; it returns what it reads. `says` is a line for
    the page. A `costly` one is run once or twice only where the budget is short.
    """

    prepared: Callable[[Subject], Callable[[], Any]]
    says: str
    costly: bool = False


def nnsight_reader(subject: Subject) -> Callable[[], Any]:
    """Return a function that runs the batch in a trace and returns (similarity (batch, P, 5), post_norm (batch, 5)).

    nnsight puts controllers of its own on every module for good, so it gets a twin of the model that shares its
    tensors: the other contestants never meet them.

    Raises:
        AbsentError: no nnsight, or one that cannot be imported or does not run; also when it is run.
    """
    try:
        nnsight = importlib.import_module("nnsight")
    except ModuleNotFoundError as error:
        missing = "not installed" if error.name == "nnsight" else f"cannot be imported: {error}"
        raise AbsentError(missing) from None
    tensors = [*subject.model.parameters(), *subject.model.buffers()]
    twin = copy.deepcopy(subject.model, {id(tensor): tensor for tensor in tensors})
    paths = {module: path for path, module in subject.model.named_modules()}
    inputs, reduced = dict(subject.inputs), GroupSums(subject.groups)
    with _saying_why(), warnings.catch_warnings():
        # It warns of every submodule whose name it uses itself.
        warnings.simplefilter("ignore")
        traced = nnsight.NNsight(twin)
        points = [_at(traced, paths[module]) for module in (*subject.anatomy.layers, subject.anatomy.final_norm)]

    def read() -> Any:
        with torch.inference_mode(), _saying_why():
            with traced.trace(**inputs, use_cache=False, logits_to_keep=1):
                states = nnsight.save([])
                for point in points:
                    states.append(point.input)
                states.append(points[-1].output)
            curves = [reduced.similarities(reduced(state)) for state in states]
            return torch.stack(curves[:-1], dim=1).cpu(), curves[-1].cpu()

    return read


@contextmanager
def _saying_why() -> Iterator[None]:
    """Whatever a version of nnsight stumbles over with this torch and transformers, as the row's reason."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise AbsentError(f"does not run here: {type(error).__name__}: {first_line(error, '')}") from error


def _at(root: Any, path: str) -> Any:
    """Return the wrapped module of a dotted path."""
    return reduce(
        lambda parent, part: parent[int(part)] if part.isdigit() else getattr(parent, part), path.split("."), root
    )


def _observing(*, attention: bool, recall: bool) -> Callable[[Subject], Callable[[], Any]]:
    return lambda subject: partial(subject.observed, attention=attention, recall=recall)


CONTESTANTS: Mapping[str, Contestant] = MappingProxyType(
    {
        PLAIN: Contestant(lambda subject: subject.forward, "the model's forward pass alone"),
        SIMILARITY: Contestant(
            _observing(attention=False, recall=False),
            "similarity across and within the token groups at every residual point",
        ),
        ATTENTION: Contestant(
            _observing(attention=True, recall=False),
            "and the last token's norm-based attention in every layer",
        ),
        RECALL: Contestant(
            _observing(attention=False, recall=True),
            "similarity, and LogitLens recall (k = 1 and 5) at every image token and residual point",
        ),
        EVERYTHING: Contestant(
            _observing(attention=True, recall=True),
            "similarity, attention and recall: what a measurement does",
        ),
        NAIVE: Contestant(
            naive_reader,
            "the same measures from eager attention with every attention matrix and hidden state kept: full matrices "
            "of cosines, every head's values transformed, the whole vocabulary decoded at every image token and point",
            costly=True,
        ),
        NNSIGHT: Contestant(
            nnsight_reader,
            "similarity alone: nnsight saves the layers' inputs, which the same sums reduce afterwards",
        ),
    }
)
