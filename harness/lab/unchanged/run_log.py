"""The log of real runs with nothing changed: its JSON file, its lines and its block of the page of error rates."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harness.errors import PhaseError
from harness.lab.docs.pages import padded_table
from harness.lab.simulation.rates import share_interval
from harness.lab.unchanged.unchanged_run import JudgedRun
from harness.lab.unchanged.variation import Variation

#: The block of the page.
BLOCK = "real-runs"
_SCHEMA = 1


class RunLogError(PhaseError):
    """A file holds no log of real runs; the message states the reason."""


@dataclass(frozen=True, slots=True)
class RunLog:
    """Real runs with their variations, and their provenance: date (UTC), command, device and versions."""

    date: str
    command: str
    device_name: str
    versions: Mapping[str, str]
    runs: tuple[tuple[Variation, JudgedRun], ...] = ()

    @property
    def alarmed(self) -> int:
        """The number of runs with an alarm."""
        return sum(bool(run.alarms) for _, run in self.runs)

    def with_run(self, variation: Variation, run: JudgedRun) -> RunLog:
        """Return the log with one more run."""
        return replace(self, runs=(*self.runs, (variation, run)))

    def summary(self) -> str:
        """Return the number of alarmed runs with its exact binomial interval."""
        low, high = share_interval(self.alarmed, len(self.runs))
        alarms = f"{self.alarmed} alarm{'s' * (self.alarmed != 1)} in {len(self.runs)} real runs"
        return f"{alarms} with nothing changed (95 % interval {low:.2%} to {high:.2%})"

    def block(self) -> str:
        """Return the block of the page."""
        rows = [_cells(variation, run) for variation, run in self.runs]
        headers = ["model", "n", "processes x threads", "batch size", "order", "attention", "alarms"]
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        minutes = sum(run.seconds for _, run in self.runs) / 60.0
        largest = max(run.largest for _, run in self.runs)
        return "\n\n".join(
            [
                f"{self.summary()}.",
                f"    {self.command}",
                f"{self.date} (UTC), {self.device_name}, {versions}; {minutes:.0f} minutes.\n"
                f"Largest change of a sample: {largest:.2g} x the tolerance.",
                padded_table(rows, [*headers, "largest change", "inconclusive"]),
            ]
        )


def run_line(variation: Variation, run: JudgedRun) -> str:
    """Return a line on one run."""
    alarms = f"{len(run.alarms)} alarms" + (f" ({', '.join(run.alarms)})" if run.alarms else "")
    return (
        f"{variation}: {alarms}, largest change {run.largest:.2g} x the tolerance, {run.inconclusive} of "
        f"{run.verdicts} verdicts inconclusive, {run.seconds:.0f} s"
    )


def to_json(log: RunLog) -> str:
    """Return the log as JSON."""
    runs = [{"variation": asdict(variation), **asdict(run)} for variation, run in log.runs]
    return json.dumps({"schema": _SCHEMA, **asdict(replace(log, runs=())), "runs": runs}, indent=1) + "\n"


def read_log(path: Path) -> RunLog:
    """Return the log that `to_json` wrote.

    Raises:
        RunLogError: the file cannot be read, or it has other content or no run.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("schema") != _SCHEMA:
            raise RunLogError(f"{path} was written by another version of this program; run it again")
        runs = [(Variation(**run.pop("variation")), run) for run in content.pop("runs")]
        log = RunLog(**content)
        for variation, run in runs:
            log = log.with_run(variation, JudgedRun(**{**run, "alarms": tuple(run["alarms"])}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunLogError(f"{path} holds no log of real runs ({error}); write one with --json") from None
    if not log.runs:
        raise RunLogError(f"{path} holds no run; write some with --json")
    return log


def _cells(variation: Variation, run: JudgedRun) -> list[object]:
    alarms = ", ".join(f"{name} ({count})" if count > 1 else name for name, count in Counter(run.alarms).items())
    return [
        variation.model,
        run.n,
        f"{variation.processes} x {variation.threads}",
        variation.batch_size,
        variation.order,
        variation.attention,
        alarms or "none",
        f"{run.largest:.2g} x",
        f"{run.inconclusive} of {run.verdicts}",
    ]
