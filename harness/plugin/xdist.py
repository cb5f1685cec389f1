"""pytest-xdist: what each worker measured, merged in the controller into one summary, one record and one exit status.

Nothing here is called without pytest-xdist.
"""

from __future__ import annotations

import pickle
from collections.abc import Generator
from typing import Any

import pytest

from harness.plugin.fixtures import SESSION, is_worker

_FOUND, _USAGE = "phase_found", "phase_usage"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The schedule by model, where tests are shared out at all."""
    if config.getoption("dist") in ("no", "each"):
        return None
    from harness.plugin.xdist_groups import LoadModelScheduling

    return LoadModelScheduling(config, log, config.stash[SESSION].options.pairs())


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips timed cases beside other workers, which would be timed too."""
    if is_worker(item.config) and item.get_closest_marker("timing") is not None:
        pytest.skip("timed without other workers only: run it again with -m timing -n 0")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Keeps a worker's usage error for the controller, which alone can say it."""
    try:
        return (yield)
    except pytest.UsageError as error:
        if is_worker(session.config):
            session.config.workeroutput[_USAGE] = str(error)  # type: ignore[attr-defined]
        raise


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Sends what a worker has found to the controller."""
    if is_worker(session.config):
        found = session.config.stash[SESSION].found
        session.config.workeroutput[_FOUND] = pickle.dumps(found)  # type: ignore[attr-defined]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes what a worker has found; one that crashed has told nothing."""
    told = getattr(node, "workeroutput", None) or {}
    if _USAGE in told:
        raise pytest.UsageError(told[_USAGE])
    if _FOUND in told:
        # Our own worker's, which runs the same code as the same user.
        node.config.stash[SESSION].found.add(pickle.loads(told[_FOUND]))  # noqa: S301
