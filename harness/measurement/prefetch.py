"""Work that is done ahead of whoever wants its results, in one thread beside his own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_END = object()
# One is being made while another waits.
_WAITING = 2


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, up to two of them made before they are asked for.

    What the iterator raises is raised where the item would have come. An iteration that is given up makes no more.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    try:
        coming = deque(pool.submit(next, items, _END) for _ in range(_WAITING))
        while (item := coming.popleft().result()) is not _END:
            coming.append(pool.submit(next, items, _END))
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(cancel_futures=True)
