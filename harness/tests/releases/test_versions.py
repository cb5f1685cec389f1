"""The version matrix with faked commands: no environment is created and nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.releases.environments import CommandResult
from harness.releases.versions.__main__ import main
from harness.releases.versions.cell_outcome import (
    CHECKOUT,
    TORCH,
    TRANSFORMERS,
    CellOutcome,
    ReleaseCell,
    bundled_pairs,
    cells_of,
    load_outcome,
    read_pairs,
    save_outcome,
)
from harness.releases.versions.versions_page import findings, matrix_table, pairs_table, supported_ranges, versions_page
from harness.storage.cache_directory import CACHE_VARIABLE

OLD, NEW = ReleaseCell("5.0.0", "2.15.0"), ReleaseCell("5.23.0", "2.15.0")
CONFLICT = "ERROR: Cannot install transformers==5.0.0: no such thing\nERROR: ResolutionImpossible\nfor help see there"
TYPES = {
    "llava": {"verdict": "measured", "remark": ""},
    "git": {"verdict": "refused", "remark": "it has no AttentionInterface"},
}


def record(verdict: str = "reproduces", largest_difference: float = 2e-7, pairs: Sequence[str] = ()) -> dict[str, Any]:
    """Return the parts of a run's JSON record that the matrix reads."""
    numbers = {"inter": {"verdict": verdict, "largest": largest_difference}, "n": 128}
    names = pairs or bundled_pairs()
    return {
        "pairs": {pair: {"environment": {"device": "cpu", "device_name": "a processor"}} for pair in names},
        "verdicts": [
            line
            for pair in names
            for line in (
                {"pair": pair, "question": "inter", "verdict": verdict, "numbers": numbers},
                {"pair": pair, "question": "boundaries", "verdict": "reproduces", "numbers": {}},
            )
        ],
    }


@dataclass
class FakeRunner:
    """A fake command runner in whose environment every command works, except those in `failures`."""

    failures: Mapping[str, CommandResult] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=record)
    types: Mapping[str, Any] = field(default_factory=lambda: TYPES)
    imported: str = ""
    commands: list[list[str]] = field(default_factory=list)

    def __call__(
        self, command: Sequence[str], directory: Path, log: Path, variables: Mapping[str, str] | None = None
    ) -> CommandResult:
        self.commands.append(list(command))
        text = " ".join(command)
        for words, result in self.failures.items():
            if words in text:
                return result
        if "venv" in command:
            Path(command[-1]).mkdir(parents=True, exist_ok=True)
        if "pip" in command:
            numbers = dict(word.split("==") for word in command if "==" in word)
            home = Path(command[command.index("--python") + 1]).parents[1]
            (home / "holds").write_text(f"{numbers['transformers']} {numbers['torch']}")
        if "-c" in command:
            holds = (Path(command[0]).parents[1] / "holds").read_text()
            return CommandResult(0, f"some warning\n{self.imported or holds}\n")
        if "--json" in command:
            Path(command[-1]).write_text(json.dumps({"types": self.types}))
        if "--phase-json" in command:
            Path(command[-1]).write_text(json.dumps(self.record))
        return CommandResult(0, "abc1234\n")

    def ran(self, word: str) -> int:
        return sum(word in command for command in self.commands)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "versions"


def make_outcome(cell: ReleaseCell, **changes: Any) -> CellOutcome:
    plain: dict[str, Any] = {
        "date": "2026-01-02",
        "commit": "abc1234",
        "python": "3.11.7",
        "device": "a processor (cpu)",
        "types": TYPES,
        "pairs": read_pairs(record(), bundled_pairs()),
        "seconds": {"install": 60.0, "sweep": 300.0, "pairs": 100.0},
    }
    return CellOutcome(cell=cell, **plain | changes)


def test_default_cells_are_all_releases_and_the_newest_with_the_older_torch() -> None:
    cells = cells_of()
    assert [cell.transformers for cell in cells] == [*TRANSFORMERS, TRANSFORMERS[-1]]
    assert [cell.torch for cell in cells] == [TORCH[0]] * len(TRANSFORMERS) + [TORCH[1]]
    assert cells_of(["5.1.0"]) == [ReleaseCell("5.1.0", TORCH[0])]
    assert cells_of((), ["2.6.0"]) == [ReleaseCell(TRANSFORMERS[-1], "2.6.0")]
    assert len(cells_of(["5.1.0", "5.2.0", "5.1.0"], ["2.6.0", "2.7.0"])) == 4


def test_a_cell_is_installed_measured_and_stored(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    runner = FakeRunner()
    arguments = ["--transformers", "5.0.0", "--torch", "2.15.0", "--json", str(tmp_path / "all.json")]
    assert main(arguments, runner) == 0
    pip = next(command for command in runner.commands if "pip" in command)
    assert {"transformers==5.0.0", "torch==2.15.0"} <= set(pip)
    python = pip[pip.index("--python") + 1]
    assert [python, "-m", "harness.releases.sweep", "--json"] in [command[:4] for command in runner.commands]
    printed = capsys.readouterr().out
    assert "reproduces" in printed
    assert f"All {len(bundled_pairs())} bundled pairs reproduce sample by sample in the one cell" in printed
    stored = json.loads((tmp_path / "all.json").read_text())["cells"]
    assert stored[0]["cell"] == {"transformers": "5.0.0", "torch": "2.15.0"}
    assert stored[0]["commit"] == "abc1234"

    second = FakeRunner()
    assert main(arguments, second) == 0
    assert second.commands == []
    assert main([*arguments, "--anew", "--only", "sweep"], second) == 0
    assert (second.ran("harness.releases.sweep"), second.ran("pytest")) == (1, 0)
    assert load_outcome(results / f"{OLD.name}.json").pairs is not None


def test_a_missing_part_runs_the_next_time(results: Path) -> None:
    runner = FakeRunner()
    arguments = ["--transformers", "5.0.0", "--torch", "2.15.0"]
    assert main([*arguments, "--only", "sweep"], runner) == 0
    assert (runner.ran("harness.releases.sweep"), runner.ran("pytest")) == (1, 0)
    assert main(arguments, runner) == 0
    assert (runner.ran("harness.releases.sweep"), runner.ran("pytest")) == (1, 1)


def test_a_cell_that_runs_anew_keeps_its_environment(results: Path) -> None:
    runner = FakeRunner()
    arguments = ["--transformers", "5.0.0", "--anew"]
    assert main(arguments, runner) == 0
    assert main(arguments, runner) == 0
    assert (runner.ran("venv"), runner.ran("harness.releases.sweep")) == (1, 2)


@pytest.mark.parametrize(
    ("failures", "imported", "reason"),
    [
        (
            {" pip ": CommandResult(1, CONFLICT)},
            "",
            f"{OLD} cannot be installed: Cannot install transformers==5.0.0: no such thing",
        ),
        (
            {" -c ": CommandResult(1, "Traceback\nImportError: no name x")},
            "",
            f"{OLD} cannot be imported: ImportError: no name x",
        ),
        ({}, "5.0.1 2.15.0", f"{OLD} cannot be installed: the environment holds '5.0.1 2.15.0'"),
    ],
)
def test_a_cell_without_an_environment_has_a_row_with_the_reason(
    failures: Mapping[str, CommandResult],
    imported: str,
    reason: str,
    results: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    runner = FakeRunner(failures=failures, imported=imported)
    assert main(["--transformers", "5.0.0"], runner) == 1
    printed = capsys.readouterr().out
    assert f"no: {reason}" in printed
    assert "Traceback" not in printed
    assert (runner.ran("harness.releases.sweep"), runner.ran("pytest")) == (0, 0)
    # The next run tries again, for example after a network failure.
    assert main(["--transformers", "5.0.0"], FakeRunner()) == 0


def test_a_part_without_a_file_is_reported_and_the_other_runs(results: Path, capsys: pytest.CaptureFixture) -> None:
    runner = FakeRunner(
        failures={"harness.releases.sweep": CommandResult(2, "first\nModuleNotFoundError: No module named 'x'\n")}
    )
    assert main(["--transformers", "5.0.0"], runner) == 1
    printed = capsys.readouterr().out
    assert "sweep gave no result (exit status 2: ModuleNotFoundError: No module named 'x')" in printed
    assert "reproduces" in printed
    assert load_outcome(results / f"{OLD.name}.json").types is None


def test_a_pair_that_could_not_be_judged_is_reported_and_rerun(results: Path, capsys: pytest.CaptureFixture) -> None:
    first = bundled_pairs()[0]
    assert main(["--transformers", "5.0.0"], FakeRunner(record=record(pairs=[first]))) == 1
    assert f"{bundled_pairs()[1]} could not be judged; see the cell's log." in capsys.readouterr().out
    second = FakeRunner()
    assert main(["--transformers", "5.0.0"], second) == 0
    assert (second.ran("harness.releases.sweep"), second.ran("pytest")) == (0, 1)


def test_invalid_arguments_or_files_are_reported(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["--transformers", "git+ssh://elsewhere"], FakeRunner())
    assert "is no version number" in capsys.readouterr().err
    results.mkdir(parents=True)
    (results / f"{OLD.name}.json").write_text("{")
    assert main(["--transformers", "5.0.0"], FakeRunner()) == 2
    assert "delete it or run with --anew" in capsys.readouterr().err
    assert main(["--transformers", "5.0.0", "--anew"], FakeRunner()) == 0


def test_a_saved_outcome_is_read_unchanged(tmp_path: Path) -> None:
    outcome = make_outcome(OLD, problems={"sweep": "none"})
    save_outcome(tmp_path / "it.json", outcome)
    assert load_outcome(tmp_path / "it.json") == outcome
    assert load_outcome(tmp_path / "other.json") is None


def test_a_pair_has_its_worst_verdict_or_error_without_verdicts() -> None:
    content = record("equivalent", 0.0031, ["scenes-llava-scenes"])
    outcome = make_outcome(OLD, pairs=read_pairs(content, ["scenes-llava-scenes", "scenes-llava-scenes-order"]))
    assert outcome.worst_verdict("scenes-llava-scenes") == "equivalent"
    assert outcome.worst_verdict("scenes-llava-scenes-order") == "error"
    assert outcome.largest_difference("inter") == 0.0031
    assert outcome.largest_difference("recall_5") is None
    assert not outcome.passed
    assert make_outcome(OLD).passed
    assert not make_outcome(OLD, types={"llava": {"verdict": "failed", "remark": "IndexError"}}).passed


def test_the_tables_have_a_row_per_cell_and_per_pair() -> None:
    problem = f"{OLD} cannot be installed: no such release"
    gone = CellOutcome(OLD, "2026-01-02", "abc1234", "3.11.7", "", problem=problem)
    lines = matrix_table([gone, make_outcome(NEW)]).splitlines()
    assert f"no: {problem}" in lines[2]
    assert findings([gone]) == [f"{problem}."]
    assert lines[3].split()[:6] == ["5.23.0", "2.15.0", "yes", "1", "1", "0"]
    assert lines[3].split()[-2:] == ["2.0e-07", "460"]
    detail = pairs_table([gone, make_outcome(NEW)]).splitlines()
    assert len(detail) == 2 + len(bundled_pairs())
    assert "nothing" in detail[2]


def test_findings_list_differences_between_cells() -> None:
    changed = {"llava": {"verdict": "failed", "remark": "IndexError: list index out of range"}}
    changed_pairs = read_pairs(record("equivalent", 0.0031, ["scenes-llava-scenes"]), ["scenes-llava-scenes"])
    sentences = findings([make_outcome(OLD, types=changed, pairs=changed_pairs), make_outcome(NEW)])
    assert sentences == [
        f"{OLD}: scenes-llava-scenes does not reproduce (inter equivalent; the most distant sample is off by 0.0031 in "
        "inter-modal similarity).",
        "1 of 2 types have one verdict in every cell that ships them.",
        f"`llava`: failed with {OLD} (IndexError: list index out of range), measured with {NEW}.",
        "Not shipped with transformers 5.0.0: `git`.",
    ]


def test_the_page_has_range_matrix_findings_and_command(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "versions.md"
    arguments = ["--transformers", "5.0.0", "--transformers", "5.23.0", "--write", str(page)]
    assert main(arguments, FakeRunner()) == 0
    written = page.read_text()
    assert f"    python -m harness.releases.versions {' '.join(arguments)}\n" in written
    assert "| 5.0.0 " in written
    assert "| 5.23.0 " in written
    assert "in all 2 cells; the largest difference of any sample in inter-modal similarity is 2e-07" in written
    assert "a processor (cpu), Python 3." in written
    assert "transformers>=" in ", ".join(supported_ranges(CHECKOUT))
    assert all(f"`{word}`" not in written for word in ("None", "nan"))
    assert versions_page([make_outcome(OLD)], "x", CHECKOUT).count("\n## ") == 5
