"""pytest-xdist: tests shared out by model, and the findings of all workers merged in the controller.

No hook of this file is called without pytest-xdist.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Generator, Iterable
from typing import Any

import pytest

from harness.plugin.fixtures import SESSION, is_worker
from harness.profile.pair import Pair

_FOUND, _USAGE = "phase_found", "phase_usage"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return a schedule that sends all tests of a model to one worker, so that each model is loaded once.

    All other tests are shared out as `--dist` says: by file, by scope, or singly.
    """
    by = config.getoption("dist")
    if by in ("no", "each"):
        return None
    from xdist.scheduler import LoadScopeScheduling

    pairs = config.stash[SESSION].options.pairs()

    class LoadModelScheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            other = {"loadfile": nodeid.split("::", 1)[0], "loadscope": nodeid.rsplit("::", 1)[0]}
            return model_of(nodeid, pairs) or other.get(by, nodeid)

    return LoadModelScheduling(config, log)


def model_of(nodeid: str, pairs: Iterable[Pair]) -> str:
    """Return the model whose pair a test is about, by the id of the test; empty if it is about none.

    Other parameters may stand before and behind the pair. Of pairs whose names hold each other the longest is meant.
    In an id pytest spells out what is not ASCII.
    """
    parameters = nodeid.partition("[")[2].removesuffix("]")
    names = {pair: str(pair).encode("unicode_escape").decode("ascii") for pair in pairs}
    named = [pair for pair, name in names.items() if re.search(rf"(?:^|-){re.escape(name)}(?:-|$)", parameters)]
    return max(named, key=lambda pair: len(str(pair))).model if named else ""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip timed cases beside other workers, which would be timed too."""
    if is_worker(item.config) and item.get_closest_marker("timing") is not None:
        pytest.skip("timed without other workers only: run it again with -m timing -n 0")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Keep a worker's usage error for the controller, which alone can say it."""
    try:
        return (yield)
    except pytest.UsageError as error:
        if is_worker(session.config):
            session.config.workeroutput[_USAGE] = str(error)  # type: ignore[attr-defined]
        raise


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send what a worker has found to the controller."""
    if is_worker(session.config):
        findings = session.config.stash[SESSION].results
        session.config.workeroutput[_FOUND] = pickle.dumps(findings)  # type: ignore[attr-defined]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a worker has found; one that crashed has told nothing."""
    output = getattr(node, "workeroutput", None) or {}
    if _USAGE in output:
        raise pytest.UsageError(output[_USAGE])
    if _FOUND in output:
        # Our own worker's, which runs the same code as the same user.
        node.config.stash[SESSION].results.add(pickle.loads(output[_FOUND]))  # noqa: S301
