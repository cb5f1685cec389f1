"""Several processes: scripts, checkouts without baselines, different data, and two launchers at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.measurement.ranks import Processes
from harness.plugin.fixtures import SESSION
from harness.plugin.torchrun import prepare_processes
from harness.tests.support.case_runs import ROOT, Cases
from harness.tests.support.process_runs import free_port, run_ranks

# Prints the profile's number of samples and a hash of all its arrays, or the error.
PROGRAM = """if True:
    import hashlib, sys
    import harness
    from harness.errors import PhaseError
    from harness.tests.support import tiny_pairs
    size, seed = map(int, sys.argv[1:])
    try:
        profile = harness.measure("tiny-llava", "tiny", samples=16 + seed, controls=(), batch_size=size)
    except PhaseError as error:
        print(error)
    else:
        arrays = b"".join(profile.arrays[name].tobytes() for name in sorted(profile.arrays))
        print(profile.n, hashlib.sha256(arrays).hexdigest())
"""


def run_script(*arguments: tuple[int, int]) -> list[str]:
    """Return the output of the script in each of several processes, or in a single one."""
    port, count = free_port(), len(arguments)
    started = []
    for rank, numbers in enumerate(arguments):
        launched = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", PROGRAM, *map(str, numbers)]
        environment = os.environ | launched | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        started.append(subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate(timeout=200)[0] for process in started]
    assert [process.returncode for process in started] == [0] * count
    return [output.strip() for output in outputs]


def test_xdist_workers_and_torchrun_processes_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.plugin.torchrun.processes", lambda: Processes(0, 2))
    config: Any = SimpleNamespace(option=SimpleNamespace(numprocesses=2))
    with pytest.raises(pytest.UsageError, match="use one of them, torchrun or -n"):
        prepare_processes(config)


class SecondProcess:
    """A plugin that makes the session that of the second process."""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        session.config.stash[SESSION].processes = Processes(1, 1)


def test_only_the_first_process_measures_time(recorded: Cases) -> None:
    result = recorded.run("-m", "timing", "-rs", plugins=(SecondProcess(),))
    assert result.parseoutcomes().keys() <= {"skipped", "deselected"}
    assert "only the first process measures times" in result.stdout.str()


@pytest.mark.slow
def test_a_script_returns_the_complete_profile_in_every_process() -> None:
    (output_alone,) = run_script((4, 0))
    assert output_alone.startswith("16 ")
    assert run_script((4, 0), (4, 0)) == [output_alone, output_alone]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "sentence"), [((2, 0), "batch size 2, process 0 with 4"), ((4, 1), "samples 17, process 0 with 16")]
)
def test_scripts_with_different_settings_fail_with_the_setting(other: tuple[int, int], sentence: str) -> None:
    expected = f"process 1 began with {sentence}: start all processes with the same"
    assert run_script((4, 0), other) == [expected, expected]


@pytest.mark.slow
def test_only_the_first_process_needs_the_baselines(tmp_path: Path) -> None:
    """A known difference is an expected failure in all processes."""
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    known = '[tiny-llava-tiny]\noutput-preparation = "similarity rises in the end"\n'
    (tmp_path / "here" / "known_differences.toml").write_text(known, encoding="utf-8")
    arguments = [
        ("-k", "output_preparation", "--phase-baselines", str(tmp_path / name)) for name in ("here", "elsewhere")
    ]
    both = run_ranks(tmp_path, *arguments)
    assert [process.wait(200) for process in both] == [pytest.ExitCode.OK] * 2
    output = (tmp_path / "0.txt").read_text()
    assert "1 xfailed" in output
    assert "in process 1 only" not in output
