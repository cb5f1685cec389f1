"""Two models side by side, in words: a table of their phases, and the lines that say where they part."""

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
    """Two models measured on the same samples, side by side."""

    numbers: SideBySide

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def lines(self, width: int | None = None) -> list[str]:
        """Return a title, a table with one column a model, and where the two differ.

        Args:
            width: of a terminal that lines and cells are folded for, None where they may be as long as they are.
        """
        numbers, pairing = self.numbers, self.numbers.inputs.pairing
        title = (
            f"{' against '.join(_names(numbers))} on {numbers.dataset}: {len(pairing.measured)} samples"
            f"{', compared in pairs' if pairing.paired else ', too few to be compared in pairs'}"
        )
        above = [title, *_given_lines(numbers)]
        below = [*_verdict_lines(numbers), *_where_lines(numbers)]
        if width is not None:
            above, below = ([line for text in texts for line in fold(text, width)] for texts in (above, below))
        return [*above, "", *_table(numbers, width), "", *below]

    def record(self) -> dict[str, Any]:
        """Return the numbers as JSON types."""
        return side_by_side_record(self.numbers)


def compare_models(
    profile: Profile, other: Profile, *, weights: tuple[WeightParts, WeightParts] | None = None
) -> ModelComparison:
    """Two models side by side: their phases, the regression verdicts, and where in the depth they part.

    Args:
        profile: of the one model.
        other: of the model that it is held against, on the same dataset.
        weights: `weight_parts` of the two models, in this order, to be told which layers' weights differ.

    Raises:
        ValueError: profiles of different datasets.
    """
    return ModelComparison(side_by_side(profile, reference_from_profile(other), weights))


def model_comparisons(findings: SessionResults, reference: Callable[[Pair], Reference]) -> list[ModelComparison]:
    """Return the comparisons of a run with --phase-against, one for each pair that was held against the other model.

    Args:
        findings: profiles, and the hashes of their models' weights.
        reference: returns what a pair is held against.
    """
    return [
        ModelComparison(
            side_by_side(
                findings.profiles[pair], reference(pair), (findings.weights[pair.model], findings.weights[other.model])
            )
        )
        for pair, other in findings.compared_pairs().items()
    ]


def _given_lines(numbers: SideBySide) -> list[str]:
    """What else is not the same for the two models, said before anything is compared."""
    lines = [f"  {numbers.inputs.changed}"] if numbers.inputs.changed else []
    prompts = (numbers.measured.prompt, numbers.other.prompt)
    if prompts[0] != prompts[1]:
        lines.append(f"  prompts: {shorten(prompts[0])!r} and {shorten(prompts[1])!r}")
    lines += _first_token_line(numbers)
    return lines + [f"  {change}" for change in (*numbers.configuration.abridged(), *numbers.environment)]


def _first_token_line(numbers: SideBySide) -> list[str]:
    """A line if the first token is text in one of the models only: there it takes part in every mean over the text."""
    sides = (numbers.measured, numbers.other)
    as_text = [side for side in sides if side.first_token == AS_TEXT]
    as_bos = [side for side in sides if side.first_token not in ("", AS_TEXT)]
    if not (as_text and as_bos):
        return []
    text, bos = short_name(as_text[0].model), short_name(as_bos[0].model)
    return [
        f"  the first token is text in {text}, whose prompts have no BOS; in {bos} it is "
        f"{shorten(as_bos[0].first_token, LONGEST_TOKEN)}: similarities with the text include it in {text} only"
    ]


def _table(numbers: SideBySide, width: int | None) -> list[str]:
    sides = (numbers.measured, numbers.other)
    rows = [["samples", *(str(side.n) for side in sides)], ["layers", *(str(side.depth) for side in sides)]]
    for index, title in enumerate(_ENDS):
        rows.append(
            [title, *(f"layer {side.turning_points[index]:g}, depth {side.relative()[index]:.2f}" for side in sides)]
        )
    rows.append(["monotone segments, confirmed", *(str(side.segments) for side in sides)])
    rows += [[claim, *(side.claims[claim] for side in sides)] for claim in numbers.measured.claims]
    return table_lines(["", *_names(numbers)], rows, width)


def _names(numbers: SideBySide) -> tuple[str, str]:
    return short_name(numbers.measured.model), short_name(numbers.other.model)


def _verdict_lines(numbers: SideBySide) -> list[str]:
    if not numbers.same_depth:
        return [
            f"regression: not judged, {numbers.measured.depth} and {numbers.other.depth} layers "
            "compare by relative depth"
        ]
    return ["regression: " + ", ".join(f"{name} {verdict}" for name, verdict in numbers.verdicts.items())]


def _where_lines(numbers: SideBySide) -> list[str]:
    lines = [] if numbers.weights is None else [numbers.weights.describe()]
    if not numbers.same_depth:
        return lines
    if numbers.not_traced:
        lines.append(f"readings: not asked sample by sample, {numbers.not_traced}")
    lines += [trace_line(trace) for trace in numbers.traces]
    lines += [
        f"beyond the margin: {finding.measure.title} at {finding.measure.axis.describe(finding.indices)} "
        f"({finding.agreement.mean.effect:+.3g} at {finding.worst_place}, margin {finding.agreement.mean.margin:.3g})"
        for finding in numbers.beyond_margin
    ]
    if not numbers.beyond_margin:
        lines.append("beyond the margin: nothing")
    return lines


def trace_line(trace: Trace) -> str:
    """Up to where readings are the same: within the tolerance, and bit for bit where that ends earlier."""
    place, first = trace.axis.name, trace.axis.first

    def until(end: int) -> str:
        if end == trace.last:
            return f"at every {place}"
        return f"up to {place} {end}" + (f", the input of layer {end + 1}" if first == 0 else "")

    if trace.same_until < first:
        return f"{trace.name}: not the same at any {place} from {first} on, sample by sample"
    if trace.exact_until == trace.same_until:
        return f"{trace.name}: the same, sample by sample, {until(trace.same_until)}"
    # Counts of words have no tolerance of their own: enough samples have the same.
    same = f"within {trace.tolerance:g}, sample by sample" if trace.tolerance >= 1e-6 else _IN_ENOUGH_SAMPLES
    exact = f"; bit for bit {until(trace.exact_until)}" if trace.exact_until >= first else ""
    return f"{trace.name}: the same {same}, {until(trace.same_until)}{exact}"
