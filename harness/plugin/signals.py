"""SIGTERM and SIGHUP end a run like Ctrl-C: with the summary and all requested files."""

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
# A second signal within this time, in seconds, is ignored: timeout(1) and a closing terminal send two.
_REPEAT = 1.0


class SignalHandler:
    """The handler of signals that end a session, installed if there is anything to measure."""

    def __init__(self, session: pytest.Session) -> None:
        self._session, self._first_signal = session, 0.0
        self._process, self._closing = os.getpid(), False
        self._installed: list[int] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Install the handler if there is anything to measure; the controller of xdist ends its workers."""
        config = session.config
        if config.stash[SESSION].parametrized and not config.option.collectonly and not is_worker(config):
            self.install()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:
        """Install the handler in the controller of xdist, which collects no tests itself."""
        from harness.plugin.xdist import model_of

        pairs = node.config.stash[SESSION].options.pairs()
        if any(model_of(test, pairs) for test in ids):
            self.install()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Ignore signals while outputs and summary are written."""
        self._closing = True

    @pytest.hookimpl(tryfirst=True)
    def pytest_unconfigure(self) -> None:
        """Restore the default actions of the signals."""
        for number in self._installed:
            # A handler that another program installed later stays.
            if signal.getsignal(number) == self._end:
                signal.signal(number, signal.SIG_DFL)
        processes().stop_reason = ""

    def install(self) -> None:
        """Handle signals with the default action; ignored signals, as under nohup, stay ignored."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self._end)
                self._installed.append(number)

    def _end(self, number: int, _: FrameType | None) -> None:
        group, name = processes(), signal.Signals(number).name
        if os.getpid() != self._process:
            # A forked child, such as a worker of multiprocessing, uses the default action.
            _end_process(number)
            return
        if group.several:
            # No exception: all processes must reach their next synchronisation and end there together.
            group.stop_reason = (
                f"ended by its launcher ({name}), as when another process fails: see the output of that process"
            )
            self._session.shouldstop = group.stop_reason
            return
        if self._first_signal:
            if time.monotonic() - self._first_signal > _REPEAT:
                _end_process(number)
            return
        self._first_signal = time.monotonic()
        if not self._closing:
            # Python ignores exceptions in destructors; `shouldstop` and `stop_reason` still end the next batch or test.
            self._session.shouldstop = group.stop_reason = f"ended by {name}"
            raise KeyboardInterrupt(group.stop_reason)


def _end_process(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Register the handler of this session."""
    register_handler(session)


def register_handler(session: pytest.Session) -> None:
    """Register the handler of a session, which installs itself if there is anything to measure."""
    session.config.pluginmanager.register(SignalHandler(session))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """End the session of a process if another process received a signal."""
    if reason := processes().stop_reason:
        item.session.shouldstop = reason
