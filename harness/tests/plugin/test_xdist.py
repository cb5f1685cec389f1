"""pytest-xdist loads each model in one worker, and the outputs equal those of a run without workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.plugin.xdist import model_of
from harness.profile.pair import Pair
from harness.tests.support.process_runs import PYTHON, read_files, run_cases

PAIRS = (
    Pair("tiny", "scenes"),
    Pair("tiny", "scenes-order"),
    Pair("tiny-scenes", "scenes"),
    Pair("m.7b", "coco"),
    Pair("\u6a21", "coco"),
)


@pytest.mark.parametrize(
    ("test", "model"),
    [
        ("test_a.py::test_x[tiny-scenes]", "tiny"),
        ("test_a.py::test_x[tiny-scenes-order]", "tiny"),
        ("test_a.py::test_x[tiny-scenes-scenes]", "tiny-scenes"),
        ("test_a.py::test_x[4-tiny-scenes-bf16]", "tiny"),
        ("test_a.py::TestIt::test_x[m.7b-coco-[odd]]", "m.7b"),
        ("test_a.py::test_x[4-\\u6a21-coco]", "\u6a21"),
        ("test_a.py::test_x[mm7b-coco]", ""),
        ("test_a.py::test_x[atiny-scenes]", ""),
        ("test_a.py::test_tiny-scenes", ""),
    ],
)
def test_a_case_belongs_to_the_model_of_its_pair(test: str, model: str) -> None:
    assert model_of(test, PAIRS) == model


@pytest.mark.slow
def test_workers_write_the_same_files_and_output_as_one_process(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    workers = ("-n", "2", "--dist", "loadfile", "-m", "regression or timing", "-rs")
    assert run_cases(tmp_path, "one", PYTHON, "--phase-update-new").returncode == 0
    loads = tmp_path / "loads"
    done = run_cases(tmp_path, "two", PYTHON, "--phase-update-new", *workers, TINY_LOADS=str(loads))
    output = done.stdout
    assert done.returncode == 0, output
    assert (tmp_path / "two.json").read_bytes() == (tmp_path / "one.json").read_bytes()
    assert read_files(tmp_path / "two") == read_files(tmp_path / "one")
    assert output.count("phase: harness") == output.count("= phase diagram =") == 1
    assert "baselines: 0 matched, 0 changed, 2 new, 0 unused" in output
    assert "times are measured only without other workers: run again with -m timing -n 0" in output
    assert sorted(loads.read_text().split()) == ["tiny-llava", "tiny-other"]


@pytest.mark.slow
def test_inconclusive_runs_and_usage_errors_fail_with_workers(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    run_cases(tmp_path, "inconclusive", PYTHON, "--phase-update-new")
    few = ("--phase-dtype", "bf16", "--phase-samples", "8")
    inconclusive = run_cases(tmp_path, "inconclusive", PYTHON, *few, "-n", "2", "-k", "inter")
    output = " ".join(inconclusive.stdout.split())
    assert (inconclusive.returncode, output.count("the suite is inconclusive")) == (pytest.ExitCode.TESTS_FAILED, 1)
    misused = run_cases(tmp_path, "inconclusive", PYTHON, "--phase-model", "llava-1.5-7b", "-n", "2")
    assert misused.returncode == pytest.ExitCode.USAGE_ERROR
    assert "llava-1.5-7b-tiny was requested and cannot be measured here" in misused.stderr
