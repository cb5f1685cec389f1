"""`prefetch` prepares items in advance, in one background thread and in order."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from harness.measurement.batches import prefetch


def test_all_items_arrive_in_order() -> None:
    assert list(prefetch(iter(range(20)))) == list(range(20))
    assert list(prefetch(iter(()))) == []


def test_the_next_item_is_prepared_while_one_is_used() -> None:
    made = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        made.set()
        yield 1

    prefetched = prefetch(items())
    assert next(prefetched) == 0
    assert made.wait(60), "the second item is prepared before it is requested"
    assert list(prefetched) == [1]


def test_all_items_are_prepared_in_one_background_thread() -> None:
    makers = set(prefetch(threading.get_ident() for _ in range(10)))
    assert len(makers) == 1
    assert threading.get_ident() not in makers


def test_an_error_is_raised_in_place_of_its_item() -> None:
    def items() -> Iterator[int]:
        yield 0
        yield 1
        raise KeyError("the third")

    prefetched = prefetch(items())
    assert [next(prefetched), next(prefetched)] == [0, 1]
    with pytest.raises(KeyError, match="the third"):
        next(prefetched)


def test_closing_the_iteration_stops_the_preparation() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            made.append(item)
            yield item

    prefetched = prefetch(items())
    next(prefetched)
    prefetched.close()
    assert len(made) <= 4
    assert threading.active_count() == 1 or not any(t.name.startswith("prefetch") for t in threading.enumerate())
