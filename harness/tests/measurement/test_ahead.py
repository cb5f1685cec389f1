"""Items are made before they are asked for, in one thread, in order."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from harness.measurement.batches import prefetch


def test_the_items_come_in_order_and_none_is_lost() -> None:
    assert list(prefetch(iter(range(20)))) == list(range(20))
    assert list(prefetch(iter(()))) == []


def test_the_next_item_is_made_while_one_is_used() -> None:
    made = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        made.set()
        yield 1

    coming = prefetch(items())
    assert next(coming) == 0
    assert made.wait(60), "the second item is made although nobody has asked for it yet"
    assert list(coming) == [1]


def test_all_items_are_made_in_one_thread_which_is_not_ours() -> None:
    makers = set(prefetch(threading.get_ident() for _ in range(10)))
    assert len(makers) == 1
    assert threading.get_ident() not in makers


def test_an_error_comes_where_its_item_would_have() -> None:
    def items() -> Iterator[int]:
        yield 0
        yield 1
        raise KeyError("the third")

    coming = prefetch(items())
    assert [next(coming), next(coming)] == [0, 1]
    with pytest.raises(KeyError, match="the third"):
        next(coming)


def test_an_iteration_that_is_given_up_makes_no_more() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            made.append(item)
            yield item

    coming = prefetch(items())
    next(coming)
    coming.close()
    assert len(made) <= 4
    assert threading.active_count() == 1 or not any(t.name.startswith("ahead") for t in threading.enumerate())
