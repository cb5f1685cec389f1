"""Margins have reasons, and a paired comparison requires the same samples."""

from __future__ import annotations

import numpy as np
import pytest

from harness.analysis.margins import (
    HIT_TOLERANCE,
    declared_margins,
    noise_refusal,
    pair_samples,
    recall_margins,
)
from harness.tests.support.synthetic_curves import phase_curve


def test_declared_margins_and_their_reasons() -> None:
    margins = declared_margins(np.linspace(0.0, 1.0, 81))
    assert (margins.curve, margins.turning_points, margins.half_heights) == (0.05, 2, 1.2)
    assert "range" in margins.reason
    assert declared_margins([0.3, 0.31]).curve == 0.01
    noisy = declared_margins(phase_curve(), noise=0.02)
    assert noisy.curve == pytest.approx(0.06)
    assert "noise" in noisy.reason
    assert declared_margins(np.linspace(0.0, 1.0, 81), share=0.1).curve == pytest.approx(0.1)
    assert recall_margins(4).tolist() == [0.05, 0.05, 0.05, 0.02]


def test_a_noisy_baseline_is_refused() -> None:
    assert noise_refusal(phase_curve(), 0.02) is None
    assert "phase 2" in (noise_refusal(phase_curve(), 0.021) or "")


def test_pairing_requires_the_same_inputs_and_enough_samples() -> None:
    ids, hashes = [f"s{i}" for i in range(64)], list(range(64))
    pairing = pair_samples(ids[::-1], ids, hashes[::-1], hashes)
    assert pairing.paired
    assert (pairing.reason, pairing.changed) == ("", ())
    assert pairing.baseline.tolist() == list(range(64))[::-1]
    assert pairing.measured.tolist() == list(range(64))
    assert pair_samples(ids[:40], ids, hashes[:40], hashes).paired
    few = pair_samples(ids[:16], ids, hashes[:16], hashes)
    assert not few.paired
    assert "16 samples are common" in few.reason
    other = pair_samples(ids, ids, [-1, -2, *hashes[2:]], hashes)
    assert other.paired
    assert other.changed == ("s0", "s1")
    assert "2 samples have other model inputs" in other.reason
    moved = pair_samples(ids, [*ids[:40], *(f"t{i}" for i in range(24))], hashes, hashes)
    assert not moved.paired
    assert "40 of 64" in moved.reason
    with pytest.raises(ValueError, match="unique ids"):
        pair_samples(["a", "a"], ids, [1, 2], hashes)


def test_hits_have_their_own_tolerance() -> None:
    assert HIT_TOLERANCE.share == 0.99
