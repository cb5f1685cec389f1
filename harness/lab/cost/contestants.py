"""The ways to run one batch, each a name and a function of a `Subject`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from harness.lab.cost.naive import naive_reader
from harness.lab.cost.nnsight_states import nnsight_reader
from harness.lab.cost.subject import Subject

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
