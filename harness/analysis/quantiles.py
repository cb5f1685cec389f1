"""Upper quantiles of the normal and Student's t distribution.

They equal `isf` of `scipy.stats`, whose import alone takes as long as reading all baselines.
"""

from __future__ import annotations

from typing import overload

import numpy as np
from scipy import special

from harness.analysis.curves import FloatArray


def normal_upper(tail: float) -> float:
    """Return the value that a standard normal variable exceeds with probability `tail`."""
    return -float(special.ndtri(tail))


@overload
def student_upper(tail: float, df: float) -> float: ...


@overload
def student_upper(tail: float, df: FloatArray) -> FloatArray: ...


def student_upper(tail: float, df: float | FloatArray) -> float | FloatArray:
    """Return the value that a Student's t variable of `df` degrees of freedom exceeds with probability `tail`."""
    value: FloatArray = np.negative(special.stdtrit(df, tail))
    return value if np.ndim(df) else float(value)
