"""Verdicts as properties of test cases in JUnit XML, and versions as properties of the suite."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

from harness.errors import shorten
from harness.plugin.fixtures import SESSION

if TYPE_CHECKING:
    from harness.judgement.results import Result

_PREFIX = "phase_"
Property = tuple[str, object]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Add the verdicts of a test to its `user_properties`, which pytest-xdist sends to the controller."""
    session = item.config.stash[SESSION]
    session.test_verdicts.clear()
    try:
        return (yield)
    finally:
        # A test that runs again replaces its earlier verdicts.
        others = [(name, value) for name, value in item.user_properties if not name.startswith(_PREFIX)]
        item.user_properties[:] = [*others, *properties(session.test_verdicts)]


@pytest.fixture(scope="session", autouse=True)
def phase_suite_properties(
    request: pytest.FixtureRequest, record_testsuite_property: Callable[[str, object], None]
) -> Iterator[None]:
    """Record versions, environment and seed as properties of the suite, if anything was measured."""
    yield
    session = request.config.stash[SESSION]
    if not session.results.profiles:
        return
    record_testsuite_property(f"{_PREFIX}harness", version("vlm-phase-harness"))
    environments = dict.fromkeys(str(profile.environment) for profile in session.results.profiles.values())
    record_testsuite_property(f"{_PREFIX}environment", "; ".join(environments))
    record_testsuite_property(f"{_PREFIX}seed", session.options.seed)


def properties(results: Sequence[Result]) -> list[Property]:
    """Return names and values of a test's verdicts in order; unknown values are omitted.

    The numbers belong to the decisive part of a claim or to the worst measure of a family.
    """
    last_results = {(result.pair, result.question): result for result in results}
    return [entry for result in last_results.values() for entry in _result_properties(result)]


def _result_properties(result: Result) -> list[Property]:
    entries: list[Property] = [
        ("pair", shorten(str(result.pair))),
        ("question", result.question),
        ("verdict", result.verdict),
    ]
    for part in result.worst_first[:1]:
        low, high = part.interval
        entries += [
            ("measure", part.title),
            ("layers", part.location),
            ("effect", _number(part.effect)),
            ("interval", f"{low:.6g} to {high:.6g}" if math.isfinite(low + high) else ""),
            ("margin", _number(part.margin)),
            ("n", part.n),
        ]
    return [(f"{_PREFIX}{name}", value) for name, value in entries if value != ""]


def _number(value: float) -> float | str:
    return float(f"{value:.6g}") if math.isfinite(value) else ""
