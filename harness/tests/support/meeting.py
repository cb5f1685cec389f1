"""Communication between two processes, one line of output per result: python -m harness.tests.support.meeting."""

from __future__ import annotations

import os
from collections.abc import Callable

from harness.errors import PhaseError
from harness.measurement.rank_settings import Setting
from harness.measurement.ranks import processes


class ReadingError(PhaseError):
    """An error whose constructor takes more arguments than its message."""

    def __init__(self, sample: str, problem: str) -> None:
        super().__init__(f"sample {sample} is {problem}")


def main() -> None:
    together = processes()
    second = together.rank == 1

    def report(name: str, work: Callable[[], object]) -> None:
        try:
            print(f"{name}: {work()}", flush=True)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", flush=True)

    def broken() -> list[int]:
        if second:
            raise ReadingError("tiny-3", "NaN")
        return [1]

    def unforeseen() -> list[int]:
        if second:
            raise ZeroDivisionError("nobody thought of it")
        return together.gather("inside", lambda: [1])

    def batches(n: int) -> list[str]:
        return together.gather("batches", lambda: [f"b{batch}" for batch in together.share(n)])

    for n in (5, 1, 0):
        report(f"{n} batches", lambda n=n: batches(n))  # type: ignore[misc]
    report("agreed", lambda: together.agree_on_first("rank", lambda: together.rank))
    report("of the first", lambda: together.run_on_first("rank", lambda: [together.rank]))
    report("broken", lambda: together.agree_on_first("outside", lambda: together.gather("inside", broken)))
    report("unforeseen", lambda: together.agree_on_first("outside", unforeseen))
    report("not to be sent", lambda: together.run_on_first("function", lambda: lambda: 1))
    report("the same", lambda: together.require_same_settings("start", "started", lambda: {"size": Setting("8")}))
    report(
        "others",
        lambda: together.require_same_settings("start", "started", lambda: {"size": Setting("48"[together.first])}),
    )
    report("in step", lambda: batches(3))
    if second:
        os._exit(0)
    report("alone", lambda: batches(2))
    report("still alone", lambda: together.wait("anything"))


if __name__ == "__main__":
    main()
