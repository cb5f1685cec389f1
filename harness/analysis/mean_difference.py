"""Mean differences between two measurements, and what can be said of them: equivalent, different or undecided."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import stats

from harness.analysis.curves import BoolArray, Clusters, CurveSummary, FloatArray, as_curves, summarise
from harness.analysis.margins import MIN_PAIRS
from harness.analysis.simultaneous import simultaneous_bound

#: One-sided error of "equivalent".
ALPHA_EQUIVALENT = 0.025


class Verdict(StrEnum):
    """What a regression says of one measure, from the sharpest agreement to none."""

    REPRODUCES = "reproduces"
    EQUIVALENT = "equivalent"
    DIFFERS = "differs"
    INCONCLUSIVE = "inconclusive"


class View(StrEnum):
    """What of a curve is compared: its values, or its values less each sample's mean over the layers."""

    LEVEL = "level"
    SHAPE = "shape"


@dataclass(frozen=True, slots=True)
class MeanComparison:
    """Equivalent, different or undecided in the mean, in one view.

    `layers` are those that differ, or those that keep an inconclusive verdict from being equivalent. `layer` is the
    one with the largest excess over its `margin`; `effect` is its mean difference, now minus baseline, and `interval`
    the interval of it that holds for all layers at once with `confidence`. `n_needed` is about how many samples would
    decide, with the same differences; None where the verdict is not inconclusive, or no number would do.
    """

    view: View
    verdict: Verdict
    paired: bool
    n: int
    n_baseline: int
    layers: tuple[int, ...]
    layer: int
    effect: float
    interval: tuple[float, float]
    confidence: float
    margin: float
    n_needed: int | None


def layers_where(condition: BoolArray) -> tuple[int, ...]:
    """Return the layers at which `condition` (points,) holds."""
    return tuple(int(layer) for layer in np.flatnonzero(condition))


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """The curves (samples, points) of a run and of its baseline, with the labels of their clusters.

    `paired` says that row by row the samples are the same, with the same model inputs; `in_pairs` that they are also
    enough for a comparison in pairs.
    """

    measured: FloatArray
    baseline: FloatArray
    clusters: Clusters | None
    baseline_clusters: Clusters | None
    paired: bool

    @classmethod
    def from_curves(
        cls,
        now: npt.ArrayLike,
        baseline: npt.ArrayLike,
        paired: bool,
        clusters: Clusters | None = None,
        baseline_clusters: Clusters | None = None,
    ) -> Sides:
        """Return the two sides; where `paired`, `clusters` are those of both.

        Raises:
            ValueError: as `as_curves`, other points, or where `paired` other samples.
        """
        x, y = as_curves(now, "the measure"), as_curves(baseline, "its baseline")
        unlike = f"a measure of shape {x.shape} cannot be compared with a baseline of shape {y.shape}"
        if x.shape[1] != y.shape[1]:
            raise ValueError(f"{unlike}: not the same model.")
        if paired and len(x) != len(y):
            raise ValueError(f"{unlike}: a paired comparison needs the same samples.")
        return cls(x, y, clusters, clusters if paired else baseline_clusters, paired)

    @property
    def in_pairs(self) -> bool:
        """True if the samples are compared in pairs."""
        return self.paired and len(self.measured) >= MIN_PAIRS

    def summaries(self) -> tuple[CurveSummary, CurveSummary]:
        """Return the summary of either side."""
        now = summarise(self.measured, self.clusters, "the measure")
        return now, summarise(self.baseline, self.baseline_clusters, "its baseline")


def samples_to_decide(n: int, gap: float, reach: float) -> int | None:
    """Return about how many samples decide where an interval reaches `reach` and the margin is `gap` away.

    Intervals shrink with the root of n. None where the estimate lies so near the margin that no number would do.
    """
    return int(np.ceil(n * max((reach / gap) ** 2, 1.05))) if gap > 0.01 * reach else None


@dataclass(frozen=True, slots=True, eq=False)
class MeanDifference:
    """The mean difference at every layer with the variance of one row on each side.

    All arrays are (points,) but `covariance`, that of the mean difference, (points, points). A paired comparison has
    one side only: the variance of the differences; the other is zero.
    """

    view: View
    paired: bool
    difference: FloatArray
    variance: FloatArray
    n: float
    other_variance: FloatArray
    other_n: float
    covariance: FloatArray

    @classmethod
    def from_sides(cls, sides: Sides, view: View) -> MeanDifference:
        """Return the mean difference, now minus baseline, in one view."""
        if view is View.SHAPE:
            now, baseline = (rows - rows.mean(axis=1, keepdims=True) for rows in (sides.measured, sides.baseline))
            sides = replace(sides, measured=now, baseline=baseline)
        if sides.in_pairs:
            one = summarise(sides.measured - sides.baseline, sides.clusters, "the difference to the baseline")
            nothing = np.zeros(one.points)
            variance = np.diag(one.covariance)
            return cls(view, True, one.mean, variance, one.n, nothing, one.n, one.covariance / one.n)
        one, other = sides.summaries()
        return cls(
            view=view,
            paired=False,
            difference=one.mean - other.mean,
            variance=np.diag(one.covariance),
            n=one.n,
            other_variance=np.diag(other.covariance),
            other_n=other.n,
            covariance=one.covariance / one.n + other.covariance / other.n,
        )

    @property
    def standard_error(self) -> FloatArray:
        """Standard error of the mean difference, (points,)."""
        return np.sqrt(self.variance / self.n + self.other_variance / self.other_n)

    @property
    def df(self) -> FloatArray:
        """Welch's degrees of freedom at every layer; those of a paired comparison are n - 1."""
        one, other = self.variance / self.n, self.other_variance / self.other_n
        least = np.full(len(one), self.n - 1.0 if self.paired else min(self.n, self.other_n) - 1.0)
        denominator = one**2 / (self.n - 1.0) + other**2 / max(self.other_n - 1.0, 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            welch = (one + other) ** 2 / denominator
        return np.where(denominator > 0.0, welch, least)

    def with_sample(self, difference: float) -> MeanDifference:
        """Return the same with one more row, on this run's side, whose difference is given at every layer."""
        gap = difference - self.difference
        squares = (self.n - 1.0) * self.variance + self.n / (self.n + 1.0) * gap**2
        return replace(self, difference=self.difference + gap / (self.n + 1.0), variance=squares / self.n, n=self.n + 1)

    def decide(self, critical: float, margins: FloatArray) -> tuple[Verdict, BoolArray, BoolArray]:
        """Return the verdict with the layers that differ and those that are equivalent."""
        size, error = np.abs(self.difference), self.standard_error
        differs = size - critical * error > margins
        equivalent = size + stats.t.isf(ALPHA_EQUIVALENT, self.df) * error < margins
        if differs.any():
            return Verdict.DIFFERS, differs, equivalent
        return Verdict.EQUIVALENT if equivalent.all() else Verdict.INCONCLUSIVE, differs, equivalent

    def guarded_verdict(self, critical: float, margins: FloatArray, guard: float) -> Verdict:
        """Return the verdict if it survives one more sample of plus, and of minus, `guard`, else inconclusive."""
        verdict = self.decide(critical, margins)[0]
        for pseudo in (guard, -guard) if guard else ():
            if self.with_sample(pseudo).decide(critical, margins)[0] is not verdict:
                return Verdict.INCONCLUSIVE
        return verdict

    def samples_needed(self, critical: float, margins: FloatArray, guard: float) -> int | None:
        """Return about how many samples decide, if differences and variances stay as they are."""
        for factor in 1.05 ** np.arange(1, 142):
            larger = replace(self, n=self.n * factor, other_n=self.other_n * factor)
            if larger.guarded_verdict(critical, margins, guard) is not Verdict.INCONCLUSIVE:
                return int(np.ceil(self.n * factor))
        return None

    def compare(self, margins: FloatArray, alpha: float, guard: float) -> MeanComparison:
        """Return the verdict of the rule with its numbers; `alpha` is that of "differs", all layers together."""
        error = self.standard_error
        df = float(self.df[error > 0.0].min()) if (error > 0.0).any() else self.n - 1.0
        critical = simultaneous_bound(self.covariance, df, alpha)
        _, differs, equivalent = self.decide(critical, margins)
        verdict = self.guarded_verdict(critical, margins, guard)
        size = np.abs(self.difference)
        reach = -critical if verdict is Verdict.DIFFERS else stats.t.isf(ALPHA_EQUIVALENT, self.df)
        layer = int(np.argmax(size + reach * error - margins))
        effect, width = float(self.difference[layer]), float(critical * error[layer])
        undecided = verdict is Verdict.INCONCLUSIVE
        return MeanComparison(
            view=self.view,
            verdict=verdict,
            paired=self.paired,
            n=int(self.n),
            n_baseline=int(self.other_n),
            layers=layers_where(differs if verdict is Verdict.DIFFERS else ~equivalent),
            layer=layer,
            effect=effect,
            interval=(effect - width, effect + width),
            confidence=1.0 - alpha,
            margin=float(margins[layer]),
            n_needed=self.samples_needed(critical, margins, guard) if undecided else None,
        )
