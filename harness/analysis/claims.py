"""Verdicts on the paper's claims about four phases (Wei, Shi and Inoue, arXiv 2411.00646)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import numpy as np

from harness.analysis.control_difference import ControlDifference, CurveDifference, curve_difference, rise_difference
from harness.analysis.curves import FloatArray
from harness.analysis.monotone import (
    Answer,
    Monotonicity,
    PhaseFinding,
    Presence,
    judge_monotonicity,
    judge_phase_rise,
    reversal_margin,
)
from harness.analysis.phase_reading import PhaseReading
from harness.analysis.segments import declared_prominence

PHASES = ("I", "II", "III", "IV")
MIN_RECALL_GAIN = 0.02
_RISES, _FALLS = "rises", "falls"
#: The control of recall: another sample's words with the same image.
CHANCE = "chance"


class ClaimVerdict(StrEnum):
    """The outcome of a replication of one claim."""

    HOLDS = "holds"
    FAILS = "fails"
    INCONCLUSIVE = "inconclusive"


_HOLDING: Mapping[Answer, ClaimVerdict] = {
    **dict.fromkeys((Presence.PRESENT, Monotonicity.MONOTONE), ClaimVerdict.HOLDS),
    **dict.fromkeys((Presence.ABSENT, Monotonicity.VIOLATED), ClaimVerdict.FAILS),
}


@dataclass(frozen=True, slots=True)
class ClaimPart:
    """A part of a claim: its verdict, the effect, interval, margin and n behind it, and a one-line `statement`.

    `control_differences` compare the effect with each control's; the verdict does not depend on them.
    """

    name: str
    statement: str
    verdict: ClaimVerdict
    effect: float
    interval: tuple[float, float]
    margin: float
    n: int
    control_differences: tuple[ControlDifference, ...] = ()

    @property
    def direction(self) -> int:
        """The sign that makes `effect`, which is positive in the direction of the claim, a change as measured."""
        return -1 if f" {_FALLS} over " in self.name else 1


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim with its parts.

    `curve_differences` lists the layers at which the inter-modal curve differs from each control. Only the claim on
    the full curve has them.
    """

    name: str
    parts: tuple[ClaimPart, ...]
    curve_differences: tuple[CurveDifference, ...] = ()

    @property
    def decisive(self) -> ClaimPart:
        """The first part that fails, else the first inconclusive part, else the first part."""
        order = (ClaimVerdict.FAILS, ClaimVerdict.INCONCLUSIVE, ClaimVerdict.HOLDS)
        return next(part for verdict in order for part in self.parts if part.verdict is verdict)

    @property
    def verdict(self) -> ClaimVerdict:
        """Verdict of the decisive part: a claim holds if all parts hold and fails if any part fails."""
        return self.decisive.verdict

    @property
    def control_differences(self) -> tuple[ControlDifference, ...]:
        """Differences to the controls, over all parts."""
        return tuple(difference for part in self.parts for difference in part.control_differences)


def four_phases(reading: PhaseReading) -> Claim:
    """Judge the claim that the inter-modal curve has exactly four monotone segments, the first one rising.

    At the declared prominence four segments must be confirmed and a fifth must not. Within each segment no reversal may
    exceed 5 % of the curve's range (at least 0.01).
    """
    margin = reversal_margin(reading.summary.mean)
    reversals = []
    for phase, name in enumerate(PHASES):
        first, last = reading.phase_layers(phase)
        finding = judge_monotonicity(reading.summary, first, last, _direction(phase), margin)
        s, t = finding.layers
        statement = (
            f"largest reversal in layers {first}-{last}: {max(finding.effect, 0.0):.3g} (at most "
            f"{max(finding.interval[1], 0.0):.3g}) between {s} and {t}, margin {margin:.3g}"
        )
        reversals.append(_part(f"no reversal in {name}", statement, finding))
    control_differences = tuple(
        curve_difference(rows["inter"], control, reading.alpha) for control, rows in reading.control_differences.items()
    )
    return Claim("four-phases", (_four_segments(reading), *reversals), control_differences)


def alignment(reading: PhaseReading) -> Claim:
    """Judge the claim that inter-modal similarity rises in phase I, which ends in the first quarter of the depth.

    A phase ends only where the curve turns, so the claim requires the fall that follows as well.
    """
    early = _turn(reading, 0, "I ends in the first quarter", "I ends", early=True)
    return Claim("alignment", (_phase_change(reading, "inter", 0), _phase_change(reading, "inter", 1), early))


def intra_modal(reading: PhaseReading) -> Claim:
    """Judge the claim that inter-modal similarity falls over phase II while image and text similarity rise."""
    parts = (
        _phase_change(reading, "inter", 1),
        _phase_change(reading, "image", 1, 1),
        _phase_change(reading, "text", 1, 1),
    )
    return Claim("intra-modal", parts)


def inter_modal(reading: PhaseReading) -> Claim:
    """Judge the claim that inter-modal similarity rises over phase III."""
    return Claim("inter-modal", (_phase_change(reading, "inter", 2),))


def output_preparation(reading: PhaseReading) -> Claim:
    """Judge the claim that all three similarities fall over phase IV, in the last quarter, and that recall is late.

    Recall is late if its mean over the last quarter of the depth exceeds its mean over the first by more than 0.02.
    Without recall, that part is inconclusive.
    """
    late = _turn(reading, 2, "IV lies in the last quarter", "IV begins", early=False)
    falls = (
        _phase_change(reading, "inter", 3),
        _phase_change(reading, "image", 3, -1),
        _phase_change(reading, "text", 3, -1),
    )
    return Claim("output-preparation", (*falls, late, _late_recall(reading)))


def _turn(reading: PhaseReading, index: int, name: str, event: str, *, early: bool) -> ClaimPart:
    """Judge whether a phase ends in the first quarter of the depth (`early`), or begins in the last quarter."""
    turn, bound = reading.boundaries.turning_points[index], (1.0 if early else 3.0) * reading.last / 4.0
    inside, outside = turn.low >= bound, turn.high < bound
    if early:
        inside, outside = turn.high <= bound, turn.low > bound
    verdict = ClaimVerdict.HOLDS if inside else ClaimVerdict.FAILS if outside else ClaimVerdict.INCONCLUSIVE
    quarter = "first quarter" if early else "last quarter"
    statement = f"{event} at layer {turn.estimate:g} ({turn.low:g} to {turn.high:g}), the {quarter} at {bound:g}"
    return ClaimPart(name, statement, verdict, turn.estimate, (turn.low, turn.high), bound, reading.summary.n)


def _late_recall(reading: PhaseReading) -> ClaimPart:
    name, unknown = "recall is late", math.nan
    recall = reading.rows.get("recall")
    if recall is None:
        statement, interval = f"recall is left out: {reading.no_recall}", (unknown, unknown)
        n, verdict = reading.summary.n, ClaimVerdict.INCONCLUSIVE
        return ClaimPart(name, statement, verdict, unknown, interval, MIN_RECALL_GAIN, n)
    gain = judge_phase_rise(_quarters(recall), 0, 1, 1, MIN_RECALL_GAIN, alpha=reading.alpha)
    control_differences: tuple[ControlDifference, ...] = ()
    if reading.recall_chance_difference is not None:
        rows = _quarters(reading.recall_chance_difference)
        control_differences = (rise_difference(rows, CHANCE, "recall", (0, 1), 1, reading.alpha, chosen=False),)
    statement = f"recall of the last quarter exceeds that of the first by {gain.effect:.3g} ({_span(gain.interval)})"
    return _part(name, statement, gain, control_differences)


#: All claims by the name used in cases, baselines and reports.
CLAIMS: Mapping[str, Callable[[PhaseReading], Claim]] = MappingProxyType(
    {
        "four-phases": four_phases,
        "alignment": alignment,
        "intra-modal": intra_modal,
        "inter-modal": inter_modal,
        "output-preparation": output_preparation,
    }
)


def _four_segments(reading: PhaseReading) -> ClaimPart:
    any_start, rising = reading.any_segments, reading.rising_segments
    stated = any_start if any_start.count > len(PHASES) else rising
    if any_start.count > len(PHASES):
        verdict = ClaimVerdict.FAILS
    elif rising.count == len(PHASES):
        verdict = ClaimVerdict.HOLDS
    else:
        verdict = ClaimVerdict.FAILS if rising.at_most < len(PHASES) else ClaimVerdict.INCONCLUSIVE
    chain = ", ".join(
        f"{'up' if segment.direction > 0 else 'down'} {segment.first}-{segment.last}" for segment in stated.chain
    )
    statement = (
        f"at least {stated.count} and at most {stated.at_most} alternating monotone segments larger than "
        f"{stated.prominence:.3g}{': ' if chain else ''}{chain}"
    )
    least, most = float(stated.count), float(stated.at_most)
    return ClaimPart("four monotone segments", statement, verdict, least, (least, most), float(len(PHASES)), stated.n)


def _quarters(rows: FloatArray) -> FloatArray:
    """Return the means over the first and the last quarter of the depth, (n, 2)."""
    layers, last = np.arange(rows.shape[1]), rows.shape[1] - 1
    first, final = layers <= last / 4.0, layers >= 3.0 * last / 4.0
    return np.stack([rows[:, first].mean(axis=1), rows[:, final].mean(axis=1)], axis=1)


def _phase_change(reading: PhaseReading, name: str, phase: int, direction: int = 0) -> ClaimPart:
    """Judge the rise or fall of one curve over one phase; the inter-modal curve takes the phase's own direction.

    The bound of the inter-modal curve holds for all pairs of layers, because the phases were selected on it.
    """
    rows, is_inter = reading.rows[name], name == "inter"
    direction, critical = (_direction(phase), reading.rises.critical) if is_inter else (direction, None)
    first, last = reading.phase_layers(phase)
    prominence = declared_prominence(rows.mean(axis=0))
    finding = judge_phase_rise(rows, first, last, direction, prominence, alpha=reading.alpha, critical=critical)
    verb = _RISES if direction > 0 else _FALLS
    interval = finding.interval if direction > 0 else (-finding.interval[1], -finding.interval[0])
    title, quantity = "inter-modal" if is_inter else name, f"{name} {PHASES[phase]}"
    control_differences = tuple(
        rise_difference(rows_of[name], control, quantity, (first, last), direction, reading.alpha, chosen=is_inter)
        for control, rows_of in reading.control_differences.items()
    )
    statement = (
        f"{title} similarity changes by {direction * finding.effect:+.3g} ({_span(interval)}) "
        f"from layer {first} to {last}, prominence {prominence:.3g}"
    )
    return _part(f"{title} {verb} over {PHASES[phase]}", statement, finding, control_differences)


def _part(
    name: str, statement: str, finding: PhaseFinding, control_differences: tuple[ControlDifference, ...] = ()
) -> ClaimPart:
    verdict = _HOLDING.get(finding.verdict, ClaimVerdict.INCONCLUSIVE)
    return ClaimPart(
        name, statement, verdict, finding.effect, finding.interval, finding.margin, finding.n, control_differences
    )


def _direction(phase: int) -> int:
    return 1 if phase % 2 == 0 else -1


def _span(interval: tuple[float, float]) -> str:
    return f"{interval[0]:+.3g} to {interval[1]:+.3g}"
