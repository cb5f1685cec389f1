"""The tables of error rates, and the page with them."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version

from harness.analysis.mean_difference import Verdict
from harness.judgement import regression
from harness.lab.docs.pages import block_of, padded_table
from harness.lab.simulation import populations
from harness.lab.simulation.rates import POPULATIONS, share_interval
from harness.lab.simulation.simulation_run import REQUIRED_SHARE, SimulationOutcome, is_required
from harness.storage.templates import render

_VERDICTS = (Verdict.REPRODUCES, Verdict.EQUIVALENT, Verdict.INCONCLUSIVE, Verdict.DIFFERS)
_QUESTIONS = {"curve": "curve", "boundaries": "boundaries", "intervals": "phases", "recall": "recall"}
_SHAPES = [population.shape.name for population in POPULATIONS]


def false_alarm_table(outcome: SimulationOutcome, style: str) -> str:
    """Return the table of false alarms in a style of tabulate."""
    rows = []
    for alarms in (outcome.paired, outcome.unpaired):
        low, high = share_interval(alarms.alarmed, alarms.suites)
        rows.append(
            [
                "paired" if alarms.paired else "unpaired",
                f"{alarms.suites:,}",
                alarms.alarmed,
                f"{low:.2%} to {high:.2%}",
                f"{alarms.assertions:,}",
                alarms.verdicts[Verdict.DIFFERS],
                *(f"{alarms.verdicts[verdict] / alarms.assertions:.1%}" for verdict in _VERDICTS),
            ]
        )
    headers = ["samples", "suites", "alarmed", "95 % interval", "assertions", "false"]
    return padded_table(rows, [*headers, *(verdict.value for verdict in _VERDICTS)], style)


def detection_table(outcome: SimulationOutcome, style: str, *, paired: bool) -> str:
    """Return the table of detected changes in a style of tabulate, for paired or unpaired samples."""
    rows = []
    for cell in (cell for cell in outcome.cells if cell.paired is paired):
        low, high = share_interval(cell.detected, cell.repetitions)
        counts = [cell.by_question.get(question) for question in _QUESTIONS]
        rows.append(
            [
                cell.scenario.title,
                cell.n,
                cell.repetitions,
                f"{cell.detected / cell.repetitions:.3f}",
                f"{low:.3f} to {high:.3f}",
                *("-" if count is None else f"{count / cell.repetitions:.2f}" for count in counts),
                f"{cell.inconclusive / cell.repetitions:.2f}",
                *(f"{detected / repetitions:.2f}" for detected, repetitions in cell.by_shape.values()),
            ]
        )
    headers = [
        "change",
        "n",
        "repetitions",
        "detected",
        "95 % interval",
        *_QUESTIONS.values(),
        "inconclusive",
        *_SHAPES,
    ]
    return padded_table(rows, headers, style)


def requirement_lines(outcome: SimulationOutcome) -> list[str]:
    """Return a sentence for each required rate with the measured rate."""
    alarms = outcome.paired
    low, high = share_interval(alarms.alarmed, alarms.suites)
    lines = [
        f"{alarms.alarmed} false alarms in {alarms.suites:,} paired suites without a change (required: 0; "
        f"95 % interval {low:.2%} to {high:.2%})."
    ]
    for cell in filter(is_required, outcome.cells):
        low, high = share_interval(cell.detected, cell.repetitions)
        lines.append(
            f"{cell.scenario.title}, n = {cell.n} paired: detected in {cell.detected} of {cell.repetitions} (required: "
            f"{REQUIRED_SHARE:.0%}; 95 % interval {low:.2%} to {high:.2%})."
        )
    return lines


def error_rates_page(outcome: SimulationOutcome, command: str, previous: str = "") -> str:
    """Return the page in Markdown.

    Args:
        outcome: the results of the simulation.
        command: the command line that reproduces it.
        previous: the page that it replaces, whose block of real runs it keeps.
    """
    data = {
        "outcome": outcome,
        "command": command,
        "real_runs": block_of(previous, "real-runs") or "No real run is recorded yet.",
        "populations": populations,
        "regression": regression,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "numpy": version("numpy"),
        "scipy": version("scipy"),
        "minutes": _minutes(outcome.seconds),
        "cpu_minutes": _minutes(outcome.cpu_seconds),
        "requirements": requirement_lines(outcome),
        "false_alarms": false_alarm_table(outcome, "github"),
        "alarm_lines": [*outcome.paired.lines, *outcome.unpaired.lines],
        "least": min(pair.n // pair.per_image for pair in populations.PAIRS),
        "most": max(pair.n for pair in populations.PAIRS),
        "detection": detection_table(outcome, "github", paired=True),
        "detection_unpaired": detection_table(outcome, "github", paired=False),
        "shapes": _SHAPES,
    }
    return render("harness.lab.simulation", "error-rates.md.jinja", data)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120.0 else f"{seconds / 60.0:.1f} minutes"
