"""The summary of a run: it fits the terminal, contains all verdicts, and -q and -qq shorten it."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness
from harness.analysis.timing import TimingRatio
from harness.judgement.results import Result
from harness.plugin.terminal import final_lines
from harness.profile.pair import Pair
from harness.report.layout import MESSAGE_WIDTH, fold, reason_text, table_lines, terminal_width, unbroken
from harness.report.outcomes import pair_outcomes
from harness.report.summary import summary_lines
from harness.run.options import read_options
from harness.run.session_results import SessionResults
from harness.tests.support.case_runs import ACCEPT, Cases, FaultPlugin
from harness.tests.support.faults import swap_layers
from harness.tests.support.synthetic_profiles import synthetic_profile

LONG = "a-quite-long-name-of-a-model"
WIDTHS = (60, 80, 100, 250)
CLAIMED = {"four-phases": "fails", "alignment": "fails", "inter-modal": "holds", "intra-modal": "inconclusive"}
JUDGED = {"inter": "reproduces", "intra": "equivalent", "attention": "differs", "boundaries": "inconclusive"}


@pytest.fixture
def session(project: pytest.Pytester) -> SessionResults:
    """Results of a pair with a long name, every verdict, and a claim that is known to fail."""
    stored = project.mkdir("stored")
    (stored / "known_differences.toml").write_text(f'[{LONG}-curves]\nalignment = "it does not"\n')
    session = SessionResults(read_options(project.parseconfig("--phase-baselines", str(stored))))
    pair = Pair(LONG, "curves")
    session.profiles[pair] = dataclasses.replace(synthetic_profile(), model=LONG)
    for kind, verdicts in (("replication", CLAIMED), ("regression", JUDGED)):
        for question, verdict in verdicts.items():
            session.record(Result(pair, kind, question, verdict, changed=question in ("intra", "attention")))
    session.ratios[pair] = TimingRatio(1.5, (1.4, 1.6), 0.99, 31)
    return session


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_terminal(session: SessionResults, width: int) -> None:
    lines = summary_lines(session, width)
    assert max(len(line.text) for line in lines) <= width
    text = " ".join(" ".join(line.text for line in lines).split())
    assert f"{LONG}-curves" in text
    assert "baselines: 0 matched, 0 changed, 0 new, 0 unused" in text
    if width < 200:
        for expected in (
            "holds: inter-modal",
            "fails as known: alignment",
            "fails: four-phases",
            "inconclusive: intra-modal",
            "reproduces: inter",
            "equivalent, but changed: intra",
            "differs: attention",
            "inconclusive: boundaries",
            "64 samples, 12 layers",
            "I 0-2, II 2-5, III 5-10, IV 10-12",
            "hooked/plain 1.50 times the plain time (1.40 to 1.60)",
        ):
            assert expected in text
    else:
        assert "4- I- II? III+" in text
        assert "inter= intra~ attention! boundaries? 1.50 (1.40 to 1.60)" in text


def test_colours_follow_the_verdicts(session: SessionResults) -> None:
    coloured = {line.text.strip(): line.colour for line in summary_lines(session, 80) if line.colour}
    assert coloured == {
        "claims        holds: inter-modal": "green",
        "inconclusive: intra-modal": "yellow",
        "fails: four-phases": "red",
        "regression    reproduces: inter": "green",
        "inconclusive: boundaries": "yellow",
        "equivalent, but changed: intra": "red",
        "differs: attention": "red",
    }
    row = next(line for line in summary_lines(session, 250) if line.text.startswith(LONG))
    assert row.colour == "red"


def test_unexpected_and_inconclusive_verdicts_are_separate(session: SessionResults) -> None:
    (outcome,) = pair_outcomes(session)
    assert [line.question for line in outcome.unexpected()] == ["four-phases", "intra", "attention"]
    assert [line.question for line in outcome.inconclusive()] == ["intra-modal", "boundaries"]


def test_a_comparison_of_two_models_fits_the_terminal() -> None:
    made = synthetic_profile()
    session = harness.compare_models(dataclasses.replace(made, model=LONG), made)
    for width in (60, 80):
        assert max(map(len, session.lines(width))) <= width
        assert " ".join(" ".join(session.lines(width)).split()).count("beyond the margin: no measure") == 1
    assert "\n".join(session.lines()) == repr(session)


def test_folding_breaks_between_words_and_escapes_control_characters() -> None:
    assert fold("  one two three four", 12) == ["  one two", "    three", "    four"]
    assert fold("one " + unbroken("two three") + " four", 10, first_offset=6) == ["one", "  two three", "  four"]
    path = "/a/path/that/is-long/and has blanks"
    assert fold(f"  wrote {unbroken(path)} here", 20) == ["  wrote", f"    {path}", "    here"]
    assert fold("a\x1b[31m b\n", 80) == [r"a\x1b[31m b\n"]
    assert fold("", 80) == [""]


def test_the_widest_column_of_a_table_is_folded() -> None:
    rows = [["name", "one two three four five six seven"], ["other", "x"]]
    assert table_lines(["a", "b"], rows, 24) == [
        "a      b",
        "-----  -------------",
        "name   one two three",
        "       four five six",
        "       seven",
        "other  x",
    ]
    assert max(map(len, table_lines(["a", "b"], rows))) == 40
    # Names are never broken.
    assert "longer-than-all-this" in table_lines(["a", "b"], [["longer-than-all-this", "x y"]], 10)[2]
    assert table_lines(["a", "b"], [], 10)[0].split() == ["a", "b"]


@given(st.lists(st.lists(st.sampled_from(["a", "bb bb", "ccc " * 9, ""]), min_size=3, max_size=3), max_size=4))
def test_a_table_of_short_words_always_fits(rows: list[list[str]]) -> None:
    assert max(map(len, table_lines(["one", "two", "three"], rows, 30))) <= 30


def test_a_long_reason_starts_a_new_line() -> None:
    assert reason_text("known:", "so it is") == "known: so it is"
    head, *lines = reason_text("known:", "word " * 40).splitlines()
    assert head == "known:"
    assert all(line.startswith("    word") and len(line) <= MESSAGE_WIDTH for line in lines)


def test_the_width_is_that_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns, width in (("120", 120), ("20", 60)):
        monkeypatch.setenv("COLUMNS", columns)
        assert terminal_width() == width


def test_quiet_output_lists_written_files_and_failures(recorded: Cases) -> None:
    case = ("-m", "regression", "-k", "inter_similarity", "--phase-controls", "none", "--phase-json", "out.json")
    damaged = recorded.run(*case, plugins=(FaultPlugin(swap_layers(3)),))
    assert damaged.ret == pytest.ExitCode.TESTS_FAILED
    damaged.stdout.fnmatch_lines(["phase: harness *", "*= phase diagram =*", "*differs: inter", "intervals: 99 %*"])
    damaged.stdout.fnmatch_lines(["record *out.json"])
    # Source lines belong to pytest; commands and paths are not folded because users copy them.
    text = [line for line in damaged.stdout.lines if line.startswith(("E  ", "phase", "  "))]
    wide = [line for line in text if len(line) > 80 and not re.search(r'"""|def |intended\?|/\S{40}|check_', line)]
    assert wide == []
    brief = recorded.run(*case, "-q")
    brief.stdout.fnmatch_lines(
        ["*= phase diagram =*", "*reproduces: inter", "baselines: 1 matched, *", "record *out.json"]
    )
    assert "intervals: 99 %" not in brief.stdout.str()
    least = recorded.run(*case, "-qq", *ACCEPT, plugins=(FaultPlugin(swap_layers(3)),))
    least.stdout.fnmatch_lines(["  wrote *tiny.json (changed)", "record *out.json"])
    assert "phase diagram" not in least.stdout.str()
    assert "baselines:" not in least.stdout.str()


def test_too_many_inconclusive_verdicts_are_reported_at_any_verbosity(session: SessionResults) -> None:
    session.verdicts[:] = [result for result in session.verdicts if result.verdict == "inconclusive"]
    lines = final_lines([], session.inconclusive_reason(), 60)
    assert [line.colour for line in lines] == ["red"] * len(lines)
    assert lines[0].text.startswith("FAILED: 2 of 2 verdicts are inconclusive, more than a")
    assert max(len(line.text) for line in lines) <= 60
