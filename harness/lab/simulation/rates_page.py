"""The page of error rates: what was simulated, the tables, and how to make them again."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version

from tabulate import tabulate

from harness.analysis.mean_difference import Verdict
from harness.judgement.regression import ALPHA_DIFF, ALPHA_RUN, DECLARED_ASSERTIONS
from harness.lab.simulation.populations import MEAN_NOISE, PAIRS, SPREAD, UNEVEN, VALUE_NOISE
from harness.lab.simulation.rates import POPULATIONS, Cell, share_interval
from harness.lab.simulation.simulation_run import Outcome
from harness.lab.simulation.suite_plan import BARRED, BARRED_N, BARRED_SHARE
from harness.lab.simulation.suites import Alarms

_PAGE = """\
# Error rates

How often this suite cries wolf, and what it finds: measured on synthetic profiles whose truth is known. This page is
written by the command below and by nothing else.

    {command}

{date} (UTC), seed {seed}, numpy {numpy}, scipy {scipy}; {minutes} on {jobs}, {cpu} of processor time. The seed fixes
every number in the tables, on any number of processes; other versions may round differently.

{bars}

## False alarms

{false_alarms}

{alarm_lines}A suite is all assertions on four pairs, {assertions} a suite. Nothing has changed in any of them:

- **paired**: the same samples are measured again in a coarser data type. Each value of a curve moves by about
  {value_noise:g} (half of that variance smooth over the layers), each layer's mean by about {mean_noise:g}, attention
  shares by about 1 %, and in 5 % of the samples a word is found more or less. Hardly a measure is the same sample by
  sample, so that the margins decide. This is what a bump of a library or of a GPU looks like.
- **unpaired**: new samples of the same population on every side.

*Alarmed* counts the suites in which any verdict was "differs". The interval is that of Clopper and Pearson, 95 %, for
the share of such suites. The rule spends {alpha_run:.0%} on a run by design, divided evenly over the declared
{declared} assertions ({alpha_diff:.2g} each). The last four columns say how the assertions ended. Many unpaired ones
are inconclusive: a mean over {least} to {most} samples moves by more than its margin when the samples are others.

The pairs:

{pairs}

Curves spread by {spread:g} between samples, with a correlation of 0.97 from one layer to the next. Where two samples
have one picture, half of the variance is common to both, and they count as one. Margins are those that a baseline of
the same numbers gets, without calibration: the smallest that the rule knows.

## What is found

{detection}

The same, with new samples on both sides (unpaired):

{detection_unpaired}

One line is one change at one n, the same n now and in the baseline.

- **found**: the share of the repetitions in which some verdict was "differs", with its Clopper-Pearson interval (95 %).
  A change of the curve is found by the inter-modal **curve** (level or shape), the **boundaries** (turning points and
  half-heights) or the **phases** (presence and monotonicity over the baseline's intervals), a loss of words by
  **recall** (top 1 or top 5); their columns say how often each said so by itself. A dash: not asked. Other measures,
  which a real fault would move as well, are not counted.
- **undecided**: nothing differs and something is inconclusive. What is left was called equivalent, or was judged the
  same: missed.
- **{shapes}**: the share found for each shape of curve. Repetitions go round them.

The changes strike the samples unevenly, with a strength of 1 and a standard deviation of {uneven:g}:

- a *shift* moves the inside of each curve to later layers. One layer is the margin of a turning point and no claim is
  made of it. Half-heights have a margin of half a layer and a steep curve moves by more than its own, so such a shift
  may be found all the same;
- *flattened* takes the fall of phase II away: similarity stays at its first top until it rises to the second;
- *stretched* multiplies each curve's distance from its own mean over the layers. x 1.1 lies about at the margin of the
  curve, 5 % of its range, and is printed for the same reason;
- *recall -0.10* loses each found word with the probability that lowers recall by 0.10 at the last point.

Before being compared, the paired profiles are measured again with the noise described above.

## Again

`python -m harness.lab.simulation --quick` takes about 20 seconds and prints the same tables of fewer draws; the tests
run it. The full command takes {minutes} where it was run last. It ends with exit code 1 if a bar is missed.
"""

_DASH = "-"


def false_alarm_table(outcome: Outcome, style: str) -> str:
    """Returns the table of false alarms in a style of tabulate."""
    header = ["samples", "suites", "alarmed", "95 % interval", "assertions", "false", *(v.value for v in _ENDINGS)]
    return tabulate(
        [_alarm_row(alarms) for alarms in (outcome.paired, outcome.unpaired)],
        headers=header,
        tablefmt=style,
        disable_numparse=True,
    )


def detection_table(outcome: Outcome, style: str, *, paired: bool) -> str:
    """Returns the table of what is found in a style of tabulate, for paired or unpaired samples."""
    shapes = [population.shape.name for population in POPULATIONS]
    header = ["change", "n", "repetitions", "found", "95 % interval", *_QUESTIONS.values(), "undecided", *shapes]
    rows = [_detection_row(cell) for cell in outcome.cells if cell.paired is paired]
    return tabulate(rows, headers=header, tablefmt=style, disable_numparse=True)


def bar_lines(outcome: Outcome) -> list[str]:
    """Returns what was asked for and what came of it, one sentence a bar."""
    alarms = outcome.paired
    low, high = share_interval(alarms.alarmed, alarms.suites)
    lines = [
        f"{alarms.alarmed} false alarms in {alarms.suites:,} paired suites with nothing changed (asked for: 0; "
        f"95 % interval {low:.2%} to {high:.2%})."
    ]
    for cell in outcome.cells:
        if cell.paired and cell.n == BARRED_N and cell.scenario.title in BARRED:
            low, high = share_interval(cell.found, cell.repetitions)
            lines.append(
                f"{cell.scenario.title}, n = {cell.n} paired: found in {cell.found} of {cell.repetitions} (asked for: "
                f"{BARRED_SHARE:.0%}; 95 % interval {low:.2%} to {high:.2%})."
            )
    return lines


def error_rates_page(outcome: Outcome, command: str) -> str:
    """Returns the page in Markdown; `command` is what makes it again."""
    lines = [f"- {line}" for alarms in (outcome.paired, outcome.unpaired) for line in alarms.lines]
    processes = "one process" if outcome.jobs == 1 else f"{outcome.jobs} processes"
    return _PAGE.format(
        command=command,
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        seed=outcome.plan.seed,
        numpy=version("numpy"),
        scipy=version("scipy"),
        minutes=_minutes(outcome.seconds),
        cpu=_minutes(outcome.cpu_seconds),
        jobs=processes,
        bars="\n".join(f"- {line}" for line in bar_lines(outcome)),
        false_alarms=false_alarm_table(outcome, "github"),
        alarm_lines="\n".join(["The false alarms:", "", *lines, "", ""]) if lines else "",
        assertions=outcome.paired.assertions // outcome.paired.suites,
        value_noise=VALUE_NOISE,
        mean_noise=MEAN_NOISE,
        alpha_run=ALPHA_RUN,
        alpha_diff=ALPHA_DIFF,
        declared=DECLARED_ASSERTIONS,
        least=min(pair.n // pair.clustered for pair in PAIRS),
        most=max(pair.n for pair in PAIRS),
        pairs="\n".join(f"- {pair.name}" for pair in PAIRS),
        spread=SPREAD,
        uneven=UNEVEN,
        detection=detection_table(outcome, "github", paired=True),
        detection_unpaired=detection_table(outcome, "github", paired=False),
        shapes=", ".join(population.shape.name for population in POPULATIONS),
    )


_ENDINGS = (Verdict.REPRODUCES, Verdict.EQUIVALENT, Verdict.INCONCLUSIVE, Verdict.DIFFERS)
_QUESTIONS = {"curve": "curve", "boundaries": "boundaries", "intervals": "phases", "recall": "recall"}


def _alarm_row(alarms: Alarms) -> list[str]:
    low, high = share_interval(alarms.alarmed, alarms.suites)
    return [
        "paired" if alarms.paired else "unpaired",
        f"{alarms.suites:,}",
        str(alarms.alarmed),
        f"{low:.2%} to {high:.2%}",
        f"{alarms.assertions:,}",
        str(alarms.verdicts[Verdict.DIFFERS]),
        *(f"{alarms.verdicts[verdict] / alarms.assertions:.1%}" for verdict in _ENDINGS),
    ]


def _detection_row(cell: Cell) -> list[str]:
    low, high = share_interval(cell.found, cell.repetitions)
    said = [cell.by_question.get(question) for question in _QUESTIONS]
    return [
        cell.scenario.title,
        str(cell.n),
        str(cell.repetitions),
        f"{cell.found / cell.repetitions:.3f}",
        f"{low:.3f} to {high:.3f}",
        *(_DASH if count is None else f"{count / cell.repetitions:.2f}" for count in said),
        f"{cell.undecided / cell.repetitions:.2f}",
        *(f"{found / of:.2f}" for found, of in cell.by_shape.values()),
    ]


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120.0 else f"{seconds / 60.0:.1f} minutes"
