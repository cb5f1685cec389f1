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
        return decide(Sides.of(measured, baseline, paired, clusters, baseline_clusters), *margins, **options)

    return decided


agree = _accept_arrays(agreement.agree)
agree_recall = _accept_arrays(agreement.agree_recall)
agree_boundaries = _accept_arrays(boundary_agreement.agree_boundaries)
agree_intervals = _accept_arrays(interval_agreement.agree_intervals)
