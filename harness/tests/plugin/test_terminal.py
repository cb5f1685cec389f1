"""The summary of a run: it fits the terminal, says each verdict in few lines, and -v adds the details."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness
from harness.analysis.timing import TimingRatio
from harness.judgement.results import Result
from harness.profile.pair import Pair
from harness.report.layout import MESSAGE_WIDTH, Line, fold, reason_text, table_lines, terminal_width, unbroken
from harness.report.outcomes import pair_outcomes
from harness.report.summary import summary_lines
from harness.run.options import read_options
from harness.run.session_results import SessionResults
from harness.tests.support.synthetic_profiles import replace_arrays, synthetic_profile

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


def text_of(session: SessionResults, width: int = 80, verbosity: int = 0) -> str:
    lines = summary_lines(session, pair_outcomes(session), width, verbosity=verbosity)
    return " ".join(" ".join(line.text for line in lines).split())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("verbosity", [-1, 0, 1])
def test_no_line_is_wider_than_the_terminal(session: SessionResults, width: int, verbosity: int) -> None:
    lines = summary_lines(session, pair_outcomes(session), width, verbosity=verbosity)
    assert max(len(line.text) for line in lines) <= width
    assert "baselines: 0 matched, 0 changed, 0 new, 0 unused" in text_of(session, width, verbosity)


def test_a_pair_has_its_verdicts_phases_and_claims_in_a_few_lines(session: SessionResults) -> None:
    lines = [line.text for line in summary_lines(session, pair_outcomes(session), 80)]
    assert lines[:3] == [
        f"{LONG}-curves, 64 samples: differs: attention;",
        "  equivalent, but changed: intra; inconclusive: boundaries; reproduces: inter",
        "  I 0-2  II 2-5  III 5-10  IV 10-12   claims 4!  Ix  II?  III+",
    ]
    assert "claims: + holds, x fails as expected, ? inconclusive, ! unexpected" in text_of(session)
    # Every mark and every abbreviation has a legend of at most three lines.
    legend = lines[3:-3]
    assert legend[0].startswith("I alignment, II intra-modal encoding, III inter-modal encoding, IV output")
    assert len(legend) <= 3


def test_the_details_have_a_block_for_each_pair(session: SessionResults) -> None:
    text = text_of(session, verbosity=1)
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
        assert expected not in text_of(session) or ": " in expected


def test_phases_that_are_not_confirmed_are_a_best_guess(session: SessionResults) -> None:
    assert "best guess" not in text_of(session)
    (pair,) = session.profiles
    noisy = replace_arrays(session.profiles[pair], inter=session.profiles[pair]["inter"] * np.float32(0.05))
    rng = np.random.default_rng(0)
    noise = (rng.standard_normal(noisy["inter"].shape) * 0.4).astype(np.float32)
    session.profiles[pair] = replace_arrays(noisy, inter=noisy["inter"] + noise)
    session._readings.clear()
    confirmed = sum(pair_outcomes(session)[0].reading.confirmed)
    assert confirmed < 4
    assert f"{confirmed} of 4 phases confirmed; the cut is a best guess" in text_of(session)


def test_pairs_without_weights_and_other_views_are_named(session: SessionResults) -> None:
    absent = [Pair(f"absent-{number}", "scenes") for number in range(5)]
    session.unmeasured |= dict.fromkeys(absent, "not in the cache")
    session.unavailable |= set(absent)
    text = text_of(session)
    names = ", ".join(f"absent-{number}" for number in range(3))
    assert f"left out: 5 pairs of {names} and 2 more models, whose weights or data are not here" in text
    assert "vlm-phase doctor names what is missing, -rs the reasons" in text
    assert "details: -v or on the page (" in text
    session.options = dataclasses.replace(session.options, report=Path("report"))
    assert "details: -v; reasons of expected failures: -rx; times: -m timing" in text_of(session)


def test_colours_follow_the_verdicts(session: SessionResults) -> None:
    coloured = {line.text.strip(): line.colour for line in detailed(session) if line.colour}
    assert coloured == {
        "claims        holds: inter-modal": "green",
        "inconclusive: intra-modal": "yellow",
        "fails: four-phases": "red",
        "regression    reproduces: inter": "green",
        "inconclusive: boundaries": "yellow",
        "equivalent, but changed: intra": "red",
        "differs: attention": "red",
    }
    first = summary_lines(session, pair_outcomes(session), 80)[0]
    assert (first.text[: len(LONG)], first.colour) == (LONG, "red")


def detailed(session: SessionResults) -> list[Line]:
    return summary_lines(session, pair_outcomes(session), 80, verbosity=1)


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
