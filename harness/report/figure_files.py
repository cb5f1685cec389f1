"""The files of the figures of a report, drawn by several processes if there are many figures."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Self

from harness.report.drawn_figures import DrawnFigure
from harness.report.hover import with_hover
from harness.report.svg import figure_settings, to_pdf, to_png, to_svg

# Figures need many small objects, which cause collections. With these thresholds collections are few and skip the old
# objects, such as modules.
_THRESHOLDS = 100_000, 10, 1_000_000

Draw = Callable[[], DrawnFigure]
Files = dict[str, bytes]


def figure_files(draw: Draw) -> Files:
    """Draw a figure and return its files by their endings: its numbers as CSV, and the figure as SVG, PNG and PDF."""
    with figure_settings():
        figure, table, areas = draw()
    svg = with_hover(to_svg(figure), figure, areas)
    return {"csv": table.to_csv().encode(), "svg": svg.encode(), "png": to_png(figure), "pdf": to_pdf(figure)}


class FigureFiles:
    """The files of all figures of a report. Its processes end with the block that it manages.

    `processes` is the number of processes that draw beside this one.
    """

    def __init__(self, processes: int = 0) -> None:
        self._pool = ThreadPoolExecutor(processes) if processes > 0 else None
        self._own = threading.local()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._waiting: list[tuple[str, Draw, Future[Files] | None]] = []

    def __enter__(self) -> Self:
        self._thresholds = gc.get_threshold()
        gc.set_threshold(*_THRESHOLDS)
        if self._pool is not None:
            # A process imports its modules while this one prepares the figures.
            self._pool.submit(self._process)
        return self

    def __exit__(self, *_: object) -> None:
        gc.set_threshold(*self._thresholds)
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        for process in self._processes:
            # The end of its input ends the process.
            process.communicate()

    def add(self, name: str, draw: Draw) -> None:
        """Add a figure, which another process may begin to draw; `draw` is a function of a module with arguments."""
        self._waiting.append((name, draw, None if self._pool is None else self._pool.submit(self._convert, draw)))

    def files(self) -> Iterator[tuple[str, Files]]:
        """Yield the name and the files of each figure, the last figure first: other processes begin at the first.

        Raises:
            Exception: a figure cannot be drawn.
        """
        while self._waiting:
            name, draw, future = self._waiting.pop()
            # If another process failed for any reason, the figure is drawn here, where its error appears.
            if future is None or future.cancel() or future.exception() is not None:
                yield name, figure_files(draw)
            else:
                yield name, future.result()

    def _process(self) -> subprocess.Popen[bytes]:
        """Return the process of this thread; matplotlib is not safe for threads."""
        if not hasattr(self._own, "process"):
            self._own.process = _start()
            self._processes.append(self._own.process)
        process: subprocess.Popen[bytes] = self._own.process
        return process

    def _convert(self, draw: Draw) -> Files:
        """Return the files of a figure from the process of this thread."""
        process = self._process()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(pickle.dumps(draw))
        process.stdin.flush()
        files: Files = pickle.load(process.stdout)  # noqa: S301 - from our own process
        return files


def _start() -> subprocess.Popen[bytes]:
    path = os.pathsep.join(entry for entry in sys.path if isinstance(entry, str))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "harness.report.figure_files"],
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def draw_stream(figures: IO[bytes], files: IO[bytes]) -> None:
    """Read pickled functions that draw a figure until the end of a stream, and write the pickled files of each."""
    while True:
        try:
            draw = pickle.load(figures)  # noqa: S301 - from our own process
        except EOFError:
            return
        pickle.dump(figure_files(draw), files)
        files.flush()


if __name__ == "__main__":
    gc.set_threshold(*_THRESHOLDS)
    draw_stream(sys.stdin.buffer, sys.stdout.buffer)
