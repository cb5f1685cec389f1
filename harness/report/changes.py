"""A changed pair in a few sentences, the same in the terminal and on the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.analysis.boundary_agreement import BoundaryShift
from harness.analysis.interval_agreement import IntervalFinding
from harness.judgement.regression import Finding
from harness.judgement.results import Evidence, Result
from harness.judgement.side_by_side import Trace, reading_traces
from harness.profile.measures import RECALL, layer_ranges
from harness.profile.profile import Profile
from harness.report.messages import accept_command, part_brief, short_title
from harness.report.outcomes import PairOutcome

_AFTER_LAST = "first change: after the last layer, in the final norm or the unembedding"
_BEFORE_FIRST = "first change: before layer 1, in the embeddings"
# Beyond this length the layers are named by their first and last.
_LONGEST_LAYERS = 24


@dataclass(frozen=True, slots=True)
class PairChange:
    """The change of a pair as texts; a text is empty if it is unknown.

    `cause` names the changed inputs, settings, weights and versions. `identical_until` is the last position with equal
    readings in all samples, `first_changed` a sentence with the layer after it. `differs` lists the changed measures,
    the largest change in margins first. `undecided` lists the measures that need more samples. `layers` lists all
    changed layers. `accept` is the command that accepts the change; two compared models have none.
    """

    cause: str
    identical_until: str
    first_changed: str
    differs: tuple[str, ...]
    undecided: tuple[str, ...]
    layers: str
    accept: str


def pair_change(outcome: PairOutcome) -> PairChange | None:
    """Return the change of a pair since its baseline, or to the other model; None if nothing changed."""
    changed = [result for result in outcome.regressions.values() if result.changed]
    if outcome.baseline is None or not changed:
        return None
    identical_until, first = _located(reading_traces(outcome.profile, outcome.baseline))
    parts = [part for result in outcome.regressions.values() for part in result.worst_first]
    differing = [part for part in parts if part.verdict == "differs"]
    moved = [part for part in parts if part.samples_changed and part.verdict == "equivalent"]
    return PairChange(
        cause=_cause(outcome.profile, outcome.baseline.profile, changed),
        identical_until=identical_until,
        first_changed=_first_changed(first, outcome.profile.depth),
        differs=tuple(map(part_text, [*sorted(differing, key=_excess, reverse=True), *moved])),
        undecided=tuple(map(undecided_text, _undecided(parts))),
        layers=_layers(differing or [part for part in parts if part.samples_changed], first or 0),
        accept="" if outcome.baseline.by_id else accept_command(outcome.profile),
    )


def part_text(part: Evidence) -> str:
    """Return the change of a measure, boundary or phase with its size and margin."""
    source = part.source
    if isinstance(source, Finding) and part.verdict == "equivalent":
        agreement = source.agreement
        largest = "" if agreement.largest is None else f" by up to {agreement.largest:.2g}"
        changed = f"{agreement.beyond_tolerance} of {agreement.compared} samples changed{largest}"
        return f"{short_title(part.title)}: {changed}, the mean within its margin {part.margin:.2g}"
    return part_brief(source) if isinstance(source, Finding | BoundaryShift | IntervalFinding) else part.title


def undecided_text(part: Evidence) -> str:
    """Return the name of an undecided measure, and about how many samples would decide."""
    source = part.source
    needed = source.agreement.mean.n_needed if isinstance(source, Finding) else getattr(source, "n_needed", None)
    return f"{short_title(part.title)} (decided by about {needed} samples)" if needed else short_title(part.title)


def _excess(part: Evidence) -> float:
    """Return the change in margins; a boundary that one of the curves lacks has no size."""
    excess = abs(part.effect) / part.margin
    return excess if math.isfinite(excess) else 0.0


def _undecided(parts: Iterable[Evidence]) -> list[Evidence]:
    return [part for part in parts if part.verdict == "inconclusive"]


def _layers(parts: Sequence[Evidence], first: int) -> str:
    """Return the layers from `first` on at which parts changed; residual point l counts as layer l, whose output it is.

    A changed unembedding changes recall in layers before `first` as well.
    """
    findings = [part.source for part in parts if isinstance(part.source, Finding)]
    positions = {layer for finding in findings for layer in finding.measure.axis.positions(finding.indices)}
    layers = [layer for layer in positions if layer >= first]
    text = layer_ranges(layers)
    return text if len(text) <= _LONGEST_LAYERS else f"{min(layers)}-{max(layers)}"


def _cause(profile: Profile, stored: Profile, changed: Sequence[Result]) -> str:
    """Return what changed besides the numbers: inputs, configuration, weights and environment."""
    inputs = next((result.inputs for result in changed if result.inputs), "").split("; ")[0]
    settings = profile.configuration_changes(stored).abridged()
    compared = bool(profile.configuration and stored.configuration)
    environment = profile.environment.differences(stored.environment)
    same = []
    if profile.weights == stored.weights:
        weights = ""
        same.append("weights")
    elif "weights: only computed buffers differ" in profile.main_changes(stored):
        weights = "only computed buffers changed"
        same.append("stored weights")
    else:
        weights = "weights changed"
    if compared and not settings:
        same.append("configuration")
    if not environment:
        same.append("environment")
    pieces = [inputs, *settings, weights, *environment]
    pieces += [f"{_listed(same)} the same"] if same else []
    pieces += [] if compared else ["no stored configuration to compare"]
    return "; ".join(piece.replace(": ", " ", 1) if " -> " in piece else piece for piece in pieces if piece)


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _located(traces: Sequence[Trace]) -> tuple[str, int | None]:
    """Return the last position with equal readings as text, and the first changed layer; None if unknown.

    Layer 0 stands for the embeddings, the layer after the last for the final norm or the unembedding. Similarity at
    residual point l depends on layers 1 to l, attention in layer l too. Recall depends on the unembedding besides, so
    it counts only if the rest is the same.
    """
    recall = [trace for trace in traces if trace.name == RECALL.title]
    located = [trace for trace in traces if trace.name != RECALL.title]
    if not located:
        return "", None
    first = min(located, key=lambda trace: trace.same_until)
    if first.same_until == first.last:
        changed_recall = any(trace.same_until < trace.last for trace in recall)
        return f"residual point {first.last}, the last", first.last + 1 if changed_recall else None
    if first.same_until < 0:
        return "", 0
    # The input of the first changed layer is the last equal residual point.
    return f"residual point {first.same_until}", first.same_until + 1


def _first_changed(layer: int | None, depth: int) -> str:
    if layer is None:
        return ""
    if layer == 0:
        return _BEFORE_FIRST
    return _AFTER_LAST if layer > depth else f"first changed layer: {layer}"
