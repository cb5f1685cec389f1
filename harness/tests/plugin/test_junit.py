"""JUnit XML contains the verdicts of each case with their numbers, and pytest raises no warning."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from harness.analysis.boundary_agreement import BoundaryKind, BoundaryShift
from harness.analysis.mean_difference import Verdict
from harness.analysis.timing import TimingRatio
from harness.judgement.results import Evidence, Result, timing_result
from harness.plugin.junit import properties
from harness.profile.pair import Pair
from harness.tests.support.case_runs import Cases, FaultPlugin
from harness.tests.support.faults import swap_layers

ANSWERED = {"phase_pair", "phase_question", "phase_verdict"}
NUMBERS = {"phase_measure", "phase_effect", "phase_interval", "phase_margin", "phase_n"}


def read(path: Path) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Return the properties of the suite, and those of each test case by its class and name."""
    suite = ElementTree.parse(path).getroot().find("testsuite")  # noqa: S314
    assert suite is not None

    def properties_of(element: ElementTree.Element) -> dict[str, str]:
        return {entry.attrib["name"]: entry.attrib["value"] for entry in element.findall("properties/property")}

    cases = {
        f"{case.attrib['classname']}.{case.attrib['name']}": properties_of(case) for case in suite.findall("testcase")
    }
    return properties_of(suite), cases


@pytest.mark.slow
def test_every_case_has_its_verdict_as_properties(recorded: Cases) -> None:
    path = recorded.baselines.parent / "out.xml"
    options = ("-m", "regression or replication", "--phase-controls", "none", "--junit-xml", str(path))
    result = recorded.run(*options, plugins=(FaultPlugin(swap_layers(3)),))
    assert "warnings" not in result.parseoutcomes()
    suite, cases = read(path)
    assert set(suite) == {"phase_harness", "phase_environment", "phase_seed"}
    assert suite["phase_environment"].startswith("torch ")
    assert len(cases) == 17
    for name, values in cases.items():
        assert set(values) >= ANSWERED, name
        assert values["phase_pair"] == "tiny-llava-tiny"
        assert set(values) >= NUMBERS - {"phase_interval"}, name
        assert np.isfinite([float(values[key]) for key in ("phase_margin", "phase_n")]).all()
    inter = next(values for name, values in cases.items() if "test_inter_similarity.test_equivalent" in name)
    assert (inter["phase_question"], inter["phase_verdict"]) == ("inter", "differs")
    assert inter["phase_layers"].startswith("residual point")
    low, high = map(float, inter["phase_interval"].split(" to "))
    assert low < float(inter["phase_effect"]) < high
    assert float(inter["phase_margin"]) < min(abs(low), abs(high))
    questions = {values["phase_question"] for values in cases.values()}
    assert questions >= {"inter", "intra", "attention", "lens", "boundaries", "intervals", "four-phases", "inter-modal"}


@pytest.mark.slow
def test_workers_send_properties_to_the_controller(recorded: Cases, pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    pytester.makepyfile(
        """
        def test_one(phase):
            from harness.judgement.results import Result
            from harness.profile.pair import Pair
            phase.record(Result(Pair("a", "b"), "regression", "inter", "reproduces"))
        """
    )
    result = pytester.runpytest_subprocess("-n", "1", "-p", "harness.plugin.hooks", "--junit-xml", "out.xml")
    assert result.ret == pytest.ExitCode.OK, result.stdout.str() + result.stderr.str()
    _, cases = read(pytester.path / "out.xml")
    (values,) = cases.values()
    assert values == {"phase_pair": "a-b", "phase_question": "inter", "phase_verdict": "reproduces"}


def test_unknown_numbers_are_omitted_and_repeated_verdicts_listed_once() -> None:
    unknown = math.nan, (math.nan, math.nan), 1.0
    shift = BoundaryShift(BoundaryKind.HALF_HEIGHT, 1, Verdict.INCONCLUSIVE, math.nan, math.nan, *unknown, None)
    part = Evidence("half-height 1", "", "inconclusive", *unknown, 64, shift)
    line = Result(Pair("a", "b"), "regression", "boundaries", "inconclusive", (part,))
    assert properties([line, line]) == [
        ("phase_pair", "a-b"),
        ("phase_question", "boundaries"),
        ("phase_verdict", "inconclusive"),
        ("phase_measure", "half-height 1"),
        ("phase_margin", 1.0),
        ("phase_n", 64),
    ]
    assert properties([]) == []


def test_a_timing_ratio_has_numbers_but_no_verdict() -> None:
    values = dict(properties([timing_result(Pair("a", "b"), TimingRatio(1.5, (1.4, 1.6), 0.99, 31))]))
    assert (values["phase_effect"], values["phase_interval"], values["phase_n"]) == (
        1.5,
        "1.4 to 1.6",
        31,
    )
    assert not {"phase_verdict", "phase_margin"} & set(values)
