"""SIGTERM and SIGHUP end tests of pairs as Ctrl-C does: with the summary and all files that were asked for."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

import pytest

from harness.measurement.ranks import processes
from harness.plugin.fixtures import SESSION, is_worker

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
# Seconds within which a second signal is the first one sent twice, as timeout(1) and a closing terminal do.
_TWICE = 1.0


class SignalHandler:
    """The handler of signals that end a session, installed when there is something to measure."""

    def __init__(self, session: pytest.Session) -> None:
        self._session, self._since = session, 0.0
        self._process, self._closing = os.getpid(), False
        self._installed: list[int] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Handle the signals where there is something to measure; xdist's workers are ended by their controller."""
        config = session.config
        if config.stash[SESSION].parametrized and not config.option.collectonly and not is_worker(config):
            self.install()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:
        """Handle the signals in xdist's controller, which collects nothing itself."""
        from harness.plugin.xdist import model_of

        pairs = node.config.stash[SESSION].options.pairs()
        if any(model_of(test, pairs) for test in ids):
            self.install()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Leave what is written and said at the end undisturbed."""
        self._closing = True

    @pytest.hookimpl(tryfirst=True)
    def pytest_unconfigure(self) -> None:
        """Restore the signals."""
        for number in self._installed:
            # A program that has installed its own since keeps it.
            if signal.getsignal(number) == self._end:
                signal.signal(number, signal.SIG_DFL)
        processes().stop_reason = ""

    def install(self) -> None:
        """Handle the signals that would end the process; those that are ignored, as under nohup, stay so."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self._end)
                self._installed.append(number)

    def _end(self, number: int, _: FrameType | None) -> None:
        together, name = processes(), signal.Signals(number).name
        if os.getpid() != self._process:
            # A forked child, such as a worker of multiprocessing, ends as if nothing were installed.
            _end_process(number)
            return
        if together.several:
            # Nothing is raised: all processes end before their next batch, and meet until then.
            together.stop_reason = (
                f"ended by its launcher ({name}), as when another process fails: look at what that printed"
            )
            self._session.shouldstop = together.stop_reason
            return
        if self._since:
            if time.monotonic() - self._since > _TWICE:
                _end_process(number)
            return
        self._since = time.monotonic()
        if not self._closing:
            # Python may be in a destructor, which swallows the error: the next batch or test ends all the same.
            self._session.shouldstop = together.stop_reason = f"ended by {name}"
            raise KeyboardInterrupt(together.stop_reason)


def _end_process(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Make the handler of this session."""
    session.config.pluginmanager.register(SignalHandler(session))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """End the session of a process that has heard of another's signal."""
    if reason := processes().stop_reason:
        item.session.shouldstop = reason
