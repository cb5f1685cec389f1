"""Calibration noise: how much the same samples change when only the environment changes.

Margins and tolerances must allow for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.analysis.curves import Clusters, as_curves, cluster_means
from harness.analysis.margins import Tolerance

NOISE_FACTOR = 3.0
#: Data types whose rounding is too small to show in a comparison of samples.
FULL_PRECISION = frozenset({"float32", "float64"})


@dataclass(frozen=True, slots=True)
class Noise:
    """The change of one measure in one calibration run.

    `mean` is the largest change of a layer's mean, `sample` the largest change of one sample at one layer, both in the
    measure's unit. `changed` is the share of samples with any change.
    """

    mean: float
    sample: float
    changed: float


@dataclass(frozen=True, slots=True)
class RunNoise:
    """A calibration run: its data type, the noise of every measure, and its device type if not the baseline's."""

    dtype: str
    noise: Mapping[str, Noise]
    device: str = ""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The calibration runs of a baseline by name; empty if it was not calibrated."""

    runs: Mapping[str, RunNoise] = field(default_factory=dict)

    def mean_noise(self, measure: str) -> float:
        """Return nu, the largest change of a layer's mean over all runs; 0 if there are none."""
        return max((run.noise[measure].mean for run in self.runs.values() if measure in run.noise), default=0.0)

    def sample_noise(self, measure: str, *, half_precision: bool, device: str | None = None) -> float | None:
        """Return the largest change of one sample over the calibration runs that apply.

        Args:
            measure: a curve's name.
            half_precision: True to include the 16-bit runs; False to use only runs in float32 or wider.
            device: use only the runs on this device type, empty for the baseline's own; None uses all.

        Returns:
            None if no run applies, or `half_precision` is set and no run is in 16 bits.
        """
        runs = [
            run
            for run in self.runs.values()
            if measure in run.noise and (half_precision or run.dtype in FULL_PRECISION) and device in (None, run.device)
        ]
        if half_precision and all(run.dtype in FULL_PRECISION for run in runs):
            return None
        return max((run.noise[measure].sample for run in runs), default=None)

    def tolerance(
        self, measure: str, *, half_precision: bool, declared: Tolerance, device: str | None = None
    ) -> Tolerance | None:
        """Return the per-sample tolerance of a measure: three times the noise of a sample, at least the declared one.

        The declared floor allows for other machines, whose kernels calibration on one machine does not cover.

        Args:
            measure: a curve's name.
            half_precision: True if one of the two measurements is in a 16-bit type.
            declared: the tolerance of the two environments without a calibration.
            device: as in `sample_noise`.

        Returns:
            None if `half_precision` and no 16-bit run was calibrated.
        """
        noise = self.sample_noise(measure, half_precision=half_precision, device=device)
        if noise is None:
            return None if half_precision else declared
        if NOISE_FACTOR * noise <= float(np.max(declared.amount)):
            return declared
        return replace(
            declared,
            amount=NOISE_FACTOR * noise,
            reason=f"{NOISE_FACTOR:g} x the calibrated noise of a sample, {noise:.2g}",
        )

    def record(self) -> dict[str, Any]:
        """Return the calibration as JSON types, noise to three digits."""
        return {
            name: {
                "dtype": run.dtype,
                **({"device": run.device} if run.device else {}),
                "noise": {
                    measure: {key: float(f"{value:.3g}") for key, value in asdict(noise).items()}
                    for measure, noise in run.noise.items()
                },
            }
            for name, run in self.runs.items()
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Calibration:
        """Return the calibration that `record` holds.

        Raises:
            KeyError, TypeError: the record is not a calibration.
        """
        return cls(
            {
                name: RunNoise(
                    run["dtype"],
                    {measure: Noise(**noise) for measure, noise in run["noise"].items()},
                    # Older files name the device only through the name of the run.
                    run.get("device", name if name == "cuda" else ""),
                )
                for name, run in record.items()
            }
        )


def noise_between(run: npt.ArrayLike, baseline: npt.ArrayLike, clusters: Clusters | None = None) -> Noise:
    """Return the change of a measure (samples, points) between two runs of the same samples in the same order.

    Raises:
        ValueError: as in `as_curves`, or the shapes differ.
    """
    x, y = as_curves(run, "the calibration run"), as_curves(baseline, "its baseline")
    if x.shape != y.shape:
        raise ValueError(f"a calibration run of shape {x.shape} does not match a baseline of shape {y.shape}.")
    change = x - y
    shift = cluster_means(change, clusters, "the calibration noise").mean(axis=0)
    return Noise(
        mean=float(np.abs(shift).max()),
        sample=float(np.abs(change).max()),
        changed=float(np.mean((change != 0.0).any(axis=1))),
    )
