"""The outcome of tests of the paper's claims: known differences, findings, and the claims of two models."""

from __future__ import annotations

from collections.abc import Generator, Mapping

import pytest

from harness.judgement.known_differences import known_differences
from harness.plugin.fixtures import SESSION, pair_of
from harness.profile.pair import Pair
from harness.report.layout import reason_text
from harness.run.session import PhaseSession

_KNOWN = pytest.StashKey[Mapping[str, Mapping[str, str]]]()


def read_claim_rules(config: pytest.Config) -> None:
    """Read the known differences, and note the pairs whose claims are reported only.

    Those have neither known differences nor a baseline. Only the first of several processes has access to the files.

    Raises:
        KnownDifferencesError: the list of known differences cannot be read.
    """
    state = config.stash[SESSION]

    def read() -> tuple[dict[str, dict[str, str]], set[Pair]]:
        known = known_differences(state.options.baselines)
        unlisted = (pair for pair in state.options.pairs() if str(pair) not in known)
        return known, {pair for pair in unlisted if not state.stored.has_baseline(pair)}

    config.stash[_KNOWN], state.results.reported = state.processes.run_on_first("the known differences", read)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Turn the failure of a claim into an expected one if it is known, reported only or accepted.

    A known claim that holds fails its test. With --phase-against a test fails if one model's claim holds where the
    other's fails, and only then.
    """
    marker, pair = pyfuncitem.get_closest_marker("replication"), pair_of(pyfuncitem)
    if marker is None or pair is None:
        return (yield)
    state, name = pyfuncitem.config.stash[SESSION], marker.kwargs["claim"]
    known = pyfuncitem.config.stash[_KNOWN].get(str(pair), {}).get(name, "")
    try:
        outcome = yield
    except AssertionError:
        if not (reason := _reason(state, pair, name, known)):
            _fail_on_opposite(state, pair, name)
            raise
        _expect_failure(pyfuncitem, *reason)
        raise
    if known and state.options.against is None:
        _expect_failure(pyfuncitem, "known:", known, strict=True)
    _fail_on_opposite(state, pair, name)
    return outcome


def _reason(state: PhaseSession, pair: Pair, name: str, known: str) -> tuple[str, str] | None:
    """Return the kind and the reason of an expected failure, or None if the test has to fail."""
    from harness.judgement.known_differences import measured_reason

    if known and state.options.against is None:
        return "known:", known
    claims = [result.claim for result in state.test_verdicts if (result.pair, result.question) == (pair, name)]
    if not claims or claims[0] is None or not state.results.fails_no_test(pair, name):
        return None
    return "finding:", measured_reason(claims[0])


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
