"""The similarities from states that nnsight saves: what a general tool for reading states costs beside the probe."""

from __future__ import annotations

import copy
import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any

import torch

from harness.errors import first_line
from harness.lab.cost.subject import AbsentError, Subject
from harness.probe.similarity import GroupSums


def nnsight_reader(subject: Subject) -> Callable[[], Any]:
    """A function that runs the batch in a trace and returns (similarity (batch, P, 5), post_norm (batch, 5)).

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
    """The wrapped module of a dotted path."""
    return reduce(
        lambda parent, part: parent[int(part)] if part.isdigit() else getattr(parent, part), path.split("."), root
    )
