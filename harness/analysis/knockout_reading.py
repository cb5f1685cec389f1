"""The losses under attention knockout with their intervals, and the layer from which on the image is not needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from harness.analysis.curves import Clusters, FloatArray, cluster_means, summarise
from harness.analysis.knockout_windows import knockout_windows
from harness.analysis.simultaneous import simultaneous_bound
from harness.analysis.turning_points import DRAWS, BoundaryInterval, outer_quantiles, resampled_means

#: The largest share of the loss without the image at which the image counts as no longer needed.
NEEDED_SHARE = 0.01
#: The path of all tokens after the image.
LATER = "later"


@dataclass(frozen=True, slots=True)
class Loss:
    """A mean loss of log-likelihood in nats: `layers` blocked (first and last, from 1), with its interval.

    `share` is the loss divided by the loss without the image. Shares need not sum to 1: half an image may mislead more
    than none, and a window's loss may be negative if the image misleads. It is None if the loss without the image is
    not confirmed. `per_token` is the mean loss per token of the caption.
    """

    layers: tuple[int, int]
    effect: float
    interval: tuple[float, float]
    share: float | None
    per_token: float


@dataclass(frozen=True, slots=True, eq=False)
class KnockoutReading:
    """The losses of a pair by path, control and first blocked layer.

    `total` is the loss if the image is blocked in all layers. `paths` holds the losses per window for real images, by
    path, and `controls` those of the path `later`, by control. `onward` holds the losses if all layers from one on are
    blocked. `last_needed` is the first layer from which on blocking costs less than `NEEDED_SHARE` of the total; depth
    + 1 if there is none, and None if the total is not confirmed. Intervals hold for all windows at once, at `level`.
    `n` counts independent samples. `samples` is None in a reading from a record.
    """

    window: int
    n: int
    total: Loss
    paths: Mapping[str, tuple[Loss, ...]]
    controls: Mapping[str, tuple[Loss, ...]]
    onward: tuple[Loss, ...]
    last_needed: BoundaryInterval | None
    level: float
    samples: KnockoutSamples | None = None


@dataclass(frozen=True, slots=True, eq=False)
class KnockoutSamples:
    """The losses per sample in nats, for the claims.

    `paths`: by path, the loss at each layer, of its window, (n, L). `controls`: the same by control and path; NaN for
    samples without it. `onward`: the losses if all layers from each of `starts` (from 1) on are blocked, (n, starts).
    `tokens`: the number of the caption's tokens, (n,). `clusters`: a label per sample.
    """

    window: int
    starts: tuple[int, ...]
    paths: Mapping[str, FloatArray]
    controls: Mapping[str, Mapping[str, FloatArray]]
    onward: FloatArray
    tokens: FloatArray
    clusters: Clusters

    @property
    def depth(self) -> int:
        """The number L of decoder layers."""
        return int(self.paths[LATER].shape[1])

    def per_layer(self, losses: FloatArray) -> FloatArray:
        """Return losses (samples, L) divided by the number of layers in the window of each layer."""
        counts = [len(window) for window in knockout_windows(self.depth, self.window) for _ in window]
        return np.asarray(losses / np.array(counts))


def read_knockout(samples: KnockoutSamples, alpha: float = 0.01) -> KnockoutReading:
    """Return the mean losses with intervals.

    Args:
        samples: the losses per sample.
        alpha: error of each family of intervals.

    Raises:
        ValueError: fewer than two independent samples.
    """
    depth, windows = samples.depth, knockout_windows(samples.depth, samples.window)
    firsts = [window.start for window in windows]
    ranges = [(window.start + 1, window.stop) for window in windows]
    tokens = samples.tokens
    total = _losses(samples.onward[:, :1], [(1, depth)], tokens, samples.clusters, alpha, None)[0]
    scale = total.effect if total.interval[0] > 0.0 else None
    total = replace(total, share=None if scale is None else 1.0)

    def losses(values: FloatArray, layers: Sequence[tuple[int, int]]) -> tuple[Loss, ...]:
        rows = np.flatnonzero(np.isfinite(values).all(axis=1)).tolist()
        return _losses(values[rows], layers, tokens[rows], [samples.clusters[row] for row in rows], alpha, scale)

    return KnockoutReading(
        window=samples.window,
        n=len(cluster_means(samples.onward, samples.clusters)),
        total=total,
        paths={path: losses(values[:, firsts], ranges) for path, values in samples.paths.items()},
        controls={
            control: losses(values[control if control in values else LATER][:, firsts], ranges)
            for control, values in samples.controls.items()
        },
        onward=losses(samples.onward, [(start, depth) for start in samples.starts]),
        last_needed=None if scale is None else _last_needed(samples, alpha),
        level=1.0 - alpha,
        samples=samples,
    )


def _losses(
    values: FloatArray,
    layers: Sequence[tuple[int, int]],
    tokens: FloatArray,
    clusters: Clusters,
    alpha: float,
    scale: float | None,
) -> tuple[Loss, ...]:
    # A column of zeros, because summaries need two columns; it has no variance and changes no bound.
    summary = summarise(np.column_stack([values, np.zeros(len(values))]), clusters)
    width = simultaneous_bound(summary.covariance, summary.df, alpha) * summary.standard_error
    per_token = cluster_means(np.column_stack([values / tokens[:, None], np.zeros(len(values))]), clusters).mean(0)
    return tuple(
        Loss(
            layers=span,
            effect=float(summary.mean[column]),
            interval=(float(summary.mean[column] - width[column]), float(summary.mean[column] + width[column])),
            share=None if scale is None else float(summary.mean[column] / scale),
            per_token=float(per_token[column]),
        )
        for column, span in enumerate(layers)
    )


def _last_needed(samples: KnockoutSamples, alpha: float) -> BoundaryInterval:
    """Return the first layer from which on blocking costs less than `NEEDED_SHARE`, with a percentile interval."""
    rows = cluster_means(samples.onward, samples.clusters)
    candidates = np.array([*samples.starts, samples.depth + 1])

    def first_unneeded(means: FloatArray) -> npt.NDArray[np.float64]:
        needed = means >= NEEDED_SHARE * means[:, :1]
        # The position after the last needed start.
        after = np.where(needed.any(1), needed.shape[1] - np.argmax(needed[:, ::-1], axis=1), 0)
        return candidates[after].astype(np.float64)

    estimate = first_unneeded(rows.mean(0)[None])[0]
    low, high = outer_quantiles(first_unneeded(resampled_means(rows, DRAWS, 0)), alpha / 2)
    return BoundaryInterval(float(estimate), low, high)
