"""The comparison of two models as text: a table of their phases, and lines with the positions that differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.analysis.margins import HIT_TOLERANCE
from harness.baselines.reference import Reference, reference_from_profile
from harness.errors import LONGEST_TOKEN, shorten
from harness.judgement.side_by_side import SideBySide, Trace, side_by_side, side_by_side_record
from harness.judgement.weights import WeightParts
from harness.profile.pair import Pair
from harness.profile.profile import AS_TEXT, Profile
from harness.report.layout import fold, table_lines
from harness.run.session_results import SessionResults
from harness.storage.file_names import short_name

_IN_ENOUGH_SAMPLES = f"in at least {100 * HIT_TOLERANCE.share:g} % of the samples"
_ENDS = ("phase I ends", "phase II ends", "phase III ends")


@dataclass(frozen=True, slots=True, repr=False)
class ModelComparison:
    """A comparison of two models on the same samples."""

    numbers: SideBySide

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    @property
    def title(self) -> str:
        """The names of both models, the dataset, and the number of common samples."""
        pairing = self.numbers.inputs.pairing
        return (
            f"{' against '.join(_names(self.numbers))} on {self.numbers.dataset}: {len(pairing.measured)} samples"
            f"{', paired' if pairing.paired else ', too few to be paired'}"
        )

    def inputs(self) -> list[str]:
        """Return lines with the differences in inputs, prompts, configuration and environment."""
        return [line.strip() for line in _input_lines(self.numbers)]

    def differences(self) -> list[str]:
        """Return lines with the verdicts, the positions up to which the models are the same, and those that differ."""
        return [*_verdict_lines(self.numbers), *_where_lines(self.numbers)]

    def lines(self, width: int | None = None) -> list[str]:
        """Return a title, a table with one column per model, and the differences.

        Args:
            width: of the terminal, in columns; None does not fold lines and cells.
        """
        numbers = self.numbers
        above, below = [self.title, *_input_lines(numbers)], self.differences()
        if width is not None:
            above, below = ([line for text in texts for line in fold(text, width)] for texts in (above, below))
        return [*above, "", *_table(numbers, width), "", *below]

    def record(self) -> dict[str, Any]:
        """Return the numbers as JSON types."""
        return side_by_side_record(self.numbers)


def compare_models(
    profile: Profile, other: Profile, *, weights: tuple[WeightParts, WeightParts] | None = None
) -> ModelComparison:
    """Compare two models: their phases, regression verdicts, and the positions up to which they are the same.

    Args:
        profile: the profile of a model.
        other: the profile of the model to compare with, on the same dataset.
        weights: `weight_parts` of the two models in this order; the result then lists the layers whose weights differ.

    Raises:
        ValueError: the profiles belong to different datasets.

    Example:
        >>> import harness
        >>> from pathlib import Path
        >>> from harness.baselines.store import read_baseline
        >>> llava = read_baseline(Path("baselines/scenes-llava/scenes.json")).profile
        >>> instructblip = read_baseline(Path("baselines/scenes-instructblip/scenes.json")).profile
        >>> comparison = harness.compare_models(instructblip, llava)
        >>> print(str(comparison).splitlines()[0])
        scenes-instructblip against scenes-llava on scenes: 128 samples, paired
    """
    return ModelComparison(side_by_side(profile, reference_from_profile(other), weights))


def model_comparisons(findings: SessionResults, reference: Callable[[Pair], Reference]) -> list[ModelComparison]:
    """Return the comparisons of a run with --phase-against, one per pair of a model with the other model.

    Args:
        findings: the profiles, and the hashes of their models' weights.
        reference: returns the baseline of a pair.
    """
    return [
        ModelComparison(
            side_by_side(
                findings.profiles[pair], reference(pair), (findings.weights[pair.model], findings.weights[other.model])
            )
        )
        for pair, other in findings.compared_pairs().items()
    ]


def _input_lines(numbers: SideBySide) -> list[str]:
    """Return lines with the differences in inputs, prompts, configuration and environment."""
    lines = [f"  {numbers.inputs.changed}"] if numbers.inputs.changed else []
    prompts = (numbers.measured.prompt, numbers.other.prompt)
    if prompts[0] != prompts[1]:
        lines.append(f"  prompts: {shorten(prompts[0])!r} and {shorten(prompts[1])!r}")
    lines += _first_token_line(numbers)
    return lines + [f"  {change}" for change in (*numbers.configuration.abridged(), *numbers.environment)]


def _first_token_line(numbers: SideBySide) -> list[str]:
    """Return a line if only one of the models counts its first token as text; that token affects its text means."""
    sides = (numbers.measured, numbers.other)
    as_text = [side for side in sides if side.first_token == AS_TEXT]
    as_bos = [side for side in sides if side.first_token not in ("", AS_TEXT)]
    if not (as_text and as_bos):
        return []
    text, bos = short_name(as_text[0].model), short_name(as_bos[0].model)
    return [
        f"  the first token is text in {text}, whose prompts have no BOS; in {bos} it is "
        f"{shorten(as_bos[0].first_token, LONGEST_TOKEN)}: the similarities with text include it in {text} only"
    ]


def comparison_rows(numbers: SideBySide) -> list[list[str]]:
    """Return the rows of the table of two models: a header with their names, then one row per quantity."""
    sides = (numbers.measured, numbers.other)
    rows = [["samples", *(str(side.n) for side in sides)], ["layers", *(str(side.depth) for side in sides)]]
    for index, title in enumerate(_ENDS):
        rows.append(
            [title, *(f"layer {side.turning_points[index]:g}, depth {side.relative()[index]:.2f}" for side in sides)]
        )
    rows.append(["confirmed segments", *(str(side.segments) for side in sides)])
    rows += [[claim, *(side.claims[claim] for side in sides)] for claim in numbers.measured.claims]
    return [["", *_names(numbers)], *rows]


def _table(numbers: SideBySide, width: int | None) -> list[str]:
    header, *rows = comparison_rows(numbers)
    return table_lines(header, rows, width)


def _names(numbers: SideBySide) -> tuple[str, str]:
    return short_name(numbers.measured.model), short_name(numbers.other.model)


def _verdict_lines(numbers: SideBySide) -> list[str]:
    if not numbers.same_depth:
        return [
            f"regression: not judged; {numbers.measured.depth} and {numbers.other.depth} layers "
            "are compared by relative depth"
        ]
    return ["regression: " + ", ".join(f"{name} {verdict}" for name, verdict in numbers.verdicts.items())]


def _where_lines(numbers: SideBySide) -> list[str]:
    lines = [] if numbers.weights is None else [numbers.weights.describe()]
    if not numbers.same_depth:
        return lines
    if numbers.not_traced:
        lines.append(f"readings: not compared sample by sample, {numbers.not_traced}")
    lines += [trace_line(trace) for trace in numbers.traces]
    lines += [
        f"beyond the margin: {finding.measure.title} at {finding.measure.axis.describe(finding.indices)} "
        f"({finding.agreement.mean.effect:+.3g} at {finding.worst_position}, "
        f"margin {finding.agreement.mean.margin:.3g})"
        for finding in numbers.beyond_margin
    ]
    if not numbers.beyond_margin:
        lines.append("beyond the margin: no measure")
    return lines


def trace_line(trace: Trace) -> str:
    """Return a line with the last position up to which readings are the same, within the tolerance and bit for bit."""
    unit, first = trace.axis.name, trace.axis.first

    def until(end: int) -> str:
        if end == trace.last:
            return f"at every {unit}"
        return f"up to {unit} {end}" + (f", the input of layer {end + 1}" if first == 0 else "")

    if trace.same_until < first:
        return f"{trace.name}: different from {unit} {first} on, sample by sample"
    if trace.exact_until == trace.same_until:
        return f"{trace.name}: the same, sample by sample, {until(trace.same_until)}"
    # Counts of words have no tolerance; enough samples must have the same count.
    same = f"within {trace.tolerance:g}, sample by sample" if trace.tolerance >= 1e-6 else _IN_ENOUGH_SAMPLES
    exact = f"; bit for bit {until(trace.exact_until)}" if trace.exact_until >= first else ""
    return f"{trace.name}: the same {same}, {until(trace.same_until)}{exact}"
