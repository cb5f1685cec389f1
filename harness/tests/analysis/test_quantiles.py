"""The quantiles are those of scipy.stats, which the verdicts do not import."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from harness.analysis.quantiles import normal_upper, student_upper


@pytest.mark.parametrize("tail", [0.3, 0.05, 0.025, 0.005, 1e-4, 1e-6])
def test_quantiles_equal_those_of_scipy_stats(tail: float) -> None:
    df = np.array([0.5, 1.0, 2.0, 7.3, 31.0, 127.0, 1e6])
    np.testing.assert_array_equal(student_upper(tail, df), stats.t.isf(tail, df))
    assert [student_upper(tail, each) for each in df.tolist()] == stats.t.isf(tail, df).tolist()
    assert normal_upper(tail) == stats.norm.isf(tail)


@pytest.mark.slow
def test_verdicts_import_no_distributions() -> None:
    program = "import sys, harness.checks, harness.measurement.word_order; print('scipy.stats' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
