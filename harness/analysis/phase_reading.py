"""Phase boundaries and confirmed segments of one pair's curves, the input of the claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.analysis.control_difference import difference_rows
from harness.analysis.curves import Clusters, CurveSummary, FloatArray, cluster_means, summarise
from harness.analysis.knockout_reading import KnockoutReading
from harness.analysis.segments import (
    BoundedRises,
    ConfirmedSegments,
    bounded_rises,
    confirm_segments,
    declared_prominence,
)
from harness.analysis.turning_points import Boundaries, boundary_intervals


@dataclass(frozen=True, slots=True, eq=False)
class PhaseReading:
    """The evidence for all claims of one pair, made by `read_phases`.

    `boundaries` split the mean inter-modal curve into four monotone segments, the first one rising. `any_segments` is
    its longest confirmed chain of segments; `rising_segments` is the longest one that starts with a rise.

    `rows` holds `inter`, `image`, `text` and `recall` as independent rows (n, points), each sorted separately. `recall`
    is missing if it was not measured, and `no_recall` states why. `control_differences` holds, per control, the first
    three minus the control's on its samples. `recall_chance_difference` is recall minus the recall of another sample's
    words, None if that was not measured. `knockout` holds the losses under attention knockout, None without.
    """

    rows: Mapping[str, FloatArray]
    summary: CurveSummary
    boundaries: Boundaries
    rises: BoundedRises
    any_segments: ConfirmedSegments
    rising_segments: ConfirmedSegments
    alpha: float
    control_differences: Mapping[str, Mapping[str, FloatArray]]
    recall_chance_difference: FloatArray | None
    no_recall: str = ""
    knockout: KnockoutReading | None = None

    @property
    def last(self) -> int:
        """Index L of the last residual point."""
        return self.summary.points - 1

    @property
    def turning_layers(self) -> tuple[int, ...]:
        """Layers where one phase ends and the next begins."""
        return tuple(int(turn.estimate) for turn in self.boundaries.turning_points)

    @property
    def phase_ends(self) -> tuple[int, ...]:
        """Layers where phases begin or end, including both ends of the curve."""
        return 0, *self.turning_layers, self.last

    @property
    def confirmed(self) -> tuple[bool, bool, bool, bool]:
        """True for each phase whose change of the mean inter-modal curve is confirmed, in the order I to IV.

        The simultaneous lower bound of the phase's change, between its own ends and in its own direction (up, down,
        up, down), must exceed the declared prominence: the test of the claims. Four confirmed phases are a confirmed
        chain of four segments. A phase that is not confirmed is only the best fit, and so are the cuts at its ends.
        """
        prominence = declared_prominence(self.summary.mean)

        def exceeds(phase: int, direction: int) -> bool:
            _, low, high = self.rises.between(*self.phase_layers(phase))
            return (low if direction > 0 else -high) > prominence

        return exceeds(0, 1), exceeds(1, -1), exceeds(2, 1), exceeds(3, -1)

    def phase_layers(self, phase: int) -> tuple[int, int]:
        """Return the first and last layer of phase 0..3."""
        return self.phase_ends[phase], self.phase_ends[phase + 1]


def read_phases(
    inter: npt.ArrayLike,
    image: npt.ArrayLike,
    text: npt.ArrayLike,
    recall: npt.ArrayLike | None,
    clusters: Clusters | None = None,
    alpha: float = 0.01,
    controls: Mapping[str, Mapping[str, npt.ArrayLike]] | None = None,
    recall_chance: npt.ArrayLike | None = None,
    no_recall: str = "",
    control_rows: Mapping[str, Sequence[int]] | None = None,
) -> PhaseReading:
    """Return the phase boundaries, the confirmed segments and the rows for judging the claims.

    Args:
        inter: inter-modal similarity (samples, points), at least five points.
        image: similarity within the image tokens, same shape.
        text: similarity within the text tokens, same shape.
        recall: LogitLens recall per sample, same shape; None if it was not measured.
        clusters: one label per sample.
        alpha: error of each bound; bounds on the inter-modal curve hold for all pairs of layers at once.
        controls: `inter`, `image` and `text` per control, for the same samples or those in `control_rows`.
        recall_chance: recall of another sample's words, for the same samples.
        no_recall: why recall was not measured.
        control_rows: per control, the index of the sample of each of its rows.

    Raises:
        ValueError: as in `summarise`, or shapes differ, or there are too few points for four segments.
    """
    curves = {"inter": inter, "image": image, "text": text}
    if recall is not None:
        curves["recall"] = recall
    shapes = {name: np.shape(curve) for name, curve in curves.items()}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"the curves of a claim must have the same shape, not {shapes}.")
    rows = {name: cluster_means(curve, clusters, name) for name, curve in curves.items()}
    summary = summarise(rows["inter"])
    rises = bounded_rises(summary, alpha)
    prominence = declared_prominence(summary.mean)
    return PhaseReading(
        rows=rows,
        summary=summary,
        boundaries=boundary_intervals(rows["inter"], segments=4, start=1, level=1.0 - alpha),
        rises=rises,
        any_segments=confirm_segments(rises, prominence, 0),
        rising_segments=confirm_segments(rises, prominence, 1),
        alpha=alpha,
        control_differences={
            control: {
                name: difference_rows(curves[name], control_curves[name], clusters, (control_rows or {}).get(control))
                for name in ("inter", "image", "text")
            }
            for control, control_curves in (controls or {}).items()
        },
        recall_chance_difference=None
        if recall is None or recall_chance is None
        else difference_rows(recall, recall_chance, clusters),
        no_recall=no_recall,
    )
