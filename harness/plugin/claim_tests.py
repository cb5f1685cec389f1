"""The outcome of tests of the paper's claims: known differences, findings, and the claims of two models."""

from __future__ import annotations

from collections.abc import Generator, Mapping

import pytest

from harness.errors import PhaseError
from harness.judgement.known_differences import known_differences
from harness.plugin.fixtures import SESSION, is_worker, pair_of, write_line
from harness.profile.pair import Pair
from harness.report.layout import reason_text
from harness.run.session import PhaseSession
from harness.run.stored_knockout import has_knockout

_KNOWN = pytest.StashKey[Mapping[str, Mapping[str, str]]]()
# The pairs whose baseline an update option may write, because a selected test compares it.
_COMPARED = pytest.StashKey[frozenset[Pair]]()


def read_claim_rules(session: pytest.Session) -> None:
    """Read the known differences, and note the pairs whose claims are reported only.

    Those have neither known differences nor a baseline. Only the first of several processes has access to the files.

    Raises:
        KnownDifferencesError: the list of known differences cannot be read.
    """
    config = session.config
    state = config.stash[SESSION]
    compared = (pair_of(item) for item in session.items if "baseline" in getattr(item, "fixturenames", ()))
    config.stash[_COMPARED] = frozenset(filter(None, compared))

    def read() -> tuple[dict[str, dict[str, str]], set[Pair], set[Pair]]:
        paths = {pair: state.stored.paths(pair) for pair in state.options.pairs()}
        unrecorded = {pair for pair, stored in paths.items() if not stored}
        without_knockout = {
            pair for pair, stored in paths.items() if state.options.knockout and not has_knockout(stored)
        }
        return known_differences(state.options.baselines), unrecorded, without_knockout

    known, unrecorded, without_knockout = state.processes.run_on_first("the known differences", read)
    config.stash[_KNOWN], state.results.unrecorded = known, unrecorded
    state.results.without_knockout = without_knockout
    state.results.reported = {pair for pair in unrecorded if str(pair) not in known}


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Turn the failure of a claim into an expected one if it is known, reported only or accepted.

    A known claim that holds fails its test. With --phase-against a test fails if one model's claim holds where the
    other's fails, and only then.
    """
    marker, pair = pyfuncitem.get_closest_marker("replication"), pair_of(pyfuncitem)
    # Without the rules the test has a `pair` of its own.
    if marker is None or pair is None or _KNOWN not in pyfuncitem.config.stash:
        return (yield)
    state, name = pyfuncitem.config.stash[SESSION], marker.kwargs["claim"]
    known = pyfuncitem.config.stash[_KNOWN].get(str(pair), {}).get(name, "")
    try:
        outcome = yield
    except AssertionError:
        if reason := _reason(pyfuncitem, pair, name, known):
            _expect_failure(pyfuncitem, *reason)
        else:
            _fail_on_opposite(state, pair, name)
        raise
    if known and state.options.against is None and not _is_accepted(pyfuncitem, pair):
        _expect_failure(pyfuncitem, "known:", known, strict=True)
    _fail_on_opposite(state, pair, name)
    return outcome


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the known differences of accepted pairs, before any report reads them."""
    state = session.config.stash[SESSION]
    if is_worker(session.config) or not state.processes.first:
        return
    try:
        state.write_known_differences()
    except PhaseError as error:
        write_line(session.config, str(error))
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def _reason(item: pytest.Item, pair: Pair, name: str, known: str) -> tuple[str, str] | None:
    """Return the kind and the reason of an expected failure, or None if the test has to fail."""
    from harness.judgement.known_differences import measured_reason

    state = item.config.stash[SESSION]
    if known and state.options.against is None:
        return "known:", known
    claims = [result.claim for result in state.test_verdicts if (result.pair, result.question) == (pair, name)]
    if not claims or claims[0] is None:
        return None
    if claims[0].verdict == "fails" and _is_accepted(item, pair):
        return "accepted:", measured_reason(claims[0])
    return ("finding:", measured_reason(claims[0])) if state.results.fails_no_test(pair, name) else None


def _is_accepted(item: pytest.Item, pair: Pair) -> bool:
    """Return True if the run writes the known differences of a pair, by option or with its baseline."""
    state = item.config.stash[SESSION]
    if state.options.accept_claims:
        return True
    if not state.options.update or pair not in item.config.stash[_COMPARED]:
        return False
    return state.stored.will_replace(pair, state.measured.profile(pair))


def _expect_failure(item: pytest.Item, kind: str, reason: str, *, strict: bool = False) -> None:
    """Mark the running test as an expected failure, before pytest looks for such a mark again."""
    item.add_marker(pytest.mark.xfail(reason=reason_text(kind, reason), strict=strict, raises=AssertionError))


def _fail_on_opposite(state: PhaseSession, pair: Pair, name: str) -> None:
    """Fail if the claim of the --phase-against model fails where the pair's holds, or the reverse."""
    if (other := state.results.opposite_claim(pair, name)) is not None:
        from harness.checks import opposite_claims_text

        own = state.results.claims(pair)[name]
        against = state.options.against
        assert against is not None
        pytest.fail(opposite_claims_text({pair.model: own, against.name: other}, pair.dataset), pytrace=False)
