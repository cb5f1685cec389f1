"""The one decision rule: does a measure reproduce its baseline, is it equivalent to it, or does it differ?"""

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
    """The largest change of one sample: row `index`, `layer`, and the signed `amount` now minus baseline."""

    index: int
    layer: int
    amount: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """The verdict on one measure against its baseline.

    `reproduced` answers the first question by itself, None where it could not be asked: it is certain even where the
    means are inconclusive (pictures exchanged between the samples move no mean).
    `mean` is the comparison of means that decided, one of `level` and `shape` (None where shape is not asked for).
    `layers` are those that differ; of another measure that does not reproduce, those at which a sample is beyond the
    tolerance. `beyond_tolerance` counts such samples among the `compared` common ones, and `worst_samples` are the
    largest of them; `largest` is the largest absolute change of any sample at any point, None where none were compared.
    `reason` says why reproduction could not be asked, and is empty where it was. `tolerance` is that of a sample.
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
    """Return the verdict on a measure: reproduces, equivalent, differs or inconclusive, asked in this order.

    Reproduces: sample by sample within `tolerance`. Differs: in one of the views some layer's mean difference exceeds
    its margin by more than the simultaneous bound. Equivalent: in every view each layer's difference is certainly
    within its margin. `alpha_diff` is spent on all views together.

    Args:
        sides: the run and its baseline. Fewer than 32 paired samples are compared in the mean as if they were not
            paired, but are still asked whether they reproduce.
        margin: one value, or one per point.
        alpha_diff: probability of a false "differs", the run's divided by the number of declared assertions.
        tolerance: of the pair of environments.
        reproducible: False where the two are not expected to be the same (other data type, other inputs).
        reason: why not.
        shape: compare the shapes as well.
        guard: the verdict must survive one added sample whose difference is plus, and one whose is minus, this.

    Raises:
        ValueError: fewer than two independent rows, or a margin not positive.
    """
    margins = np.broadcast_to(np.asarray(margin, dtype=np.float64), sides.measured.shape[1:])
    if not (margins > 0.0).all():
        raise ValueError("an equivalence margin must be positive at every layer.")
    views = (View.LEVEL, View.SHAPE) if shape else (View.LEVEL,)
    compared = {
        view: MeanDifference.from_sides(sides, view).compare(margins, alpha_diff / len(views), guard) for view in views
    }
    decisive = _decisive(list(compared.values()))
    found = Agreement(
        verdict=decisive.verdict,
        mean=decisive,
        level=compared[View.LEVEL],
        shape=compared.get(View.SHAPE),
        layers=decisive.layers,
        reason=reason if sides.paired else reason or "the samples are not the same",
        tolerance=tolerance,
    )
    return _reproduction(found, sides.measured - sides.baseline, tolerance, reproducible) if sides.paired else found


def judge_recall(sides: Sides, **options: Any) -> Agreement:
    """Return the verdict on LogitLens recall per sample (samples, points), values in [0, 1]; `options` are `agree`'s.

    Reproduces where 99 % of the samples have the same recall at every layer; margins 0.05, at the last point 0.02. A
    loss confined to few samples shows in no variance estimate, so the verdict must survive one added sample whose
    recall differs by +0.5, and one by -0.5; in clusters of two such a sample moves its cluster by half of that.

    Raises:
        ValueError: as `agree`.
    """
    # One sample is that much of an independent row: a word lost in one of two captions moves their mean by half.
    guard = RECALL_GUARD * (1.0 if sides.clusters is None else len(set(sides.clusters)) / len(sides.measured))
    margins = recall_margins(sides.measured.shape[1])
    return judge_agreement(sides, margins, tolerance=HIT_TOLERANCE, shape=False, guard=guard, **options)


def combine_verdicts(verdicts: list[Verdict]) -> Verdict:
    """Return the verdict on several comparisons together: one that differs decides, then one that is undecided."""
    order = (Verdict.DIFFERS, Verdict.INCONCLUSIVE, Verdict.EQUIVALENT, Verdict.REPRODUCES)
    return next(verdict for verdict in order if verdict in verdicts)


def _decisive(comparisons: list[MeanComparison]) -> MeanComparison:
    """The first of those that share the combined verdict, so the level before the shape; it needs the larger n."""
    verdict = combine_verdicts([c.verdict for c in comparisons])
    deciding = [c for c in comparisons if c.verdict is verdict]
    needed = [c.n_needed for c in deciding if c.n_needed is not None]
    return replace(deciding[0], n_needed=max(needed) if len(needed) == len(deciding) else None)


def samples_reproduce(change: FloatArray, tolerance: Tolerance) -> bool:
    """Return whether enough samples are the same, of the changes (samples, points) of one measure.

    Raises:
        ValueError: the tolerance is of other samples.
    """
    return _enough(_exceeds(change, tolerance), tolerance)


def _exceeds(change: FloatArray, tolerance: Tolerance) -> BoolArray:
    """Where a sample is beyond its tolerance, (samples, points)."""
    amounts = np.asarray(tolerance.amount, dtype=np.float64)
    if amounts.ndim and len(amounts) != len(change):
        raise ValueError(f"the tolerance has {len(amounts)} amounts for {len(change)} samples.")
    return np.asarray(np.abs(change) > amounts.reshape(-1, 1))


def _enough(exceeds: BoolArray, tolerance: Tolerance) -> bool:
    return bool(np.mean(~exceeds.any(axis=1)) >= tolerance.share)


def _reproduction(found: Agreement, change: FloatArray, tolerance: Tolerance, reproducible: bool) -> Agreement:
    exceeds = _exceeds(change, tolerance)
    beyond_tolerance = exceeds.any(axis=1)
    layer = np.argmax(np.abs(change), axis=1)
    size = np.where(beyond_tolerance, np.abs(change).max(axis=1), -1.0)
    worst = [int(i) for i in np.argsort(-size, kind="stable")[: min(_WORST, int(beyond_tolerance.sum()))]]
    found = replace(
        found,
        beyond_tolerance=int(beyond_tolerance.sum()),
        compared=len(change),
        worst_samples=tuple(SampleChange(i, int(layer[i]), float(change[i, layer[i]])) for i in worst),
        largest=float(np.abs(change).max()),
    )
    if reproducible:
        found = replace(found, reproduced=_enough(exceeds, tolerance))
    if found.reproduced:
        return replace(found, verdict=Verdict.REPRODUCES, layers=())
    not_the_same = found.verdict is Verdict.INCONCLUSIVE and found.reproduced is False
    if found.verdict is Verdict.EQUIVALENT or not_the_same:
        return replace(found, layers=layers_where(np.asarray(exceeds.any(axis=0))))
    return found
