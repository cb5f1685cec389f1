"""`pytest cases/` without assertions (python -O), and without plugin autoload."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.tests.support.case_runs import ROOT

TINY = ("-p", "harness.tests.support.tiny_pairs", "--phase-model", "tiny-llava", "--phase-dataset", "tiny")


def run(*arguments: str, optimised: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *([optimised] if optimised else []), "-m", "pytest", "cases/", "-p", "no:cacheprovider"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run([*command, *arguments], env=inherited | environment, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [(), ("--disable-plugin-autoload",), ("-p", "pytest_benchmark.plugin", "--disable-plugin-autoload")]
)
def test_pytest_benchmark_is_loaded_without_plugin_autoload(arguments: tuple[str, ...]) -> None:
    switched_off = {} if arguments else {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    result = run("--co", "-q", "-m", "timing and bundled", *arguments, **switched_off)
    assert result.returncode == pytest.ExitCode.OK, result.stdout + result.stderr
    assert "cases/test_timing.py::test_plain[scenes-llava-scenes]" in result.stdout


@pytest.mark.slow
def test_stripped_docstrings_are_refused_at_collection() -> None:
    result = run("-k", "test_plain", "--phase-model", "scenes-llava", optimised="-OO")
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: Python strips docstrings here (-OO or PYTHONOPTIMIZE=2)" in result.stderr


# Slow, because Python compiles its libraries again for -O.
@pytest.mark.slow
def test_a_failing_claim_fails_without_assertions(tmp_path: Path) -> None:
    directories = ("--phase-baselines", str(tmp_path / "stored"), "--phase-cache", str(tmp_path / "kept"))
    case = ("-k", "test_four_phases or test_plain", "--phase-samples", "32", "--phase-controls", "none")
    strict = ("-v", "--phase-strict-claims")
    result = run(*TINY, *case, *strict, *directories, optimised="-O", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert result.returncode == pytest.ExitCode.TESTS_FAILED, result.stdout + result.stderr
    assert "four-phases of tiny-llava on tiny: FAILS" in result.stdout
    assert "1 failed, 1 passed" in result.stdout
