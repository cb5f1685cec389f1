"""The decision rules, called with two arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy.typing as npt

from harness.analysis import agreement, boundary_agreement, interval_agreement
from harness.analysis.curves import Clusters
from harness.analysis.mean_difference import Sides

Agreement = TypeVar("Agreement")


def _accept_arrays(decide: Callable[..., Agreement]) -> Callable[..., Agreement]:
    def decided(
        measured: npt.ArrayLike,
        baseline: npt.ArrayLike,
        *margins: Any,
        paired: bool,
        clusters: Clusters | None = None,
        baseline_clusters: Clusters | None = None,
        **options: Any,
    ) -> Agreement:
        return decide(Sides.from_curves(measured, baseline, paired, clusters, baseline_clusters), *margins, **options)

    return decided


judge_agreement = _accept_arrays(agreement.judge_agreement)
judge_recall = _accept_arrays(agreement.judge_recall)
judge_boundaries = _accept_arrays(boundary_agreement.judge_boundaries)
judge_intervals = _accept_arrays(interval_agreement.judge_intervals)
