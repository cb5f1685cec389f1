"""Hooks for the tests of pairs: their selection and refusal, and the exit code of a run."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import nullcontext

import pytest

from harness.data.datasets import find_dataset
from harness.errors import PhaseError
from harness.plugin.collection_refusals import refuse_impossible
from harness.plugin.fixtures import SESSION, is_worker, pair_of
from harness.profile.pair import Pair
from harness.run.options import Options

_TIMING, _CAUSAL = "timing", "causal"
_NO_REGRESSION = ("replication", _TIMING)


# Last, because a model is timed with a pair that other hooks, -k and -m have left.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect replication and timing tests on datasets for regression only, and times of a model's further pairs.

    Causal tests are deselected unless the knockout is measured.
    """
    causal = SESSION in config.stash and config.stash[SESSION].options.knockout
    deselected = [
        item
        for item in items
        if (pair := pair_of(item)) is not None
        and (_is_unasked(item, pair) or (item.get_closest_marker(_CAUSAL) is not None and not causal))
    ]
    pairs = {item: pair for item in items if item not in deselected and (pair := _timed_pair(item)) is not None}
    if pairs:
        timed = _timed_pairs(config.stash[SESSION].options, pairs.values())
        deselected += [item for item, pair in pairs.items() if pair not in timed]
    if deselected:
        items[:] = [item for item in items if item not in deselected]
        config.hook.pytest_deselected(items=deselected)


def _is_unasked(item: pytest.Item, pair: Pair) -> bool:
    """Return True for a test of a claim or of time on a dataset that is for regression only."""
    return find_dataset(pair.dataset).regression_only and any(map(item.get_closest_marker, _NO_REGRESSION))


def _timed_pair(item: pytest.Item) -> Pair | None:
    """Return the pair of a timing test, or None."""
    return pair_of(item) if item.get_closest_marker(_TIMING) is not None else None


def _timed_pairs(options: Options, pairs: Iterable[Pair]) -> set[Pair]:
    """Return one pair per model: its first one, or its first one that is available on this machine."""
    by_model: dict[str, list[Pair]] = {}
    for pair in dict.fromkeys(pairs):
        by_model.setdefault(pair.model, []).append(pair)
    return {next((pair for pair in own if not options.unavailable(pair)[0]), own[0]) for own in by_model.values()}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse pairs that cannot be measured: missing data, an unavailable device, an unwritable directory.

    Several processes check this together. A process without selected tests takes part, because the others wait for it.
    """
    needed = any(map(pair_of, session.items))
    state = session.config.stash[SESSION]
    several = state.processes.several and state.parametrized
    if session.config.option.collectonly or not (needed or several):
        return
    # Imported late, because pytest warns about a plugin module that is imported before it is registered.
    from harness.plugin.claim_tests import read_claim_rules
    from harness.plugin.torchrun import refuse_together, start_together

    def refuse() -> None:
        if needed:
            state.results.collected = tuple(dict.fromkeys(filter(None, map(pair_of, session.items))))
            refuse_impossible(session)

    if several:
        start_together(session, refuse)
    else:
        refuse()
    try:
        read_claim_rules(session)
    except PhaseError as error:
        refuse_together(str(error))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests of an unavailable pair, and of a pair whose error an earlier test reported."""
    if not (pair := pair_of(item)):
        return
    state = item.config.stash[SESSION]
    state.errors.running = item.nodeid
    if reason := state.measured.missing(pair):
        pytest.skip(f"{pair}: {reason}")
    if reason := state.errors.earlier(pair, getattr(item, "fixturenames", ())):
        pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Count warnings of timed models like those of measured models."""
    timed = _timed_pair(item) is not None
    with item.config.stash[SESSION].results.warnings.recording() if timed else nullcontext():
        return (yield)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run with too many inconclusive verdicts; with xdist, only the controller does so."""
    state = session.config.stash[SESSION]
    if (
        not is_worker(session.config)
        and state.results.inconclusive_reason()
        and session.exitstatus == pytest.ExitCode.OK
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
