"""Mean differences between two measurements and their verdict: equivalent, different or inconclusive."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from harness.analysis.curves import BoolArray, Clusters, CurveSummary, FloatArray, as_curves, summarise
from harness.analysis.margins import MIN_PAIRS
from harness.analysis.quantiles import student_upper
from harness.analysis.simultaneous import simultaneous_bound

#: Error of "equivalent", one-sided.
ALPHA_EQUIVALENT = 0.025


class Verdict(StrEnum):
    """Result of a regression check on one measure, from the closest agreement to none.

    A family of measures that are all absent on one side is not compared.
    """

    REPRODUCES = "reproduces"
    EQUIVALENT = "equivalent"
    DIFFERS = "differs"
    INCONCLUSIVE = "inconclusive"
    NOT_COMPARED = "not compared"


class View(StrEnum):
    """Form in which a curve is compared: its values, or its values minus each sample's mean over the layers."""

    LEVEL = "level"
    SHAPE = "shape"


@dataclass(frozen=True, slots=True)
class MeanComparison:
    """The verdict on the mean difference in one view: equivalent, different or inconclusive.

    `layers` are the layers that differ, or the layers not shown to be equivalent if the verdict is inconclusive.
    `layer` has the largest excess over its `margin`. `effect` is its mean difference, measured minus baseline, with an
    `interval` that holds for all layers at once with `confidence`. `n_needed` estimates the number of samples that
    would decide. It is None if the verdict is not inconclusive, or if no number would suffice.
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

    `paired` is True if row by row the samples and their model inputs are the same. `in_pairs` is True if there are also
    enough of them for a comparison in pairs.
    """

    measured: FloatArray
    baseline: FloatArray
    clusters: Clusters | None
    baseline_clusters: Clusters | None
    paired: bool

    @classmethod
    def from_curves(
        cls,
        measured: npt.ArrayLike,
        baseline: npt.ArrayLike,
        paired: bool,
        clusters: Clusters | None = None,
        baseline_clusters: Clusters | None = None,
    ) -> Sides:
        """Return the two sides; if `paired`, `clusters` apply to both.

        Raises:
            ValueError: as in `as_curves`, or the numbers of points differ, or of samples if `paired`.
        """
        x, y = as_curves(measured, "the measure"), as_curves(baseline, "its baseline")
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
        """Return the summaries of the run and of the baseline."""
        measured = summarise(self.measured, self.clusters, "the measure")
        return measured, summarise(self.baseline, self.baseline_clusters, "its baseline")


def samples_to_decide(n: int, gap: float, reach: float) -> int | None:
    """Return about how many samples decide, for an interval of half-width `reach` and a margin `gap` away.

    Intervals shrink with the square root of n. None if the estimate lies too near the margin for any number.
    """
    return int(np.ceil(n * max((reach / gap) ** 2, 1.05))) if gap > 0.01 * reach else None


@dataclass(frozen=True, slots=True, eq=False)
class MeanDifference:
    """The mean difference at every layer with the variance of one row on each side.

    All arrays are (points,), except `covariance` of the mean difference, (points, points). In a paired comparison
    `variance` is the variance of the differences and `other_variance` is zero.
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
        """Return the mean difference, measured minus baseline, in one view."""
        if view is View.SHAPE:
            measured, baseline = (rows - rows.mean(axis=1, keepdims=True) for rows in (sides.measured, sides.baseline))
            sides = replace(sides, measured=measured, baseline=baseline)
        if sides.in_pairs:
            summary = summarise(sides.measured - sides.baseline, sides.clusters, "the difference to the baseline")
            nothing = np.zeros(summary.points)
            variance = np.diag(summary.covariance)
            return cls(
                view, True, summary.mean, variance, summary.n, nothing, summary.n, summary.covariance / summary.n
            )
        summary, baseline_summary = sides.summaries()
        return cls(
            view=view,
            paired=False,
            difference=summary.mean - baseline_summary.mean,
            variance=np.diag(summary.covariance),
            n=summary.n,
            other_variance=np.diag(baseline_summary.covariance),
            other_n=baseline_summary.n,
            covariance=summary.covariance / summary.n + baseline_summary.covariance / baseline_summary.n,
        )

    @property
    def standard_error(self) -> FloatArray:
        """Standard error of the mean difference, (points,)."""
        return np.sqrt(self.variance / self.n + self.other_variance / self.other_n)

    @property
    def df(self) -> FloatArray:
        """Welch's degrees of freedom at every layer, n - 1 if paired."""
        measured_error, baseline_error = self.variance / self.n, self.other_variance / self.other_n
        least = np.full(len(measured_error), self.n - 1.0 if self.paired else min(self.n, self.other_n) - 1.0)
        denominator = measured_error**2 / (self.n - 1.0) + baseline_error**2 / max(self.other_n - 1.0, 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            welch = (measured_error + baseline_error) ** 2 / denominator
        return np.where(denominator > 0.0, welch, least)

    def critical(self, alpha: float) -> float:
        """Return the standard errors that the mean difference exceeds nowhere with probability 1 - `alpha`."""
        error = self.standard_error
        df = float(self.df[error > 0.0].min()) if (error > 0.0).any() else self.n - 1.0
        return simultaneous_bound(self.covariance, df, alpha)

    def with_sample(self, difference: float) -> MeanDifference:
        """Return a copy with one more row on the run's side, which has this difference at every layer."""
        gap = difference - self.difference
        squares = (self.n - 1.0) * self.variance + self.n / (self.n + 1.0) * gap**2
        return replace(self, difference=self.difference + gap / (self.n + 1.0), variance=squares / self.n, n=self.n + 1)

    def decide(self, critical: float, margins: FloatArray) -> tuple[Verdict, BoolArray, BoolArray]:
        """Return the verdict, the layers that differ and the layers that are equivalent."""
        size, error = np.abs(self.difference), self.standard_error
        differs = size - critical * error > margins
        equivalent = size + student_upper(ALPHA_EQUIVALENT, self.df) * error < margins
        if differs.any():
            return Verdict.DIFFERS, differs, equivalent
        return Verdict.EQUIVALENT if equivalent.all() else Verdict.INCONCLUSIVE, differs, equivalent

    def guarded_verdict(self, critical: float, margins: FloatArray, guard: float) -> Verdict:
        """Return the verdict if it survives one more sample of +guard and one of -guard, else inconclusive."""
        verdict = self.decide(critical, margins)[0]
        for pseudo in (guard, -guard) if guard else ():
            if self.with_sample(pseudo).decide(critical, margins)[0] is not verdict:
                return Verdict.INCONCLUSIVE
        return verdict

    def samples_needed(self, critical: float, margins: FloatArray, guard: float) -> int | None:
        """Return about how many samples would decide, assuming unchanged differences and variances."""
        for factor in 1.05 ** np.arange(1, 142):
            larger = replace(self, n=self.n * factor, other_n=self.other_n * factor)
            if larger.guarded_verdict(critical, margins, guard) is not Verdict.INCONCLUSIVE:
                return int(np.ceil(self.n * factor))
        return None

    def compare(self, margins: FloatArray, alpha: float, guard: float) -> MeanComparison:
        """Return the verdict with its numbers; `alpha` is the error of "differs", all layers together."""
        error, critical = self.standard_error, self.critical(alpha)
        _, differs, equivalent = self.decide(critical, margins)
        verdict = self.guarded_verdict(critical, margins, guard)
        size = np.abs(self.difference)
        reach = -critical if verdict is Verdict.DIFFERS else student_upper(ALPHA_EQUIVALENT, self.df)
        layer = int(np.argmax(size + reach * error - margins))
        effect, width = float(self.difference[layer]), float(critical * error[layer])
        inconclusive = verdict is Verdict.INCONCLUSIVE
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
            n_needed=self.samples_needed(critical, margins, guard) if inconclusive else None,
        )
