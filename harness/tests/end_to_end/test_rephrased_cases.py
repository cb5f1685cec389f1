"""Complete runs with --phase-rephrase on tiny pairs: output, unchanged verdicts, errors and other processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.data.datasets import DATASETS
from harness.data.sample import DataError, Dataset, Sample
from harness.tests.support.case_runs import Cases
from harness.tests.support.process_runs import PYTHON, TORCHRUN, read_files, run_cases
from harness.tests.support.rephrased import ORIGINAL, SAME, SECOND, draw_same

SAME_PAIR = ("--phase-model", "tiny-llava", "--phase-dataset", SAME.name)
REPHRASE = ("--phase-rephrase", "--phase-controls", "none", "--phase-json", "run.json")


@pytest.fixture(autouse=True)
def same_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, SAME.name, SAME)


def record_of(cases: Cases) -> Any:
    return json.loads((cases.baselines.parent / "run.json").read_text(encoding="utf-8"))


def test_a_run_reports_the_second_instruction(cases: Cases) -> None:
    result = cases.run(*REPHRASE, "-m", "replication", "--phase-markdown", "run.md", pair=SAME_PAIR)
    assert result.ret == pytest.ExitCode.OK, result.stdout.str()
    output = " ".join(result.stdout.str().split())
    assert f"rephrased as '{SECOND}': boundaries " in output
    assert " of 5 unchanged" in output
    assert f"`tiny-llava-tiny-same` rephrased as '{SECOND}'" in (cases.baselines.parent / "run.md").read_text()
    entry = record_of(cases)["pairs"]["tiny-llava-tiny-same"]
    assert (entry["declared"]["instruction"], entry["rephrased"]["instruction"]) == (ORIGINAL, SECOND)
    assert {name: claim["original"] for name, claim in entry["rephrased"]["claims"].items()} == {
        name: claim["verdict"] for name, claim in entry["phases"]["claims"].items()
    }


def test_named_pairs_without_second_instruction_have_a_line(cases: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "mine", Dataset("mine", "mine", draw_same))
    pair = ("--phase-model", "tiny-llava", "--phase-dataset", "tiny", "--phase-dataset", "mine")
    result = cases.run(*REPHRASE, "-k", "alignment", "--phase-samples", "8", pair=pair)
    assert result.ret == pytest.ExitCode.OK, result.stdout.str()
    output = " ".join(result.stdout.str().split())
    assert "not rephrased: each sample of tiny has an instruction of its own" in output
    assert "not rephrased: mine declares no second instruction: set `rephrasing` of its Dataset" in output


@pytest.mark.slow
def test_it_changes_no_verdict_and_no_baseline(cases: Cases) -> None:
    selected = ("-m", "not timing", "--phase-json", "run.json", "--phase-controls", "none")
    assert cases.run(*selected, "--phase-update-new", pair=SAME_PAIR).ret == pytest.ExitCode.OK
    files = cases.files()
    plain = cases.run(*selected, pair=SAME_PAIR)
    expected = record_of(cases)
    rephrased = cases.run(*selected, "--phase-rephrase", "--phase-update", pair=SAME_PAIR)
    content = record_of(cases)
    assert content["pairs"]["tiny-llava-tiny-same"].pop("rephrased")["boundaries"]["verdict"]
    assert content == expected
    assert rephrased.parseoutcomes() == plain.parseoutcomes()
    assert cases.files() == files


@pytest.mark.slow
def test_an_error_of_the_second_measurement_fails_no_test(cases: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = []

    def torn(n: int, *_: object) -> Sequence[Sample]:
        draws.append(n)
        if len(draws) > 1:
            raise DataError("the annotations are torn: fetch them again")
        return draw_same(n)

    monkeypatch.setitem(DATASETS, "torn", Dataset("torn", "torn", torn, rephrasing=SECOND))
    pair = ("--phase-model", "tiny-llava", "--phase-dataset", "torn")
    result = cases.run(*REPHRASE, "-m", "replication", pair=pair)
    assert result.ret == pytest.ExitCode.OK, result.stdout.str()
    assert "  not rephrased: the annotations are torn: fetch them again" in result.outlines
    assert len(draws) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "workers"), [(PYTHON, ("-n", "2")), (TORCHRUN, ())], ids=["xdist", "torchrun"])
def test_several_processes_report_the_same(tmp_path: Path, launcher: tuple[str, ...], workers: tuple[str, ...]) -> None:
    if workers:
        pytest.importorskip("xdist")
    options = ("--phase-dataset", SAME.name, "--phase-rephrase", "--phase-update-new")
    alone = run_cases(tmp_path, "alone", PYTHON, *options)
    assert alone.returncode == 0, alone.stdout
    several = run_cases(tmp_path, "several", launcher, *options, *workers)
    assert several.returncode == 0, several.stdout
    assert (tmp_path / "several.json").read_bytes() == (tmp_path / "alone.json").read_bytes()
    assert read_files(tmp_path / "several") == read_files(tmp_path / "alone")
    for output in (alone.stdout, several.stdout):
        assert output.count(f"rephrased as '{SECOND}': boundaries ") == 2
        assert output.count("not rephrased: each sample of tiny has an instruction of its own") == 2
