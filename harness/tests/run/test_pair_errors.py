"""A failing pair shows one error; its other tests are skipped and name the test with the error."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.data.datasets import DATASETS
from harness.data.sample import DataError, Dataset, Sample
from harness.measurement.ranks import Processes
from harness.models.vlm import Vlm
from harness.profile.pair import Pair
from harness.run.pair_errors import PairErrors
from harness.tests.support.case_runs import Cases
from harness.tests.support.tiny import tiny_samples

FIRST = "cases/test_alignment.py::test_alignment[[]tiny-llava-tiny]"


class Unchecked:
    """A plugin whose model gives NaN."""

    def pytest_phase_model_loaded(self, vlm: Vlm) -> None:
        vlm.anatomy.layers[0].register_forward_pre_hook(lambda _, inputs: (inputs[0] * float("nan"), *inputs[1:]))


class Unloadable:
    """A plugin that raises an error when a model is loaded."""

    def pytest_phase_model_loaded(self, vlm: Vlm) -> None:
        raise ZeroDivisionError("nobody thought of it")


def run_all(cases: Cases, *arguments: str, plugins: tuple[object, ...] = ()) -> pytest.RunResult:
    result = cases.run("--phase-controls", "none", "-rs", *arguments, plugins=plugins)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    return result


def test_a_failed_self_check_is_one_error(cases: Cases, tmp_path: Path) -> None:
    xml = tmp_path / "out.xml"
    result = run_all(cases, "--junit-xml", str(xml), plugins=(Unchecked(),))
    assert result.parseoutcomes() == {"errors": 1, "skipped": 20, "deselected": 5}
    shown = [line for line in result.outlines if line.startswith("LlavaForConditionalGeneration: ")]
    assert len(shown) == 1, shown
    assert "the hidden states overflow or hold NaN" in shown[0]
    result.stdout.fnmatch_lines([f"SKIPPED * tiny-llava-tiny: it cannot be measured, see the error of {FIRST}"])
    suite = ElementTree.parse(xml).getroot().find("testsuite")  # noqa: S314
    assert suite is not None
    assert (suite.attrib["errors"], suite.attrib["failures"]) == ("1", "0")


def test_a_model_that_cannot_be_loaded_is_one_error_for_all_its_pairs(
    cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, "tiny-too", Dataset("tiny-too", "tiny", lambda n, *_: tiny_samples(n)))
    result = run_all(cases, "--phase-dataset", "tiny-too", plugins=(Unloadable(),))
    assert result.parseoutcomes() == {"errors": 1, "skipped": 2 * 21 - 4 - 1, "deselected": 4 + 2 * 5}
    for dataset in ("tiny", "tiny-too"):
        line = f"SKIPPED * tiny-llava-{dataset}: its model cannot be loaded, see the error of {FIRST}"
        result.stdout.fnmatch_lines([line])


@pytest.mark.slow
def test_an_error_of_one_dataset_does_not_affect_others(cases: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(n: int, *_: object) -> list[Sample]:
        raise DataError("the annotations are torn: fetch them again")

    monkeypatch.setitem(DATASETS, "torn", Dataset("torn", "torn", torn))
    result = run_all(cases, "--phase-dataset", "torn", "-m", "regression")
    # An error for the data, and another for the missing baseline of the other pair.
    assert result.parseoutcomes() == {"errors": 2, "skipped": 22, "deselected": result.parseoutcomes()["deselected"]}
    assert result.stdout.str().count("the annotations are torn: fetch them again") <= 2


def test_a_test_that_is_run_again_shows_its_error_again() -> None:
    errors, pair = PairErrors(Processes()), Pair("tiny", "data")
    errors.running = "a::first"
    errors.add(pair, "profile", of_model=False)
    assert errors.earlier(pair, ("profile",)) == ""
    errors.running = "a::second"
    assert errors.earlier(pair, ("profile",)) == "tiny-data: it cannot be measured, see the error of a::first"
    assert errors.earlier(pair, ("vlm", "judge")) == ""
    assert errors.earlier(Pair("tiny", "other"), ("profile",)) == ""


def test_with_several_processes_no_test_is_skipped_that_another_runs() -> None:
    errors, pair = PairErrors(Processes(0, 2)), Pair("tiny", "data")
    errors.running = "a::first"
    errors.add(pair, "vlm", of_model=True)
    errors.running = "a::second"
    assert errors.earlier(pair, ("vlm", "profile")) == ""
    errors.add(pair, "profile", of_model=True)
    errors.running = "a::third"
    assert errors.earlier(pair, ("vlm",)) == ""
    assert errors.earlier(pair, ("vlm", "profile")).endswith("see the error of a::second")
