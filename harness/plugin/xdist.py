"""Support for pytest-xdist: tests are distributed by model, and the controller merges the findings of all workers.

The hooks with `optionalhook` exist only with pytest-xdist.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Generator, Iterable
from typing import Any

import pytest

from harness.interface import COMMAND, current
from harness.plugin.activation import COMMAND_RUNS, use_pytest_words
from harness.plugin.fixtures import SESSION, is_worker
from harness.profile.pair import Pair

_FINDINGS, _USAGE = "phase_findings", "phase_usage"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return a scheduler that sends all tests of a model to one worker, so that each model is loaded once.

    Other tests are distributed according to `--dist`: by file, by scope, or one by one.
    """
    distribution = config.getoption("dist")
    if distribution in ("no", "each"):
        return None
    from xdist.scheduler import LoadScopeScheduling

    pairs = config.stash[SESSION].options.pairs()

    class LoadModelScheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            other = {"loadfile": nodeid.split("::", 1)[0], "loadscope": nodeid.rsplit("::", 1)[0]}
            return model_of(nodeid, pairs) or other.get(distribution, nodeid)

    return LoadModelScheduling(config, log)


def model_of(nodeid: str, pairs: Iterable[Pair]) -> str:
    """Return the model of the pair in the id of a test; empty if the id contains no pair.

    The id may contain other parameters before and after the pair. If several pairs match, the longest name wins.
    pytest escapes non-ASCII characters in ids.
    """
    parameters = nodeid.partition("[")[2].removesuffix("]")
    names = {pair: str(pair).encode("unicode_escape").decode("ascii") for pair in pairs}
    named = [pair for pair, name in names.items() if re.search(rf"(?:^|-){re.escape(name)}(?:-|$)", parameters)]
    return max(named, key=lambda pair: len(str(pair))).model if named else ""


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker, which is a process of its own, that the command runs pytest."""
    node.workerinput[COMMAND_RUNS] = current() == COMMAND


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any) -> None:
    """Write later messages of the controller, which collects no tests itself, in the words of pytest."""
    use_pytest_words(node.config)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip timed tests in workers, because other workers would distort the times."""
    if is_worker(item.config) and item.get_closest_marker("timing") is not None:
        pytest.skip("times are measured only without other workers: run again with -m timing -n 0")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Send the usage error of a worker to the controller, which reports it."""
    try:
        return (yield)
    except pytest.UsageError as error:
        if is_worker(session.config):
            session.config.workeroutput[_USAGE] = str(error)  # type: ignore[attr-defined]
        raise


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the findings of a worker to the controller."""
    if is_worker(session.config):
        findings = session.config.stash[SESSION].results
        session.config.workeroutput[_FINDINGS] = pickle.dumps(findings)  # type: ignore[attr-defined]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Merge the findings of a worker; a crashed worker has sent none."""
    output = getattr(node, "workeroutput", None) or {}
    if _USAGE in output:
        raise pytest.UsageError(output[_USAGE])
    if _FINDINGS in output:
        # Sent by a worker of this run, which executes the same code as the same user.
        node.config.stash[SESSION].results.merge(pickle.loads(output[_FINDINGS]))  # noqa: S301
