"""The decision rule: a measure reproduces its baseline, is equivalent to it, differs from it, or is inconclusive."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.analysis.curves import BoolArray, FloatArray
from harness.analysis.margins import CURVE_TOLERANCE, HIT_TOLERANCE, Tolerance, recall_margins
from harness.analysis.mean_difference import MeanComparison, MeanDifference, Sides, Verdict, View, layers_where

__all__ = [
    "Agreement",
    "MeanComparison",
    "SampleChange",
    "Verdict",
    "View",
    "combine_verdicts",
    "judge_agreement",
    "judge_recall",
]

RECALL_GUARD = 0.5
_WORST = 5


@dataclass(frozen=True, slots=True)
class SampleChange:
    """The largest change of one sample: row `index`, `layer`, and the signed `amount`, measured minus baseline."""

    index: int
    layer: int
    amount: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """The verdict on one measure against its baseline.

    `reproduced` is True if the samples reproduce, and None if that was not tested. The per-sample comparison is exact
    even if the means are inconclusive: images exchanged between samples do not change a mean.

    `mean` is the comparison of means that decided: `level` or `shape` (None if shapes are not compared). `layers` are
    the layers that differ. If the measure does not differ but fails to reproduce, they are the layers at which a sample
    exceeds the tolerance.

    `beyond_tolerance` counts the samples that exceed `tolerance`, out of `compared` common samples. `worst_samples`
    holds the largest of these changes. `largest` is the largest absolute change of any sample at any point, None if no
    samples were compared. `reason` states why reproduction was not tested, and is empty if it was.
    """

    verdict: Verdict
    mean: MeanComparison
    level: MeanComparison
    shape: MeanComparison | None
    layers: tuple[int, ...]
    reason: str
    tolerance: Tolerance
    reproduced: bool | None = None
    beyond_tolerance: int = 0
    compared: int = 0
    worst_samples: tuple[SampleChange, ...] = ()
    largest: float | None = None


def judge_agreement(
    sides: Sides,
    margin: npt.ArrayLike,
    *,
    alpha_diff: float,
    tolerance: Tolerance = CURVE_TOLERANCE,
    reproducible: bool = True,
    reason: str = "",
    shape: bool = True,
    guard: float = 0.0,
) -> Agreement:
    """Return the verdict on a measure: reproduces, else differs, else equivalent, else inconclusive.

    Reproduces: every sample is within `tolerance`. Differs: in one view, some layer's mean difference exceeds its
    margin by more than the simultaneous bound. Equivalent: in every view, the confidence interval of each layer's
    difference lies within its margin. `alpha_diff` covers all views together.

    Args:
        sides: the run and its baseline. Fewer than 32 paired samples have their means compared as unpaired, but are
            still tested for reproduction.
        margin: one value, or one per point.
        alpha_diff: probability of a false "differs": the run's, divided by the number of declared assertions.
        tolerance: per-sample tolerance for this pair of environments.
        reproducible: False if the samples are not expected to reproduce (another data type, other inputs).
        reason: why they are not expected to reproduce.
        shape: True to compare the shapes as well.
        guard: the verdict must survive one added sample with difference +guard, and one with -guard.

    Raises:
        ValueError: there are fewer than two independent rows, or a margin is not positive.
    """
    margins = np.broadcast_to(np.asarray(margin, dtype=np.float64), sides.measured.shape[1:])
    if not (margins > 0.0).all():
        raise ValueError("an equivalence margin must be positive at every layer.")
    views = (View.LEVEL, View.SHAPE) if shape else (View.LEVEL,)
    compared = {
        view: MeanDifference.from_sides(sides, view).compare(margins, alpha_diff / len(views), guard) for view in views
    }
    decisive = _decisive(list(compared.values()))
    agreement = Agreement(
        verdict=decisive.verdict,
        mean=decisive,
        level=compared[View.LEVEL],
        shape=compared.get(View.SHAPE),
        layers=decisive.layers,
        reason=reason if sides.paired else reason or "the samples are not the same",
        tolerance=tolerance,
    )
    return (
        _reproduction(agreement, sides.measured - sides.baseline, tolerance, reproducible)
        if sides.paired
        else agreement
    )


def judge_recall(sides: Sides, **options: Any) -> Agreement:
    """Return the verdict on LogitLens recall per sample (samples, points), with values in [0, 1].

    Recall reproduces if 99 % of the samples have the same recall at every layer. The margins are 0.05, and 0.02 at the
    last point. The variance does not show a loss confined to a few samples. The verdict must therefore survive one
    added sample whose recall differs by +0.5, and one by -0.5. In clusters of two, such a sample shifts its cluster's
    mean by half of that.

    Args:
        sides: the run and its baseline.
        **options: passed to `judge_agreement`.

    Raises:
        ValueError: as in `judge_agreement`.
    """
    # A sample is only a part of an independent row: a word lost in one of two captions halves in their mean.
    guard = RECALL_GUARD * (1.0 if sides.clusters is None else len(set(sides.clusters)) / len(sides.measured))
    margins = recall_margins(sides.measured.shape[1])
    return judge_agreement(sides, margins, tolerance=HIT_TOLERANCE, shape=False, guard=guard, **options)


def combine_verdicts(verdicts: list[Verdict]) -> Verdict:
    """Return the combined verdict: differs if any comparison differs, else inconclusive if any is, and so on."""
    order = (Verdict.DIFFERS, Verdict.INCONCLUSIVE, Verdict.EQUIVALENT, Verdict.REPRODUCES)
    return next(verdict for verdict in order if verdict in verdicts)


def _decisive(comparisons: list[MeanComparison]) -> MeanComparison:
    """Return the first comparison with the combined verdict, `n_needed` being the largest of all such comparisons."""
    verdict = combine_verdicts([c.verdict for c in comparisons])
    deciding = [c for c in comparisons if c.verdict is verdict]
    needed = [c.n_needed for c in deciding if c.n_needed is not None]
    return replace(deciding[0], n_needed=max(needed) if len(needed) == len(deciding) else None)


def samples_reproduce(change: FloatArray, tolerance: Tolerance) -> bool:
    """Return True if enough samples are within the tolerance, given one measure's changes (samples, points).

    Raises:
        ValueError: the tolerance has another number of samples.
    """
    return _enough(_exceeds(change, tolerance), tolerance)


def _exceeds(change: FloatArray, tolerance: Tolerance) -> BoolArray:
    """Return True where a sample exceeds its tolerance, (samples, points)."""
    amounts = np.asarray(tolerance.amount, dtype=np.float64)
    if amounts.ndim and len(amounts) != len(change):
        raise ValueError(f"the tolerance has {len(amounts)} amounts for {len(change)} samples.")
    return np.asarray(np.abs(change) > amounts.reshape(-1, 1))


def _enough(exceeds: BoolArray, tolerance: Tolerance) -> bool:
    return bool(np.mean(~exceeds.any(axis=1)) >= tolerance.share)


def _reproduction(agreement: Agreement, change: FloatArray, tolerance: Tolerance, reproducible: bool) -> Agreement:
    exceeds = _exceeds(change, tolerance)
    beyond_tolerance = exceeds.any(axis=1)
    layer = np.argmax(np.abs(change), axis=1)
    exceeding_size = np.where(beyond_tolerance, np.abs(change).max(axis=1), -1.0)
    worst = [int(i) for i in np.argsort(-exceeding_size, kind="stable")[: min(_WORST, int(beyond_tolerance.sum()))]]
    agreement = replace(
        agreement,
        beyond_tolerance=int(beyond_tolerance.sum()),
        compared=len(change),
        worst_samples=tuple(SampleChange(i, int(layer[i]), float(change[i, layer[i]])) for i in worst),
        largest=float(np.abs(change).max()),
    )
    if reproducible:
        agreement = replace(agreement, reproduced=_enough(exceeds, tolerance))
    if agreement.reproduced:
        return replace(agreement, verdict=Verdict.REPRODUCES, layers=())
    not_the_same = agreement.verdict is Verdict.INCONCLUSIVE and agreement.reproduced is False
    if agreement.verdict is Verdict.EQUIVALENT or not_the_same:
        return replace(agreement, layers=layers_where(np.asarray(exceeds.any(axis=0))))
    return agreement
