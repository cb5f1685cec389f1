"""Complete runs of `pytest cases/ --phase-report` on a tiny pair: the directory, its content, and errors."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

# Imported here, because pytester removes modules that its runs import first.
from harness.report import figure_files
from harness.report import write as report_folder
from harness.report.record import record_schema
from harness.tests.support.case_runs import PAIR, REGRESSION, Cases, FaultPlugin
from harness.tests.support.faults import swap_layers

QUICK = ("-m", "regression or replication", "--phase-controls", "none")


@pytest.fixture
def folder(recorded: Cases) -> Path:
    return recorded.baselines.parent / "report"


@pytest.mark.usefixtures("svg_only")
def test_a_run_writes_page_figures_and_record(recorded: Cases, folder: Path) -> None:
    chosen = ("--phase-draw", "tiny-5", "--phase-draw", "tiny-0")
    result = recorded.run(*QUICK, "--phase-report", "report", "--phase-json", "alone.json", *chosen)
    result.stdout.fnmatch_lines(["record *alone.json", "report *index.html"])
    page = (folder / "index.html").read_text(encoding="utf-8")
    content = json.loads((folder / "phase.json").read_text(encoding="utf-8"))
    assert list(Draft202012Validator(record_schema()).iter_errors(content)) == []
    assert list(content["pairs"]) == ["tiny-llava-tiny"]
    assert "tiny-llava-tiny: nothing changed since its baseline of transformers " in page
    # The first two samples are always plotted, with a map of image and tokens each. Sample 5 was requested.
    names = {path.stem for path in (folder / "figures").iterdir()}
    assert {f"tiny-llava-tiny-tiny-{row}-{kind}" for row in (0, 1, 5) for kind in ("picture", "tokens")} <= names
    assert [drawn["sample_id"] for drawn in content["pairs"]["tiny-llava-tiny"]["drawn"]] == [
        "tiny-0",
        "tiny-1",
        "tiny-5",
    ]
    for drawn in content["pairs"]["tiny-llava-tiny"]["drawn"]:
        assert drawn["grid"] == [4, 4]
        assert drawn["captions"][0] in page
    alone = json.loads((folder.parent / "alone.json").read_text(encoding="utf-8"))
    assert {name: value for name, value in content["pairs"]["tiny-llava-tiny"].items() if name != "drawn"} == alone[
        "pairs"
    ]["tiny-llava-tiny"]
    assert str(folder.parent) not in page


@pytest.mark.slow
@pytest.mark.usefixtures("svg_only")
def test_the_page_names_the_first_changed_layer_and_the_changes(recorded: Cases, folder: Path) -> None:
    written = ("--phase-report", "report", "--phase-markdown", "summary.md")
    result = recorded.run(*REGRESSION, *written, plugins=(FaultPlugin(swap_layers(3)),))
    result.stdout.fnmatch_lines(["*first changed layer: 3*"])
    summary = (folder.parent / "summary.md").read_text(encoding="utf-8")
    assert "- `tiny-llava-tiny`, similarity: the same, sample by sample, up to residual point 2, the input" in summary
    page = (folder / "index.html").read_text(encoding="utf-8")
    # Layers 3 and 4 of 6 are swapped, so the input of layer 3 is the last unchanged residual point.
    banner = page.split('class="banner')[1].split("</div>")[0]
    assert "CHANGED: tiny-llava-tiny, first changed layer: 3" in banner
    assert "<p>Cause: weights changed;" in banner
    assert "<dd>residual point 2</dd>" in page
    assert 'class="verdict differs"' in page
    assert "differs here" in page


@pytest.mark.usefixtures("svg_only")
@pytest.mark.slow
def test_the_page_compares_two_models(recorded: Cases, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.models.registry import MODELS, ModelEntry

    entry = ModelEntry("other", "tiny", "harness.tests.support.tuned_models:load_tuned", ("tiny",), bundled=True)
    monkeypatch.setitem(MODELS, "other", entry)
    recorded.run(*QUICK, "--phase-against", "other", "--phase-report", "report")
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "tiny-llava against other on tiny" in page
    assert '<th scope="col">tiny-llava</th><th scope="col">other</th>' in page
    assert "<pre>" not in page
    # The comparison is with the other model, so nothing is said about a baseline.
    shown = page.split("<main")[1].split('<h2 id="reading"')[0]
    assert "DIFFERENT: tiny-llava-tiny against other, first changed layer" in shown
    assert "baseline" not in re.sub("<svg.*?</svg>|<figcaption>.*?</figcaption>", "", shown, flags=re.DOTALL)
    assert (folder / "figures" / "tiny-llava-tiny-against-other.svg").is_file()


@pytest.mark.usefixtures("svg_only")
@pytest.mark.slow
def test_an_unmeasured_pair_is_listed_with_the_reason(
    recorded: Cases, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.models.registry import MODELS, ModelEntry

    loader = "harness.tests.support.tuned_models:load_broken"
    entry = ModelEntry("broken", "tiny", loader, ("tiny",), bundled=True)
    monkeypatch.setitem(MODELS, "broken", entry)
    result = recorded.run(*QUICK, "--phase-report", "report", pair=(*PAIR, "--phase-model", "broken"))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "<summary>Not measured: 1 pair</summary>" in page
    assert "<b>broken-tiny</b>: the checkpoint" in page
    assert "tiny-llava-tiny" in page


def test_an_unwritable_report_directory_is_a_usage_error(recorded: Cases, folder: Path) -> None:
    folder.write_text("a file where the folder should be")
    result = recorded.run(*QUICK, "--phase-report", "report")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--phase-report: *report is not writable*choose another with --phase-report*"])
    assert folder.read_text() == "a file where the folder should be"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have no paths here")
def test_a_record_does_not_replace_a_pipe(recorded: Cases, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    result = recorded.run(*QUICK, "--phase-json", str(tmp_path / "pipe"))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--phase-json: *pipe is not writable (it is a pipe or a device); choose another*"])
    assert (tmp_path / "pipe").is_fifo()


def joined(result: pytest.RunResult) -> str:
    return " ".join(result.stdout.str().split())


@pytest.mark.usefixtures("svg_only")
@pytest.mark.slow
def test_an_unknown_sample_id_fails_the_run(recorded: Cases, folder: Path) -> None:
    alone = recorded.run(*REGRESSION, "--phase-draw", "tiny-1")
    assert alone.ret == pytest.ExitCode.USAGE_ERROR
    alone.stderr.fnmatch_lines(["*--phase-draw tiny-1 names a sample for the report: use it with --phase-report*"])
    result = recorded.run(*REGRESSION, "--phase-draw", "somebody", "--phase-report", "report")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "PHASES FAILED: --phase-draw somebody: no pair of this run has a sample with this id" in joined(result)
    assert (folder / "index.html").is_file()


@pytest.mark.slow
def test_an_error_in_writing_the_report_fails_the_run_but_keeps_other_outputs(
    recorded: Cases, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure_files, "to_png", broken)
    result = recorded.run(
        *REGRESSION, "--phase-report", "report", "--phase-json", "out.json", "--phase-markdown", "out.md"
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert f"PHASES FAILED: --phase-report {folder} could not be written: No space left on device" in joined(result)
    result.stdout.fnmatch_lines(["record *out.json", "Markdown summary *out.md"])
    assert not (folder / "index.html").exists()
    assert json.loads((folder.parent / "out.json").read_text())["verdicts"]
    assert (folder.parent / "out.md").read_text().startswith("## ")


def test_without_the_option_no_report_is_written(
    recorded: Cases, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_folder, "write_report", lambda *_: pytest.fail("a report was made"))
    recorded.run(*REGRESSION).assert_outcomes(passed=12)
    assert not folder.exists()
