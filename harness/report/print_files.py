"""The files of figures for print; those of many figures are converted in other processes while more are drawn."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Self

from matplotlib.figure import Figure

from harness.report.svg import to_pdf, to_png

Files = dict[str, bytes]


def print_files(figure: Figure) -> Files:
    """Return the figure as PNG and as PDF, by the ending of the file."""
    return {"png": to_png(figure), "pdf": to_pdf(figure)}


class PrintFiles:
    """The files of all figures of a report. Its processes end with the block that it manages.

    `processes` is their number; with none, the figures are converted here.
    """

    def __init__(self, processes: int = 0) -> None:
        self._pool = ThreadPoolExecutor(processes) if processes else None
        self._own = threading.local()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._waiting: list[tuple[str, Figure, Future[Files] | None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        for process in self._processes:
            # The end of its input ends the process.
            process.communicate()

    def add(self, name: str, figure: Figure) -> None:
        """Begin to convert a figure, which must not change any more."""
        future = None if self._pool is None else self._pool.submit(self._convert, pickle.dumps(figure))
        self._waiting.append((name, figure, future))

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield the name and the content of each file, in the order of the figures."""
        for name, figure, future in self._waiting:
            try:
                files = print_files(figure) if future is None else future.result()
            except (OSError, EOFError, pickle.UnpicklingError):
                # The process did not start, or was ended from outside.
                files = print_files(figure)
            for ending, content in files.items():
                yield f"{name}.{ending}", content

    def _convert(self, figure: bytes) -> Files:
        """Return the files of a pickled figure from the process of this thread; matplotlib is not safe for threads."""
        if not hasattr(self._own, "process"):
            self._own.process = _start()
            self._processes.append(self._own.process)
        process: subprocess.Popen[bytes] = self._own.process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(figure)
        process.stdin.flush()
        files: Files = pickle.load(process.stdout)  # noqa: S301 - from our own process
        return files


def _start() -> subprocess.Popen[bytes]:
    path = os.pathsep.join(entry for entry in sys.path if isinstance(entry, str))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "harness.report.print_files"],
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def convert_stream(figures: IO[bytes], files: IO[bytes]) -> None:
    """Read pickled figures until the end of a stream, and write the pickled files of each."""
    while True:
        try:
            figure = pickle.load(figures)  # noqa: S301 - from our own process
        except EOFError:
            return
        pickle.dump(print_files(figure), files)
        files.flush()


if __name__ == "__main__":
    convert_stream(sys.stdin.buffer, sys.stdout.buffer)
