"""The range of a picture's values, which decides their scale: white is 1, 255 or 65,535."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# Fractional values beyond 1 that never reach this are no eight-bit levels, but those of high dynamic range.
_LEAST_BRIGHTEST = 128.0
#: A photograph of sixteen bits uses a quarter of their range; what stays below was written with 8 to 14 bits.
LEAST_SIXTEEN = 2**14


class RangeError(ValueError):
    """Values that are no levels of a photograph."""


@dataclass(slots=True)
class ValueRange:
    """The range of the values of one channel, collected part by part.

    `below` is the largest positive value under 1 and `above` the smallest from 1 upwards: where as many values lie on
    either side, they are the middle two.
    """

    low: float = math.inf
    high: float = -math.inf
    finite: bool = True
    whole: bool = True
    positive: int = 0
    bright: int = 0
    below: float = 0.0
    above: float = math.inf

    def add(self, values: np.ndarray) -> None:
        """Take in the values of one part of the picture, in float64."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self.finite = self.finite and bool(np.isfinite(values).all())
        self.whole = self.whole and bool((values == np.round(values)).all())
        bright, dim = values[values >= 1], values[(values > 0) & (values < 1)]
        self.positive += bright.size + dim.size
        self.bright += bright.size
        self.below, self.above = max(self.below, dim.max(initial=0.0)), min(self.above, bright.min(initial=math.inf))

    def factors(self) -> tuple[float, float]:
        """Return the factor and the divisor that make levels 0 to 255 of the values.

        Raises:
            RangeError: some are negative, not finite, or of no range that a photograph has.
        """
        if not self.finite:
            raise RangeError("values that are NaN or infinite, so it is no photograph")
        if self.low < 0:
            raise RangeError(f"values down to {self.low:g}: brightness is not negative")
        if self.whole and LEAST_SIXTEEN <= self.high <= 65_535:
            return 1.0, 257.0
        if self.high <= 1:
            return 255.0, 1.0
        # Most values of a picture of high dynamic range lie below 1, and its brightest can be anything.
        if self.high <= 255 and (self.whole or (self.high >= _LEAST_BRIGHTEST and self._median_is_bright())):
            return 1.0, 1.0
        raise RangeError(
            f"values from {self.low:g} to {self.high:g}, which are neither 0 to 1, 0 to 255 nor 0 to 65,535: save it "
            "with 8 bits a channel"
        )

    def _median_is_bright(self) -> bool:
        if 2 * self.bright == self.positive:
            return (self.below + self.above) / 2 >= 1
        return 2 * self.bright > self.positive
