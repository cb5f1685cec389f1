"""How far the same samples move when only the environment changes: what margins and tolerances must allow for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.analysis.curves import Clusters, as_curves, cluster_means
from harness.analysis.margins import CURVE_TOLERANCE, Tolerance

NOISE_FACTOR = 3.0
#: The data type whose rounding a comparison of samples does not see.
FULL = "float32"


@dataclass(frozen=True, slots=True)
class Noise:
    """How far one measure moved in one calibration run.

    `mean` is the largest shift of a layer's mean, `sample` the largest of one sample at one layer, both in the
    measure's unit; `changed` is the share of samples that moved at all.
    """

    mean: float
    sample: float
    changed: float


@dataclass(frozen=True, slots=True)
class Variant:
    """One calibration run: the data type it ran in, and the noise of every measure."""

    dtype: str
    noise: Mapping[str, Noise]


@dataclass(frozen=True, slots=True)
class Calibration:
    """The calibration runs of a baseline by name; empty where it was not calibrated."""

    variants: Mapping[str, Variant] = field(default_factory=dict)

    def mean_noise(self, measure: str) -> float:
        """The largest shift of a layer's mean over all runs, nu; 0 where there are none."""
        return max((one.noise[measure].mean for one in self.variants.values() if measure in one.noise), default=0.0)

    def sample_noise(self, measure: str, *, narrow: bool) -> float | None:
        """The largest change of one sample over all runs, or with `narrow` False over those in float32.

        None where a narrow type is asked for and neither the baseline nor a run of it was in one.
        """
        runs = [one for one in self.variants.values() if measure in one.noise and (narrow or one.dtype == FULL)]
        if narrow and all(one.dtype == FULL for one in runs):
            return None
        return max((one.noise[measure].sample for one in runs), default=0.0)

    def tolerance(self, measure: str, *, narrow: bool) -> Tolerance | None:
        """When a sample of this measure is the same: within three times the noise of one, and never under 0.001.

        The floor is declared: calibration on one machine does not know the kernels of the next.

        Args:
            measure: a curve's name.
            narrow: whether one of the two measurements is in a 16-bit type.

        Returns:
            None where that was not calibrated.
        """
        noise = self.sample_noise(measure, narrow=narrow)
        if noise is None:
            return None
        return Tolerance(max(float(np.max(CURVE_TOLERANCE.amount)), NOISE_FACTOR * noise), CURVE_TOLERANCE.share)

    def record(self) -> dict[str, Any]:
        """The calibration as JSON types, noise to three digits."""
        return {
            name: {
                "dtype": run.dtype,
                "noise": {
                    measure: {key: float(f"{value:.3g}") for key, value in asdict(noise).items()}
                    for measure, noise in run.noise.items()
                },
            }
            for name, run in self.variants.items()
        }

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Calibration:
        """The calibration that `record` was made of.

        Raises:
            KeyError, TypeError: it is none.
        """
        return cls(
            {
                name: Variant(run["dtype"], {measure: Noise(**noise) for measure, noise in run["noise"].items()})
                for name, run in record.items()
            }
        )


def noise_between(run: npt.ArrayLike, baseline: npt.ArrayLike, clusters: Clusters | None = None) -> Noise:
    """Returns how far a measure (samples, points) moved between two runs of the same samples, rows in one order.

    Raises:
        ValueError: as `as_curves`, or arrays of unequal shape.
    """
    x, y = as_curves(run, "the calibration run"), as_curves(baseline, "its baseline")
    if x.shape != y.shape:
        raise ValueError(f"a calibration run of shape {x.shape} is not of the same samples as a baseline of {y.shape}.")
    change = x - y
    shift = cluster_means(change, clusters, "the calibration noise").mean(axis=0)
    return Noise(
        mean=float(np.abs(shift).max()),
        sample=float(np.abs(change).max()),
        changed=float(np.mean((change != 0.0).any(axis=1))),
    )
