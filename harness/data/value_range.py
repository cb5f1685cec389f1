"""The range of an image's values, which decides their scale: white is 1, 255 or 65,535."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# Fractional values above 1 whose maximum is below this are high dynamic range, not eight-bit levels.
_LEAST_BRIGHTEST = 128.0
#: A 16-bit photograph uses at least a quarter of the range; lower maxima were written with 8 to 14 bits.
LEAST_SIXTEEN = 2**14


class RangeError(ValueError):
    """The values are not the levels of a photograph."""


@dataclass(slots=True)
class ValueRange:
    """The range of one channel's values, collected part by part.

    `below` is the largest positive value under 1, `above` the smallest value of at least 1. If both sides have equally
    many values, these two are the middle values of the median.
    """

    low: float = math.inf
    high: float = -math.inf
    finite: bool = True
    integral: bool = True
    positive: int = 0
    bright: int = 0
    below: float = 0.0
    above: float = math.inf

    def add(self, values: np.ndarray) -> None:
        """Include the values of one part of the image, in float64."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self.finite = self.finite and bool(np.isfinite(values).all())
        self.integral = self.integral and bool((values == np.round(values)).all())
        bright, dim = values[values >= 1], values[(values > 0) & (values < 1)]
        self.positive += bright.size + dim.size
        self.bright += bright.size
        self.below, self.above = max(self.below, dim.max(initial=0.0)), min(self.above, bright.min(initial=math.inf))

    def factors(self) -> tuple[float, float]:
        """Return the factor and the divisor that scale the values to levels of 0 to 255.

        Raises:
            RangeError: a value is negative or not finite, or the range is not that of a photograph.
        """
        if not self.finite:
            raise RangeError("values that are NaN or infinite, so it is not a photograph")
        if self.low < 0:
            raise RangeError(f"values down to {self.low:g}: brightness is not negative")
        if self.integral and LEAST_SIXTEEN <= self.high <= 65_535:
            return 1.0, 257.0
        if self.high <= 1:
            return 255.0, 1.0
        # Most values of a high-dynamic-range image are below 1, and its maximum can be anything.
        if self.high <= 255 and (self.integral or (self.high >= _LEAST_BRIGHTEST and self._median_is_bright())):
            return 1.0, 1.0
        raise RangeError(
            f"values from {self.low:g} to {self.high:g}, which are neither 0 to 1, 0 to 255 nor 0 to 65,535: save the "
            "image with 8 bits per channel"
        )

    def _median_is_bright(self) -> bool:
        if 2 * self.bright == self.positive:
            return (self.below + self.above) / 2 >= 1
        return 2 * self.bright > self.positive
