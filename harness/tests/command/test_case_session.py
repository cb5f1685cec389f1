"""Runs of the cases by the command on a tiny pair."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.command.main import main
from harness.tests.support.case_runs import ROOT, Cases

TINY = ("tiny-llava", "--dataset", "tiny", "--samples", "64", "-p", "no:randomly")


@pytest.fixture
def directories(recorded: Cases) -> tuple[str, ...]:
    """Return the options for the recorded baselines and readings."""
    return ("--baselines", str(recorded.baselines), "--cache", str(recorded.cache))


@pytest.mark.usefixtures("svg_only")
def test_measure_judges_the_pair_and_leaves_no_files(
    directories: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (empty := tmp_path / "empty").mkdir()
    monkeypatch.chdir(empty)
    assert main(["measure", *TINY, *directories, "-k", "inter_similarity", "--json", "run.json"]) == pytest.ExitCode.OK
    output = capfd.readouterr().out
    assert "tiny-llava-tiny" in output
    assert "2 passed" in output
    assert [path.name for path in empty.iterdir()] == ["run.json"]
    assert main(["report", "run.json"]) == pytest.ExitCode.OK
    assert capfd.readouterr().out == f"report {Path('run', 'index.html')}\n"
    assert "tiny-llava-tiny" in Path("run", "index.html").read_text(encoding="utf-8")


@pytest.mark.types
def test_a_failing_claim_has_the_exit_code_of_pytest(
    directories: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    line = ["measure", *TINY, *directories, "-m", "replication", "--strict-claims"]
    assert main(line) == pytest.ExitCode.TESTS_FAILED
    assert "failed" in capfd.readouterr().out
    assert main([*line[:-1], "-k", "nothing"]) == pytest.ExitCode.NO_TESTS_COLLECTED


def test_a_model_after_a_flag_of_pytest_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "-x", "scenes-llava"]) == pytest.ExitCode.USAGE_ERROR
    assert "'scenes-llava' stands after an option of pytest" in capfd.readouterr().err


def test_a_misspelt_option_is_answered_after_the_error_of_pytest(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "--datset", "scenes"]) == pytest.ExitCode.USAGE_ERROR
    assert capfd.readouterr().err.endswith("--datset: did you mean --dataset?\n")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--update --update-new", "--update and --update-new exclude each other: choose one"),
        ("--dataset tiny --report {file}", "--report: {file} is not writable"),
        ("--dataset tiny --cache {file}", "--cache: {file} is not writable"),
    ],
)
def test_refusals_name_the_options_of_the_command(
    line: str, sentence: str, cases: Cases, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (file := tmp_path / "file").touch()
    arguments = line.format(file=file).split()
    assert main(["measure", "tiny-llava", *arguments, "-k", "inter_similarity"]) == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: {sentence.format(file=file)}" in capfd.readouterr().err


@pytest.mark.types
def test_the_cache_of_pytest_is_used_on_request(
    directories: tuple[str, ...], pytester: pytest.Pytester, capfd: pytest.CaptureFixture[str]
) -> None:
    last = ("--lf", "-o", f"cache_dir={pytester.path / 'kept-results'}")
    assert main(["measure", *TINY, *directories, "-k", "inter_similarity", *last]) == pytest.ExitCode.OK
    assert (pytester.path / "kept-results").is_dir()


@pytest.mark.slow
def test_the_bundled_pair_is_measured_in_an_empty_directory(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness", "measure", "scenes-llava", "--dataset", "scenes", "--report", "out"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1200)
    assert process.returncode == 0, process.stdout
    assert "reproduces" in process.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "index.html").is_file()
