"""The Markdown summary contains verdicts with numbers, and escapes names and texts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import harness
from harness.baselines.store import read_baseline, write_baseline
from harness.judgement.phases import phases_of
from harness.judgement.results import Result
from harness.profile.pair import Pair
from harness.report.markdown import code, markdown_summary, prose
from harness.run.judge import Judge
from harness.run.options import read_options
from harness.run.session import PhaseSession
from harness.tests.support.case_runs import REGRESSION, Cases
from harness.tests.support.synthetic_profiles import replace_arrays, synthetic_profile

HOSTILE = "a|b`c<script>&lt;*x*\n## owned\x1b[31m"


def session_of(project: pytest.Pytester, stored: Path) -> PhaseSession:
    return PhaseSession(read_options(project.parseconfig("--phase-baselines", str(stored))), say=print)


def test_differences_are_listed_with_their_numbers(project: pytest.Pytester) -> None:
    made, stored = synthetic_profile(), project.mkdir("stored")
    baseline = read_baseline(write_baseline(stored, made, {}, phases_of(made)))
    (stored / "known_differences.toml").write_text('[made-curves]\noutput-preparation = "so *it* is"\n')
    session = session_of(project, stored)
    measured, pair = replace_arrays(made, inter=made["inter"] + 0.09), Pair("made", "curves")
    session.results.profiles[pair] = measured
    judge = Judge(session, pair)
    judge.regression(measured, baseline, "inter")
    judge.regression(measured, baseline, "intra")
    session.record(Result(pair, "replication", "output-preparation", "fails"))
    text = markdown_summary(
        session.results, [harness.compare_models(dataclasses.replace(measured, model="other"), made)]
    )
    lines = text.splitlines()
    assert lines[0] == "## Phases of vision-language models: 1 of 3 verdicts unexpected"
    row = next(line for line in lines if line.startswith("| `made-curves` | 64 |"))
    assert "I 0-2<br>II 2-5<br>III 5-10<br>IV 10-12" in row
    assert "**fails as known**: output-preparation" in row
    assert "**reproduces**: intra<br>**differs**: inter" in row
    differing_rows = lines[lines.index("### Unexpected verdicts") + 4 :]
    cells = [cell.strip() for cell in differing_rows[0].strip("|").split("|")]
    assert cells[:4] == ["`made-curves`", "inter", "differs", "inter-modal similarity"]
    assert cells[4] == "residual points 0-12"
    assert cells[5] == "+0.09"
    assert cells[7:] == ["0.035", "64"]
    assert r"- `made-curves`, output-preparation: so \*it\* is" in lines
    assert "other against made on curves: 64 samples, paired" in lines
    assert "Baselines: 0 matched" in lines
    assert lines[-1].startswith("vlm-phase-harness ")
    assert "torch 2.15.0, transformers 5.23.0, cpu (a processor), float32, sdpa" in lines[-1]


def test_markup_in_names_is_escaped(project: pytest.Pytester) -> None:
    session = session_of(project, project.mkdir("stored"))
    pair = Pair(HOSTILE, "curves")
    session.results.profiles[pair] = dataclasses.replace(synthetic_profile(), model=HOSTILE)
    session.record(Result(pair, "regression", "inter", "reproduces"))
    compared = harness.compare_models(session.results.profiles[pair], synthetic_profile())
    text = markdown_summary(session.results, [compared])
    table, _, rest = text.partition("### Side by side")
    assert "<script" not in text
    assert "\x1b" not in text
    assert not any(line.startswith("## owned") for line in text.splitlines())
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert {row.count("|") for row in rows} == {8}
    assert {row.count("`") for row in rows} == {0, 2}
    assert rest.count("<pre>") == rest.count("</pre>") == 1


@pytest.mark.parametrize(
    ("text", "as_code", "as_prose"),
    [
        ("plain-name", "`plain-name`", "plain-name"),
        ("a|b", r"`a\x7cb`", "a&#124;b"),
        ("`x`", r"`\x60x\x60`", r"\`x\`"),
        ("<b>&", r"`\x3cb\x3e\x26`", "&lt;b&gt;&amp;"),
        ("a\nb", r"`a\nb`", r"a\\nb"),
        ("*_[x]#", "`*_[x]#`", r"\*\_\[x\]\#"),
    ],
)
def test_code_and_prose_escape_markup(text: str, as_code: str, as_prose: str) -> None:
    assert (code(text), prose(text)) == (as_code, as_prose)


@pytest.mark.slow
def test_a_run_appends_its_summary(recorded: Cases) -> None:
    path = recorded.baselines.parent / "step.md"
    path.write_text("before\n")
    result = recorded.run(*REGRESSION, "-k", "inter_similarity", "--phase-markdown", "step.md")
    result.assert_outcomes(passed=2)
    text = path.read_text()
    assert text.startswith("before\n## Phases of vision-language models: all 1 verdicts as expected\n")
    assert "| `tiny-llava-tiny` | 64 |" in text
    assert "Baselines: 1 matched" in text
