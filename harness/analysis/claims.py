"""The paper's claims about four phases, as verdicts on measured curves (Wei, Shi and Inoue, arXiv 2411.00646)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

import numpy as np

from harness.analysis.beyond import Beyond, CurveBeyond, curve_beyond, rise_beyond
from harness.analysis.curves import FloatArray
from harness.analysis.monotone import Monotonicity, Presence, monotone, phase_rise
from harness.analysis.moves import declared_prominence
from harness.analysis.phase_reading import PhaseReading

PHASES = ("I", "II", "III", "IV")
REVERSAL_SHARE, LEAST_REVERSAL = 0.05, 0.01
LEAST_RECALL_GAIN = 0.02
#: The control of recall: another sample's words on the same picture.
CHANCE = "chance"


class ClaimVerdict(StrEnum):
    """What a replication says of one claim."""

    HOLDS = "holds"
    FAILS = "fails"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Finding:
    """One part of a claim: its verdict with effect, interval, margin, n, and what was found in one line.

    `beyond` says by how much the part's effect exceeds the same under each control; the verdict does not depend on it.
    """

    name: str
    statement: str
    verdict: ClaimVerdict
    effect: float
    interval: tuple[float, float]
    margin: float
    n: int
    beyond: tuple[Beyond, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim's verdict: it holds when all `parts` do and fails when one does.

    Effect, interval, margin and n are those of the part named `decisive`: the first that fails, else the first that is
    inconclusive, else the first. `curves_beyond` says where the whole inter-modal curve exceeds each control, for the
    claim that is about the whole curve.
    """

    name: str
    verdict: ClaimVerdict
    decisive: str
    effect: float
    interval: tuple[float, float]
    margin: float
    n: int
    parts: tuple[Finding, ...]
    curves_beyond: tuple[CurveBeyond, ...] = ()

    @property
    def beyond(self) -> tuple[Beyond, ...]:
        """What all parts have beyond their controls."""
        return tuple(beyond for part in self.parts for beyond in part.beyond)


def four_phases(reading: PhaseReading) -> Claim:
    """Returns whether the inter-modal curve has exactly four certified moves, first one up, none with a reversal.

    Four are certified and a fifth is not, at the declared prominence; within each of the four intervals no reversal
    exceeds 5 % of the curve's range (0.01 at least).
    """
    mean = reading.summary.mean
    margin = max(LEAST_REVERSAL, REVERSAL_SHARE * float(mean.max() - mean.min()))
    reversals = []
    for phase, name in enumerate(PHASES):
        first, last = reading.edges(phase)
        found = monotone(reading.summary, first, last, _direction(phase), margin)
        verdict = {Monotonicity.MONOTONE: ClaimVerdict.HOLDS, Monotonicity.VIOLATED: ClaimVerdict.FAILS}
        s, t = found.layers
        reversals.append(
            Finding(
                name=f"no reversal in {name}",
                statement=f"largest reversal in layers {first}-{last}: {max(found.effect, 0.0):.3g} (at most "
                f"{max(found.interval[1], 0.0):.3g}) between {s} and {t}, margin {margin:.3g}",
                verdict=verdict.get(found.verdict, ClaimVerdict.INCONCLUSIVE),
                effect=found.effect,
                interval=found.interval,
                margin=margin,
                n=found.n,
            )
        )
    beyond = tuple(curve_beyond(rows["inter"], control, reading.alpha) for control, rows in reading.beyond.items())
    return replace(_claim("four-phases", [_four_moves(reading), *reversals]), curves_beyond=beyond)


def alignment(reading: PhaseReading) -> Claim:
    """Returns whether inter-modal similarity rises in phase I and phase I ends within the first quarter of the depth.

    A phase ends only where the curve turns, so the fall after it is asked for as well.
    """
    quarter = reading.last / 4.0
    end = reading.boundaries.turning_points[0]
    low, high = end.low, end.high
    verdict = _beyond(-high, -low, -quarter)
    place = Finding(
        name="I ends in the first quarter",
        statement=f"I ends at layer {end.estimate:g} ({low:g} to {high:g}), the first quarter at {quarter:g}",
        verdict=verdict,
        effect=end.estimate,
        interval=(low, high),
        margin=quarter,
        n=reading.summary.n,
    )
    return _claim("alignment", [_inter_moves(reading, 0), _inter_moves(reading, 1), place])


def intra_modal(reading: PhaseReading) -> Claim:
    """Returns whether over phase II inter-modal similarity falls while that within image and within text rises."""
    return _claim(
        "intra-modal",
        [
            _inter_moves(reading, 1),
            _other_moves(reading, reading.image, "image", 1, 1),
            _other_moves(reading, reading.text, "text", 1, 1),
        ],
    )


def inter_modal(reading: PhaseReading) -> Claim:
    """Returns whether inter-modal similarity rises over phase III."""
    return _claim("inter-modal", [_inter_moves(reading, 2)])


def output_preparation(reading: PhaseReading) -> Claim:
    """Returns whether over phase IV all three similarities fall, IV lies in the last quarter, and recall is late.

    Recall is late where its mean over the last quarter of the depth exceeds that over the first by more than 0.02.
    Where recall was left out that part is inconclusive.
    """
    quarter = 3.0 * reading.last / 4.0
    begin = reading.boundaries.turning_points[2]
    place = Finding(
        name="IV lies in the last quarter",
        statement=f"IV begins at layer {begin.estimate:g} ({begin.low:g} to {begin.high:g}), "
        f"the last quarter at {quarter:g}",
        verdict=_beyond(begin.low, begin.high, quarter),
        effect=begin.estimate,
        interval=(begin.low, begin.high),
        margin=quarter,
        n=reading.summary.n,
    )
    return _claim(
        "output-preparation",
        [
            _inter_moves(reading, 3),
            _other_moves(reading, reading.image, "image", 3, -1),
            _other_moves(reading, reading.text, "text", 3, -1),
            place,
            _late_recall(reading),
        ],
    )


def _late_recall(reading: PhaseReading) -> Finding:
    name, unknown = "recall is late", math.nan
    if reading.recall is None:
        statement, interval = f"recall is left out: {reading.no_recall}", (unknown, unknown)
        n, verdict = reading.summary.n, ClaimVerdict.INCONCLUSIVE
        return Finding(name, statement, verdict, unknown, interval, LEAST_RECALL_GAIN, n)
    gain = phase_rise(_quarters(reading.recall), 0, 1, 1, LEAST_RECALL_GAIN, alpha=reading.alpha)
    beyond: tuple[Beyond, ...] = ()
    if reading.recall_beyond is not None:
        rows = _quarters(reading.recall_beyond)
        beyond = (rise_beyond(rows, CHANCE, "recall", (0, 1), 1, reading.alpha, chosen=False),)
    statement = f"recall of the last quarter exceeds that of the first by {gain.effect:.3g} ({_span(gain.interval)})"
    return Finding(name, statement, _of_presence(gain.verdict), gain.effect, gain.interval, gain.margin, gain.n, beyond)


#: Every claim by the name it has in cases, baselines and reports.
CLAIMS: Mapping[str, Callable[[PhaseReading], Claim]] = MappingProxyType(
    {
        "four-phases": four_phases,
        "alignment": alignment,
        "intra-modal": intra_modal,
        "inter-modal": inter_modal,
        "output-preparation": output_preparation,
    }
)


def _four_moves(reading: PhaseReading) -> Finding:
    every, up = reading.any_moves, reading.up_moves
    shown = every if every.count > len(PHASES) else up
    if every.count > len(PHASES):
        verdict = ClaimVerdict.FAILS
    elif up.count == len(PHASES):
        verdict = ClaimVerdict.HOLDS
    else:
        verdict = ClaimVerdict.FAILS if up.at_most < len(PHASES) else ClaimVerdict.INCONCLUSIVE
    chain = ", ".join(f"{'up' if move.direction > 0 else 'down'} {move.first}-{move.last}" for move in shown.chain)
    return Finding(
        name="four moves",
        statement=f"at least {shown.count} and at most {shown.at_most} alternating moves larger than "
        f"{shown.prominence:.3g}{': ' if chain else ''}{chain}",
        verdict=verdict,
        effect=float(shown.count),
        interval=(float(shown.count), float(shown.at_most)),
        margin=float(len(PHASES)),
        n=shown.n,
    )


def _inter_moves(reading: PhaseReading, phase: int) -> Finding:
    """The move of one phase; its bound holds for all pairs of layers, since the phase was found on these curves."""
    rows, critical = reading.inter, reading.rises.critical
    return _moves(reading, rows, "inter", phase, _direction(phase), critical)


def _other_moves(reading: PhaseReading, rows: FloatArray, name: str, phase: int, direction: int) -> Finding:
    return _moves(reading, rows, name, phase, direction, None)


def _quarters(rows: FloatArray) -> FloatArray:
    """Means over the first and over the last quarter of the depth, (n, 2)."""
    layers, last = np.arange(rows.shape[1]), rows.shape[1] - 1
    first, final = layers <= last / 4.0, layers >= 3.0 * last / 4.0
    return np.stack([rows[:, first].mean(axis=1), rows[:, final].mean(axis=1)], axis=1)


def _moves(
    reading: PhaseReading, rows: FloatArray, name: str, phase: int, direction: int, critical: float | None
) -> Finding:
    first, last = reading.edges(phase)
    prominence = declared_prominence(rows.mean(axis=0))
    found = phase_rise(rows, first, last, direction, prominence, alpha=reading.alpha, critical=critical)
    verb = "rises" if direction > 0 else "falls"
    ends = found.interval if direction > 0 else (-found.interval[1], -found.interval[0])
    title, what = "inter-modal" if name == "inter" else name, f"{name} {PHASES[phase]}"
    beyond = tuple(
        rise_beyond(rows_of[name], control, what, (first, last), direction, reading.alpha, chosen=critical is not None)
        for control, rows_of in reading.beyond.items()
    )
    return Finding(
        name=f"{title} {verb} over {PHASES[phase]}",
        statement=f"{title} similarity changes by {direction * found.effect:+.3g} ({_span(ends)}) from layer {first} "
        f"to {last}, prominence {prominence:.3g}",
        verdict=_of_presence(found.verdict),
        effect=found.effect,
        interval=found.interval,
        margin=prominence,
        n=found.n,
        beyond=beyond,
    )


def _claim(name: str, parts: list[Finding]) -> Claim:
    order = (ClaimVerdict.FAILS, ClaimVerdict.INCONCLUSIVE, ClaimVerdict.HOLDS)
    decisive = next(part for verdict in order for part in parts if part.verdict is verdict)
    return Claim(
        name=name,
        verdict=decisive.verdict,
        decisive=decisive.name,
        effect=decisive.effect,
        interval=decisive.interval,
        margin=decisive.margin,
        n=decisive.n,
        parts=tuple(parts),
    )


def _beyond(low: float, high: float, least: float) -> ClaimVerdict:
    """Whether an interval lies from `least` on, below it, or across."""
    if low >= least:
        return ClaimVerdict.HOLDS
    return ClaimVerdict.FAILS if high < least else ClaimVerdict.INCONCLUSIVE


def _of_presence(presence: Presence) -> ClaimVerdict:
    found = {Presence.PRESENT: ClaimVerdict.HOLDS, Presence.ABSENT: ClaimVerdict.FAILS}
    return found.get(presence, ClaimVerdict.INCONCLUSIVE)


def _direction(phase: int) -> int:
    return 1 if phase % 2 == 0 else -1


def _span(interval: tuple[float, float]) -> str:
    return f"{interval[0]:+.3g} to {interval[1]:+.3g}"
