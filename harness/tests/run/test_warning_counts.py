"""Warnings of libraries are counted while measuring and shown once, independent of the filters."""

from __future__ import annotations

import pickle
import re
import tomllib
import warnings

import pytest

from harness.models.vlm import Vlm
from harness.run.warning_counts import WarningCounts
from harness.tests.support.case_runs import ROOT, Cases

MESSAGE = "`position_embeddings` will be\nmandatory"


class WarningModel:
    """A plugin whose models warn in the forward pass of their first layer, as those of a new release may."""

    def pytest_phase_model_loaded(self, vlm: Vlm) -> None:
        warnings.warn("loaded the old way", DeprecationWarning, stacklevel=1)
        vlm.anatomy.layers[0].register_forward_pre_hook(lambda *_: warnings.warn(MESSAGE, FutureWarning, stacklevel=1))


@pytest.mark.slow
@pytest.mark.parametrize("filters", [(), ("-W", "error"), ("-p", "no:warnings")], ids=["default", "error", "no plugin"])
def test_warnings_of_a_layer_are_counted_and_shown_once(recorded: Cases, filters: tuple[str, ...]) -> None:
    markdown = recorded.baselines.parent / "summary.md"
    case = ("-m", "regression", "-k", "inter_similarity", "--phase-controls", "none", "--phase-no-cache")
    result = recorded.run(*case, "--phase-markdown", str(markdown), *filters, plugins=(WarningModel(),))
    result.assert_outcomes(passed=2)
    shown = [line for line in result.stdout.lines if "FutureWarning" in line]
    assert len(shown) == 1
    assert "warnings" not in result.parseoutcomes()
    # A warning per pass: the passes of the first samples with their checks, then 64 samples in batches of eight.
    (future,) = (line for line in markdown.read_text().splitlines() if "FutureWarning" in line)
    count = re.match(r"- (\d+) times FutureWarning at test\\_warning\\_counts.py:", future)
    assert count is not None
    assert 10 <= int(count[1]) <= 16
    assert future.endswith(r"\`position\_embeddings\` will be mandatory")
    result.stdout.fnmatch_lines([f"warnings while measuring: {int(count[1]) + 1} of 2 kinds"])


@pytest.mark.slow
def test_a_run_without_warnings_shows_none(recorded: Cases) -> None:
    result = recorded.run("-m", "regression", "-k", "inter_similarity")
    result.assert_outcomes(passed=2)
    assert "while measuring" not in result.stdout.str()


def test_warnings_of_timed_passes_are_counted(recorded: Cases) -> None:
    result = recorded.run("-m", "timing", "-k", "test_plain", plugins=(WarningModel(),))
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*times FutureWarning at *"])


def test_ignore_filters_apply_and_error_filters_do_not() -> None:
    counts = WarningCounts()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "not this", UserWarning)
        with counts.recording():
            for _ in range(3):
                warnings.warn("but \x1b[31mthis", UserWarning, stacklevel=1)
            warnings.warn("not this one", UserWarning, stacklevel=1)
            warnings.warn("not this one", FutureWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="but this"):
            warnings.warn("but this", UserWarning, stacklevel=1)
    head, *kinds = counts.lines()
    assert head == "warnings while measuring: 4 of 2 kinds"
    assert [kind.split(" at ")[0] for kind in kinds] == ["  3 times UserWarning", "  once FutureWarning"]
    assert kinds[0].endswith(r": but \x1b[31mthis")


def test_the_most_frequent_kinds_are_shown_including_those_of_workers() -> None:
    counts = WarningCounts({f"UserWarning at a.py:{line}: text": line for line in range(1, 8)})
    counts.update(pickle.loads(pickle.dumps(counts)))  # noqa: S301 - our own
    lines = counts.lines()
    assert lines[0] == "warnings while measuring: 56 of 7 kinds"
    assert lines[1] == "  14 times UserWarning at a.py:7: text"
    assert lines[-1] == "  and 2 more kinds"
    assert len(lines) == 7
    assert WarningCounts().lines() == []


def test_texts_that_differ_in_numbers_are_one_kind() -> None:
    counts = WarningCounts()
    with counts.recording():
        for step in range(1, 9):
            warnings.warn(f"step {step} of {step * 1.5} s by <o at {hex(step + 4096)}>", UserWarning, stacklevel=1)
        warnings.warn("something else", UserWarning, stacklevel=1)
    head, first, second = counts.lines()
    assert head == "warnings while measuring: 9 of 2 kinds"
    assert first.startswith("  8 times UserWarning at test_warning_counts.py:")
    assert first.endswith(": step 1 of 1.5 s by <o at 0x1001>")
    assert second.endswith(": something else")


def test_the_projects_settings_make_no_warning_an_error() -> None:
    """They are also those of a user who runs `pytest cases/` in a clone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "filterwarnings" not in project["tool"]["pytest"]


def test_the_projects_own_tests_stop_at_a_warning() -> None:
    with pytest.raises(UserWarning, match="mine"):
        warnings.warn("mine", UserWarning, stacklevel=1)


@pytest.mark.filterwarnings("ignore:mine")
def test_a_tests_own_filter_takes_precedence() -> None:
    warnings.warn("mine", UserWarning, stacklevel=1)
