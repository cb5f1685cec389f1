"""Calibration measures the effect of environments on the same samples, for margins and tolerances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.calibration import Calibration, Noise, RunNoise, noise_between
from harness.analysis.margins import CPU_TOLERANCE, CURVE_TOLERANCE
from harness.baselines.margin_table import boundary_margin_values, margin_table
from harness.measurement.conditions import calibrate, calibration_runs
from harness.models.vlm import Vlm
from harness.profile.measures import KNOCKOUT_FAMILY, MEASURES
from harness.tests.support.tiny import N, tiny_profile, tiny_vlm


def test_noise_is_the_largest_shift_of_a_mean_and_of_a_sample() -> None:
    before = np.zeros((4, 3))
    after = np.array([[0.0, 0.3, 0.0], [0.0, -0.1, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, -0.2]])
    assert noise_between(after, before) == Noise(mean=pytest.approx(0.05), sample=pytest.approx(0.3), changed=0.75)
    # Two samples of one image are one observation: their mean counts once.
    calibrated = noise_between(after, before, ["a", "a", "b", "c"])
    assert calibrated.mean == pytest.approx(0.2 / 3)


def test_noise_of_other_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="does not match a baseline of shape"):
        noise_between(np.zeros((3, 4)), np.zeros((4, 4)))


@given(st.integers(0, 1000), st.floats(0.1, 10.0))
def test_noise_scales_with_the_measure_and_ignores_the_order(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, 9, 5))
    noise, order = noise_between(x, y), rng.permutation(9)
    scaled, turned = noise_between(scale * x, scale * y), noise_between(x[order], y[order])
    assert scaled.mean == pytest.approx(scale * noise.mean)
    assert scaled.sample == pytest.approx(scale * noise.sample)
    assert (turned.sample, turned.changed) == (noise.sample, noise.changed)
    assert turned.mean == pytest.approx(noise.mean)


def calibration(**samples: float) -> Calibration:
    return Calibration(
        {
            dtype: RunNoise(dtype, {"inter": Noise(mean=sample / 2, sample=sample, changed=1.0)})
            for dtype, sample in samples.items()
        }
    )


def test_tolerances_are_three_times_the_noise_of_the_types_and_never_below_the_floor() -> None:
    calibrated = calibration(float32=1e-6, bfloat16=8e-3)
    assert calibrated.mean_noise("inter") == 4e-3
    assert calibrated.mean_noise("image") == 0.0
    wide, narrow = (
        calibrated.tolerance("inter", half_precision=half, declared=CURVE_TOLERANCE) for half in (False, True)
    )
    assert wide is not None
    assert narrow is not None
    assert (wide.amount, wide.share) == (1e-3, 1.0)
    assert narrow.amount == pytest.approx(2.4e-2)
    coarse = calibration(float32=2e-3).tolerance("inter", half_precision=False, declared=CURVE_TOLERANCE)
    assert coarse is not None
    assert coarse.amount == pytest.approx(6e-3)


def test_without_a_16_bit_run_there_is_no_16_bit_tolerance() -> None:
    assert Calibration().tolerance("inter", half_precision=True, declared=CURVE_TOLERANCE) is None
    assert calibration(float32=1e-6).tolerance("inter", half_precision=True, declared=CURVE_TOLERANCE) is None
    assert Calibration().tolerance("inter", half_precision=False, declared=CPU_TOLERANCE) == CPU_TOLERANCE


def test_a_calibration_is_read_back_as_written() -> None:
    calibrated = calibration(float32=1.25e-6, bfloat16=8e-3)
    assert Calibration.from_record(calibrated.record()) == calibrated
    with pytest.raises(KeyError):
        Calibration.from_record({"eager": {}})


@pytest.fixture
def tiny() -> Vlm:
    return tiny_vlm(layers=6)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_data")
def test_every_run_measures_the_same_samples_and_leaves_the_model_as_it_was(tiny: Vlm) -> None:
    profile = tiny_profile(tiny, knockout=True)
    loaded: list[tuple[str, str]] = []

    def load(dtype: str, device: str) -> Vlm:
        loaded.append((dtype, device))
        return tiny_vlm(layers=6, dtype=getattr(torch, dtype))

    threads = torch.get_num_threads()
    lines: list[str] = []
    calibrated = calibrate(tiny, profile, load, seed=0, batch_size=2, say=lines.append)
    names = [run.name for run in calibration_runs(profile, 2)]
    assert list(calibrated.calibration.runs) == names
    assert {"bfloat16", "eager", "batch size 1", "batch size 16"} <= set(names)
    assert [line.partition(",")[0] for line in lines] == ["calibration of tiny-llava-tiny"] * len(names)
    assert loaded[0] == ("bfloat16", "cpu")
    assert (torch.get_num_threads(), tiny.attention) == (threads, "sdpa")
    runs = calibrated.calibration.runs
    assert runs["bfloat16"].dtype == "bfloat16"
    assert set(runs["eager"].noise) == set(profile.measured(MEASURES))
    assert KNOCKOUT_FAMILY in runs["eager"].noise
    assert runs["bfloat16"].noise["inter"].mean > 1e-4
    assert runs["eager"].noise["inter"].mean < 1e-5
    largest = calibrated.largest_changes("inter")
    assert largest.shape == (N, 7)
    assert np.abs(largest).max() == runs["bfloat16"].noise["inter"].sample


@pytest.mark.usefixtures("tiny_data")
def test_margins_widen_with_the_noise_and_state_the_reason(tiny: Vlm) -> None:
    profile = tiny_profile(tiny)
    spread = float(np.ptp(profile["inter"].mean(0)))
    quiet, loud = Calibration(), calibration(bfloat16=spread)
    plain, wide = margin_table(profile, quiet), margin_table(profile, loud)
    assert wide["inter"]["value"] == pytest.approx(1.5 * spread, rel=1e-5)
    assert "3 x the calibration noise" in wide["inter"]["reason"]
    assert plain["inter"]["value"] < wide["inter"]["value"]
    assert plain["image"] == wide["image"]
    values = boundary_margin_values({name: margin["value"] for name, margin in plain.items()})
    assert len(values) == 7
    assert min(values[:3]) >= 1.0
    assert min(values[3:]) >= 0.5
