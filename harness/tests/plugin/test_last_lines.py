"""The output of runs in pytest: header, short failures, no message twice, and the outcome before pytest's last line."""

from __future__ import annotations

import re

import pytest

from harness.tests.support.case_runs import PAIR, REGRESSION, Cases, FaultPlugin
from harness.tests.support.faults import swap_layers

CASE = (*REGRESSION, "--phase-controls", "none")
ONE = (*CASE, "-k", "inter_similarity")
SWAPPED = FaultPlugin(swap_layers(3))


def lines_of(result: pytest.RunResult) -> list[str]:
    """Return the lines without those of pytest that name machine and plugins."""
    return [line for line in result.stdout.lines if not re.match("platform|benchmark:|rootdir|plugins|cachedir", line)]


def test_a_passing_run_ends_with_its_outcome(recorded: Cases) -> None:
    result = recorded.run(*CASE)
    lines = lines_of(result)
    assert lines[-2] == "PHASES OK: nothing changed"
    assert re.fullmatch(r"=+ 12 passed, .* in .*=+", lines[-1])
    header = [line for line in lines if line.startswith("phase: ")]
    assert 2 <= len(header) <= 4
    assert lines.index(header[0]) > next(index for index, line in enumerate(lines) if line.startswith("collected"))
    # The dots of all cases share a line, and there is no table of times.
    assert "............                                                             [100%]" in lines
    assert not any(".py" in line or line.startswith("Name (time") for line in lines)
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 80 or all("/" in line for line in lines if len(line) > 80)


def test_a_failing_run_says_each_message_once_and_the_outcome_last(recorded: Cases) -> None:
    result = recorded.run(*CASE, "--phase-json", "out.json", plugins=(SWAPPED,))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    lines = lines_of(result)
    end = next(index for index, line in enumerate(lines) if line.startswith("PHASES CHANGED"))
    outcome = " ".join(" ".join(lines[end:-1]).replace("\\", "").split())
    assert outcome.startswith("PHASES CHANGED: tiny-llava-tiny: first changed layer: 3 (weights changed)")
    assert "--phase-update --phase-reason TEXT" in outcome
    assert re.search(r"\d+ failed, .*1 pair differs at layers? [\d, -]+ in ", lines[-1])
    failures = lines[lines.index(next(line for line in lines if "= FAILURES =" in line)) :]
    failures = failures[: next(index for index, line in enumerate(failures) if "= phase diagram =" in line)]
    assert "def test_" not in " ".join(failures)
    # A header per failure, and a message of at most two lines.
    failed = result.parseoutcomes()["failed"]
    assert len(failures) <= 1 + 3 * failed
    text = " ".join(failures).replace(" E    ", "")
    assert re.search(r"inter: 64 of 64 samples changed at residual points 3-6, by up to \d", text)
    short = [line for line in lines if line.startswith("FAILED ")]
    assert len(short) == failed
    assert not any(" - " in line for line in short)
    block = lines.index("tiny-llava-tiny: first changed layer: 3; identical up to residual point 2")
    assert lines[block + 1].startswith("  cause: weights changed; ")
    assert lines[block + 2].startswith("  most: inter-modal similarity ")
    assert 4 <= lines.index("", block) - block <= 6
    full = recorded.run(*ONE, "-v", plugins=(SWAPPED,)).stdout.str()
    assert "per-sample tolerance" in full
    assert "intended? " in full


def test_junit_keeps_the_full_message(recorded: Cases, pytester: pytest.Pytester) -> None:
    recorded.run(*ONE, "--junitxml", "junit.xml", plugins=(SWAPPED,))
    text = (pytester.path / "junit.xml").read_text(encoding="utf-8")
    assert "per-sample tolerance" in text
    assert "intended? " in text


@pytest.mark.slow
def test_quiet_output_keeps_changes_and_written_files(recorded: Cases) -> None:
    brief = recorded.run(*ONE, "-q", "--phase-json", "out.json")
    brief.stdout.fnmatch_lines(
        [
            "*= phase diagram =*",
            "*: reproduces its baseline",
            "baselines: 1 matched, *",
            "record *out.json",
            "PHASES OK*",
        ]
    )
    assert "I alignment" not in brief.stdout.str()
    assert not brief.stdout.str().startswith("phase: ")
    least = recorded.run(*ONE, "-qq", plugins=(SWAPPED,))
    least.stdout.fnmatch_lines(["PHASES CHANGED: tiny-llava-tiny: first changed layer: 3*"])
    assert "phase diagram" not in least.stdout.str()
    updating = ("--phase-update", "--phase-reason", "layers are swapped on purpose", "--phase-json", "out.json")
    updated = recorded.run(*ONE, "-qq", *updating, plugins=(SWAPPED,))
    updated.stdout.fnmatch_lines(["  wrote *tiny.json (changed)", "record *out.json", "PHASES OK: 1 baseline written*"])


@pytest.mark.slow
@pytest.mark.usefixtures("svg_only")
def test_the_last_line_is_red_if_the_run_fails_without_a_failed_test(recorded: Cases) -> None:
    result = recorded.run(*ONE, "--color=yes", "--phase-draw", "no-such-sample", "--phase-report", "page")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text, last = result.stdout.str(), result.stdout.lines[-1]
    assert "\x1b[31mPHASES FAILED: --phase-draw no-such-sample: no pair of this run has a sample" in text
    assert "\x1b[31m" in last


def test_other_projects_see_nothing(pytester: pytest.Pytester, recorded: Cases) -> None:
    pytester.makepyfile("def test_one(): assert 1 == 2")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "harness.plugin.hooks")
    text = result.stdout.str()
    assert "phase" not in text.replace("vlm-phase-harness", "").replace(str(pytester.path), "").lower()
    assert "test_other_projects_see_nothing.py F" in text
    assert "assert 1 == 2" in text


@pytest.mark.slow
def test_a_pair_without_a_baseline_has_findings(cases: Cases) -> None:
    result = cases.run("-m", "replication", "--phase-controls", "none", pair=PAIR)
    assert result.ret == pytest.ExitCode.OK
    end = " ".join(" ".join(lines_of(result)[-3:]).split())
    assert re.search(r"no baseline compared; 5 claims: \d hold, \d fail \(findings; no baseline yet\)", end)
