"""Per-sample tolerances by environment and calibration, the location of a change, and its message."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from harness.analysis.calibration import Calibration, Noise, RunNoise
from harness.analysis.margins import CPU_TOLERANCE, CURVE_TOLERANCE
from harness.baselines.reference import reference_from_profile
from harness.baselines.store import Baseline
from harness.judgement.regression import compare
from harness.judgement.side_by_side import reading_traces
from harness.judgement.tolerances import MIN_NOISE, calibrated_tolerance, locating_tolerance, sample_tolerance
from harness.lab.simulation.populations import to_baseline
from harness.models.vlm import Vlm
from harness.profile.measures import FAMILIES
from harness.profile.profile import Profile
from harness.report.messages import changed_measure_lines
from harness.tests.support.synthetic_profiles import ENVIRONMENT, L, join_lines, replace_arrays, synthetic_profile
from harness.tests.support.tiny import tiny_profile, tiny_vlm


def variant(dtype: str, sample: float, device: str = "") -> RunNoise:
    return RunNoise(dtype, {"inter": Noise(mean=sample / 2, sample=sample, changed=1.0)}, device)


def baseline(*variants: RunNoise, **environment: str) -> Baseline:
    profile = synthetic_profile(environment=dataclasses.replace(ENVIRONMENT, **environment))
    runs = {f"{run.dtype} {run.device}": run for run in variants}
    return dataclasses.replace(to_baseline(profile), calibration=Calibration(runs))


def measured(**environment: str) -> Profile:
    return synthetic_profile(environment=dataclasses.replace(ENVIRONMENT, **environment))


@pytest.mark.parametrize(
    ("environment", "baseline_environment", "amount"),
    [
        ({}, {}, 5e-5),
        ({"torch": "2.16.0", "attention": "eager"}, {}, 5e-5),
        ({"dtype": "float64"}, {}, 5e-5),
        ({"device": "cuda"}, {}, 1e-3),
        ({"device": "cuda"}, {"device": "cuda"}, 1e-3),
        ({"dtype": "bfloat16"}, {}, None),
        ({"dtype": "bfloat16"}, {"dtype": "bfloat16"}, None),
    ],
)
def test_the_declared_tolerance_depends_on_both_environments(
    environment: dict[str, str], baseline_environment: dict[str, str], amount: float | None
) -> None:
    tolerance = calibrated_tolerance(measured(**environment), baseline(**baseline_environment), "inter")
    assert (None if tolerance is None else tolerance.amount) == amount


@pytest.mark.parametrize(("measure", "scale"), [("norm_ratio", "norm_ratio"), ("knockout_instruction", "knockout")])
def test_the_tolerance_of_an_unbounded_measure_is_a_share_of_its_scale(measure: str, scale: str) -> None:
    """A small loss is a difference of the same likelihoods as the largest one, so it has the same rounding."""
    profile = measured()
    largest = float(profile[scale].mean(0, dtype=np.float64).max())
    assert largest > 10.0
    tolerance = calibrated_tolerance(profile, baseline(), measure)
    assert tolerance is not None
    assert tolerance.amount == pytest.approx(5e-5 * largest)
    assert tolerance.noise == pytest.approx(MIN_NOISE * largest)


def test_a_measure_without_calibrated_noise_need_not_reproduce_in_16_bits() -> None:
    """A calibration that is older than the measure has no noise for it."""
    half = {"dtype": "bfloat16"}
    comparison = compare(measured(**half), baseline(variant("bfloat16", 1e-2), **half), FAMILIES["states"])
    assert {finding.agreement.reproduced for finding in comparison.findings} == {None}
    assert comparison.irreproducible_reason == ""


def test_calibration_raises_the_tolerance_and_names_the_reason() -> None:
    quiet = baseline(variant("float32", 2.7e-6), variant("bfloat16", 8e-3))
    assert sample_tolerance(measured(), quiet, "inter").reason == CPU_TOLERANCE.reason
    loud = sample_tolerance(measured(), baseline(variant("float32", 3e-5)), "inter")
    assert loud.amount == pytest.approx(9e-5)
    assert loud.reason == "3 x the calibrated noise of a sample, 3e-05"
    narrow = sample_tolerance(measured(dtype="bfloat16"), quiet, "inter")
    assert narrow.amount == pytest.approx(2.4e-2)
    # The noise of a GPU does not apply to a CPU.
    gpu = baseline(variant("float32", 2.7e-6), variant("float32", 5e-4, "cuda"))
    assert sample_tolerance(measured(), gpu, "inter").amount == CPU_TOLERANCE.amount
    assert sample_tolerance(measured(device="cuda"), gpu, "inter").amount == pytest.approx(1.5e-3)


def test_a_change_is_located_by_the_noise_and_not_by_the_tolerance() -> None:
    def located(compared: Baseline, **environment: str) -> float:
        return float(np.max(locating_tolerance(measured(**environment), compared, "inter").amount))

    assert located(baseline()) == 1e-5
    assert located(baseline(variant("float32", 1e-6))) == 1e-5
    assert located(baseline(variant("float32", 1e-4))) == pytest.approx(4e-4)
    assert located(baseline(), device="cuda") == CURVE_TOLERANCE.amount
    assert located(baseline(variant("float32", 1e-6)), device="cuda") == CURVE_TOLERANCE.amount
    assert located(baseline(variant("float32", 2e-5, "cuda")), device="cuda") == pytest.approx(8e-5)
    assert located(baseline(variant("bfloat16", 8e-3)), dtype="bfloat16") == pytest.approx(2.4e-2)
    assert locating_tolerance(measured(), baseline(), "recall_5").share == 0.99


def test_a_model_measured_in_the_same_run_has_the_same_tolerance() -> None:
    made = measured()
    assert sample_tolerance(made, reference_from_profile(made), "inter").amount == CPU_TOLERANCE.amount
    assert locating_tolerance(made, reference_from_profile(made), "inter").amount == 1e-5


def test_a_small_change_fails_with_its_layer_and_its_multiple_of_the_noise() -> None:
    stored = baseline(variant("float32", 2.7e-6))
    step = np.where(np.arange(L + 1) >= 9, 5.9e-4, 2e-5 * (np.arange(L + 1) >= 3)).astype(np.float32)
    profile = replace_arrays(stored.profile, inter=stored.profile["inter"] + step)
    comparison = compare(profile, stored, FAMILIES["inter"])
    finding = comparison.findings[0]
    assert (comparison.verdict, finding.agreement.reproduced, finding.agreement.beyond_tolerance) == (
        "equivalent",
        False,
        64,
    )
    assert (finding.agreement.largest, finding.agreement.tolerance.noise) == pytest.approx((5.9e-4, 2.7e-6), rel=1e-3)
    text = join_lines(AssertionError("\n".join(changed_measure_lines(finding, profile)).replace("\u00a0", " ")))
    assert (
        "64 of 64 samples are beyond the per-sample tolerance 5e-05 (declared for float32 on CPUs); largest change "
        "0.00059, 219 x the noise; worst: sample-"
    ) in text
    trace = reading_traces(profile, stored)[0]
    assert (trace.same_until, trace.exact_until) == (2, 2)
    assert trace.tolerance == pytest.approx(4 * 2.7e-6)


def test_worst_samples_are_rows_of_the_run_if_the_baseline_lacks_samples() -> None:
    profile = measured()
    stored = to_baseline(profile.select(profile.sample_ids[10:]))
    similarity = profile["inter"].copy()
    similarity[20] += np.float32(0.01)
    finding = compare(replace_arrays(profile, inter=similarity), stored, FAMILIES["inter"]).findings[0]
    assert [profile.sample_ids[change.index] for change in finding.agreement.worst_samples] == ["sample-20"]


def test_the_device_of_a_calibration_run_is_stored_and_inferred_in_older_files() -> None:
    runs = {"eager": variant("float32", 1e-6), "cuda": variant("float32", 5e-4, "cuda")}
    record = Calibration(runs).record()
    assert "device" not in record["eager"]
    assert Calibration.from_record(record).runs == runs
    del record["cuda"]["device"]
    assert Calibration.from_record(record).runs == runs


def tanh(vlm: Vlm) -> None:
    vlm.model.model.multi_modal_projector.act = nn.GELU(approximate="tanh")


def theta(vlm: Vlm) -> None:
    rotary = vlm.model.model.language_model.rotary_emb
    steps = torch.arange(len(rotary.inv_freq)) / len(rotary.inv_freq)
    rotary.inv_freq = (rotary.config.rope_parameters["rope_theta"] * 1.01) ** -steps


def eps(vlm: Vlm) -> None:
    for layer in vlm.anatomy.layers:
        layer.input_layernorm.variance_epsilon *= 100.0


@pytest.mark.usefixtures("tiny_data")
@pytest.mark.parametrize(("fault", "last_same"), [(tanh, -1), (theta, 0), (eps, 0)])
def test_a_changed_constant_does_not_reproduce_and_is_located_where_it_acts(
    fault: Callable[[Vlm], None], last_same: int
) -> None:
    stored = to_baseline(tiny_profile(tiny_vlm(layers=6), samples=32, batch_size=8))
    vlm = tiny_vlm(layers=6)
    fault(vlm)
    profile = tiny_profile(vlm, samples=32, batch_size=8)
    assert compare(profile, stored, FAMILIES["inter"]).findings[0].agreement.reproduced is False
    similarity = reading_traces(profile, stored)[0]
    assert similarity.same_until == last_same
    assert similarity.tolerance == 4 * MIN_NOISE
