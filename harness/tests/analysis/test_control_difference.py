"""Differences to a control are located, and a curve equal to its control has none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.analysis.claims import CHANCE, CLAIMS, ClaimVerdict
from harness.analysis.control_difference import (
    MIN_CONTROL_DIFFERENCE,
    curve_difference,
    difference_rows,
    rise_difference,
)
from harness.analysis.phase_reading import PhaseReading, read_phases
from harness.report.controls_compared import control_cells, control_lines, control_table
from harness.tests.support.synthetic_curves import POINTS, draw_curves, draw_recalls, phase_curve

N = 48


def curves(seed: int) -> np.ndarray:
    return draw_curves(phase_curve(), N, seed, sd=0.02)


def bump(first: int, last: int, height: float) -> np.ndarray:
    layers = np.arange(POINTS)
    return np.where((layers >= first) & (layers <= last), height, 0.0)


def test_layers_above_and_below_the_control_are_listed() -> None:
    real = curves(0)
    other = real - bump(3, 19, 0.08) + bump(25, 30, 0.05) + 0.004 * np.random.default_rng(1).standard_normal(real.shape)
    difference = curve_difference(difference_rows(real, other), "noise")
    assert difference.above == tuple(range(3, 20))
    assert difference.below == tuple(range(25, 31))
    assert difference.highest == pytest.approx(0.08, abs=0.003)
    assert difference.lowest == pytest.approx(-0.05, abs=0.003)
    assert (difference.control, difference.margin, difference.n) == ("noise", MIN_CONTROL_DIFFERENCE, N)


def test_a_control_on_some_samples_is_subtracted_from_their_curves() -> None:
    real, other = curves(0), curves(1)
    clusters, rows = [f"item {row // 2}" for row in range(N)], [5, 4, 9, 8]
    expected = np.stack([(real - other)[pair].mean(0) for pair in ([4, 5], [8, 9])])
    np.testing.assert_allclose(difference_rows(real, other[rows], clusters, rows), expected)
    reading = read_phases(
        real, real, real, None, controls={"noise": dict.fromkeys(("inter", "image", "text"), other[rows])},
        control_rows={"noise": rows},
    )  # fmt: skip
    claim = CLAIMS["inter-modal"](reading)
    assert (claim.parts[0].n, claim.parts[0].control_differences[0].n) == (N, 4)
    assert CLAIMS["four-phases"](reading).curve_differences[0].n == 4
    assert "real - noise, n = 4" in control_table([("pair", claim)])[0]


def test_nothing_differs_from_a_curve_of_the_same_mean() -> None:
    alarms = 0
    for seed in range(100):
        real = curves(seed)
        other = real + 0.03 * np.random.default_rng(1000 + seed).standard_normal(real.shape)
        difference = curve_difference(difference_rows(real, other), "noise", margin=0.0)
        alarms += bool(difference.above or difference.below)
    # At most 1 % by design: 6 or more of 100 have a chance of 1 in 1,900.
    assert alarms <= 5


def test_a_rise_difference_is_a_paired_difference_of_rises() -> None:
    real, other = curves(0), draw_curves(phase_curve(), N, 5, sd=0.02)
    rise = (real[:, 24] - real[:, 15]) - (other[:, 24] - other[:, 15])
    difference = rise_difference(difference_rows(real, other), "blank", "inter III", (15, 24), 1, 0.01, chosen=False)
    interval = stats.ttest_1samp(rise, 0.0).confidence_interval(0.99)
    assert difference.effect == pytest.approx(rise.mean())
    assert difference.interval == pytest.approx((interval.low, interval.high))
    wider = rise_difference(difference_rows(real, other), "blank", "inter III", (15, 24), 1, 0.01, chosen=True)
    assert wider.interval[0] < difference.interval[0] < difference.interval[1] < wider.interval[1]


@given(st.integers(0, 500), st.integers(2, 4))
def test_the_order_of_the_samples_does_not_matter(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    real, other = rng.standard_normal((2, 12, 6))
    clusters, order = [row // size for row in range(12)], rng.permutation(12)
    in_order = difference_rows(real, other, clusters)
    turned = difference_rows(real[order], other[order], [clusters[row] for row in order])
    np.testing.assert_array_equal(in_order, turned)
    assert len(in_order) == len(set(clusters))


def test_a_control_with_other_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="does not have the same samples"):
        difference_rows(np.zeros((4, 5)), np.zeros((3, 5)))


@pytest.fixture
def reading() -> PhaseReading:
    inter, image, text = curves(0), curves(1), curves(2)
    recall = draw_recalls(N, 3)
    flat = {"inter": inter - bump(10, 30, 0.1), "image": image, "text": text}
    same = {"inter": inter, "image": image, "text": text}
    return read_phases(inter, image, text, recall, controls={"noise": flat, "blank": same}, recall_chance=recall * 0.5)


def test_every_claim_reports_its_difference_to_each_control(reading: PhaseReading) -> None:
    claims = {name: judge(reading) for name, judge in CLAIMS.items()}
    curves = {curve.control: curve for curve in claims["four-phases"].curve_differences}
    assert curves["noise"].above == tuple(range(10, 31))
    assert (curves["blank"].above, curves["blank"].below) == ((), ())
    third = {difference.control: difference for difference in claims["inter-modal"].control_differences}
    assert claims["inter-modal"].verdict is ClaimVerdict.HOLDS
    # The bump covers both ends of phase III, so the control has the same rise.
    assert third["noise"].effect == pytest.approx(0.0, abs=1e-9)
    assert not third["noise"].confirmed
    assert not third["blank"].confirmed
    late = [
        difference for difference in claims["output-preparation"].control_differences if difference.control == CHANCE
    ]
    assert [difference.quantity for difference in late] == ["recall"]
    assert late[0].confirmed


def test_the_text_lists_layers_and_marks_unconfirmed_differences(reading: PhaseReading) -> None:
    claims = {name: judge(reading) for name, judge in CLAIMS.items()}
    assert control_cells(claims["four-phases"]) == {"noise": "+0.1 at layers 10-30", "blank": "none"}
    assert control_cells(claims["inter-modal"])["blank"] in ("(+0)", "(-0)")
    intra = control_cells(claims["intra-modal"])["noise"]
    assert "inter II " in intra
    assert "image II " in intra
    table = control_table(("pair", claim) for claim in claims.values())
    assert table[0].replace("real - ", "real-").split() == [
        "pair",
        "claim",
        "verdict",
        "real-noise",
        "real-blank",
        "real-chance",
    ]
    assert len(table) == 2 + len(claims)
    lines = control_lines(claims["output-preparation"])
    assert any(line.startswith("difference to another sample's words: recall +") for line in lines)
    assert any(line.startswith("difference to noise: inter IV ") and line.endswith(f"n = {N}") for line in lines)


def test_without_controls_there_is_no_table() -> None:
    plain = read_phases(curves(0), curves(1), curves(2), draw_recalls(N, 3))
    assert control_table(("pair", judge(plain)) for judge in CLAIMS.values()) == []
