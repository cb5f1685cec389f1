"""Which items of a dataset on disk are used: the first that can be, in an order drawn from the seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from harness.data.scenes import stable_seed


def first_usable(
    ids: Iterable[str], n: int, seed: int, dataset: str, fault: Callable[[str], str | None]
) -> tuple[list[str], dict[str, str]]:
    """The first n ids without a fault, and the faulty ones met on the way with what `fault` says of them.

    The order is a permutation of all ids drawn from dataset and seed. It does not depend on the order in which they
    are given, and the first m are the same for every n >= m. Where fewer than n are usable, all of them are returned.
    """
    ordered = sorted(ids, key=_as_number)
    rng = np.random.Generator(np.random.PCG64(stable_seed(f"{dataset}/{seed}")))
    usable: list[str] = []
    faulty: dict[str, str] = {}
    for index in rng.permutation(len(ordered)):
        if len(usable) >= n:
            break
        name = ordered[index]
        reason = fault(name)
        if reason is None:
            usable.append(name)
        else:
            faulty[name] = reason
    return usable, faulty


def tidy_captions(texts: Iterable[str | None]) -> tuple[str, ...]:
    """The captions with single spaces and none at the ends, each once; empty ones are dropped."""
    return tuple(dict.fromkeys(tidy for text in texts if (tidy := " ".join((text or "").split()))))


def _as_number(name: str) -> tuple[bool, int, str]:
    """Key that puts numbers first and in order of size, whatever file they came from."""
    number = name.isascii() and name.isdigit()
    return not number, int(name) if number else 0, name
