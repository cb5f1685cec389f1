"""`python -m harness.releases`: steps between releases, exit statuses, record and page, with faked workers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.releases.__main__ import main
from harness.releases.commands import CommandResult
from harness.releases.diff import release_steps
from harness.releases.diff.type_report import LOADED, MADE, TypeReport, save_arrays, save_report
from harness.releases.diff.worker import Workplace
from harness.storage.cache_directory import CACHE_VARIABLE

TYPES = ("calm", "restless")


def readings(shift: float) -> dict[str, Any]:
    states = np.ones((3, 2, 4, 8))
    states[1:] += shift
    return {
        "base/states": states,
        "base/image": np.zeros((2, 4), dtype=bool),
        "base/similarity": np.full((2, 3, 5), shift),
        "base/logits": np.ones((2, 9)),
    }


@dataclass
class FakeWorkers:
    """Workers of releases with two types; `shifts` moves the states of the type `restless`, by release in turn.

    The type `crashing` ends its process with a signal in every release that loads it, and is unknown otherwise.
    """

    shifts: Sequence[float] = (0.0, 0.0)
    crashing: str = ""
    types: Sequence[str] = TYPES
    problem: str = ""
    commands: list[list[str]] = field(default_factory=list)

    def __call__(
        self, command: Sequence[str], directory: Path, log: Path, variables: Mapping[str, str] | None = None
    ) -> CommandResult:
        self.commands.append(list(command))
        if "harness.releases.diff.worker" not in command:
            return CommandResult(0, "5.24.0 2.15.0\n")
        if self.problem:
            return CommandResult(1, self.problem)
        workplace = Workplace(Path(command[3]))
        workplace.known.write_text("\n".join(self.types))
        if "--saved" in command:
            for name in self.types:
                workplace.current(0).write_text(str(workplace.loaded / name))
                if name == self.crashing and not (workplace.loaded / name).exists():
                    return CommandResult(-11, "it crashed")
                if name != self.crashing:
                    self._store(workplace.loaded / name, name, int(workplace.root.name), LOADED)
        if "--make" in command:
            for name in self.types:
                self._store(workplace.made / name, name, int(workplace.root.name), MADE, LOADED)
        return CommandResult(0, "")

    def _store(self, directory: Path, name: str, release: int, *kinds: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for kind in kinds:
            save_arrays(directory, kind, readings(self.shifts[release] if name == TYPES[1] else 0.0))
        save_report(directory, TypeReport(name))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(release_steps, "PROCESSES", 1)


def record(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_nothing_moved_is_status_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "out.json"
    assert main(["installed", "installed", "--json", str(file)], FakeWorkers()) == 0
    (step,) = record(file)["steps"]
    assert (step["from"], step["to"]) == ("installed", "installed")
    assert {name: entry["verdict"] for name, entry in step["types"].items()} == dict.fromkeys(TYPES, "same")
    assert "2 same" in capsys.readouterr().out


def test_a_move_is_status_1_and_named_with_its_point(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, page = tmp_path / "out.json", tmp_path / "page.md"
    arguments = ["installed", "installed", "--json", str(file), "--write", str(page)]
    assert main(arguments, FakeWorkers((0.0, 0.25))) == 1
    entry = record(file)["steps"][0]["types"]["restless"]
    assert entry["verdict"] == "moved"
    assert entry["first_point"] == 1
    assert entry["largest"] == pytest.approx(0.25)
    assert entry["quantity"] == "states"
    printed = capsys.readouterr().out
    assert "restless  moved" in printed
    assert "calm" not in printed
    text = page.read_text()
    assert "moved 0.25 from 1" in text
    assert "Same in every step that has them: `calm`." in text
    assert main([*arguments, "--warn-only"], FakeWorkers((0.0, 0.25))) == 0


def test_a_type_that_comes_back_is_reported_so(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    assert main(["installed"] * 3 + ["--json", str(file)], FakeWorkers((0.0, 0.25, 0.0))) == 1
    steps = record(file)["steps"]
    assert [step["types"]["restless"]["verdict"] for step in steps] == ["moved", "moved"]
    assert steps[1]["types"]["restless"]["remarks"] == ["as in installed (5.24.0) again"]


def test_a_crash_is_the_failure_of_one_type_and_the_others_are_measured(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    assert main(["installed", "installed", "--json", str(file)], FakeWorkers(crashing="calm")) == 1
    types = record(file)["steps"][0]["types"]
    assert types["calm"]["verdict"] == "failed"
    assert "exit status -11: it crashed" in types["calm"]["remarks"][0]
    assert types["restless"]["verdict"] == "same"


def test_only_the_named_types_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, runner = tmp_path / "out.json", FakeWorkers()
    assert main(["installed", "installed", "--types", "calm", "--types", "restless", "--json", str(file)], runner) == 0
    worker = next(command for command in runner.commands if "--make" in command)
    assert worker[worker.index("--types") + 1 :][:2] == ["calm", "restless"]
    assert main(["installed", "installed", "--types", "unknown"], FakeWorkers()) == 2
    assert "neither release has a vision-language type 'unknown'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["installed"], "give two releases or more"),
        (["installed", "5"], "is no release of transformers"),
        (["installed", "nowhere/at/all"], "is no release of transformers"),
        (["--torch", "x", "2.15.0"], "is no release number of torch"),
    ],
)
def test_misuse_is_status_2_with_a_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(arguments, FakeWorkers())
    except SystemExit as error:
        status = int(str(error.code))
    assert status == 2
    assert message in capsys.readouterr().err


def test_a_worker_that_fails_before_its_first_type_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["installed", "installed"], FakeWorkers(problem="ImportError: no such name")) == 2
    assert "ImportError: no such name" in capsys.readouterr().err


@pytest.mark.types
def test_the_installed_release_is_the_same_as_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real workers, three repetitions."""
    monkeypatch.undo()
    file = tmp_path / "out.json"
    assert main(["installed"] * 4 + ["--types", "llava", "qwen2_5_vl", "mllama", "--json", str(file)]) == 0
    verdicts = [{name: entry["verdict"] for name, entry in step["types"].items()} for step in record(file)["steps"]]
    assert verdicts == [{"llava": "same", "mllama": "refused", "qwen2_5_vl": "same"}] * 3
