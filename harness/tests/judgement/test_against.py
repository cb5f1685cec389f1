"""Comparisons of two models: their inputs, settings, weights and readings, and the order of the lines."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import harness
from harness.analysis.calibration import Calibration, Noise, RunNoise
from harness.baselines.reference import reference_from_profile, stored_calibration
from harness.baselines.store import write_baseline
from harness.judgement.phases import phases_of
from harness.judgement.weights import WeightParts
from harness.models.vlm import Vlm
from harness.profile.measures import MEASURES
from harness.profile.profile import Profile
from harness.report.against import ModelComparison
from harness.tests.support.synthetic_profiles import ENVIRONMENT, L, replace_arrays, synthetic_profile
from harness.tests.support.tiny import tiny_profile, tiny_vlm
from harness.tests.support.tuned_models import make_tuned_vlm

N = 32


def measured(vlm: Vlm) -> Profile:
    return tiny_profile(vlm, samples=N, batch_size=8)


@cache
def base() -> tuple[Profile, WeightParts]:
    """Return the profile and the weights of the tiny model with six layers; it is measured on the dataset `tiny`."""
    vlm = tiny_vlm(layers=6)
    return measured(vlm), harness.weight_parts(vlm)


def compare_with_base(vlm: Vlm) -> ModelComparison:
    profile, parts = base()
    return harness.compare_models(measured(vlm), profile, weights=(harness.weight_parts(vlm), parts))


@pytest.mark.usefixtures("tiny_data")
@pytest.mark.parametrize("amount", [0.003, 2.0])
def test_a_change_of_the_last_two_layers_is_located_there(amount: float) -> None:
    comparison = compare_with_base(make_tuned_vlm(amount))
    numbers = comparison.numbers
    assert numbers.weights is not None
    assert (numbers.weights.layers, numbers.weights.others) == ((5, 6), ())
    assert numbers.weights.same_layers == (1, 2, 3, 4)
    ends = {trace.name: trace.exact_until for trace in numbers.traces}
    # Residual point 4 is the input of layer 5, and the attention of layer 5 is the first with changed weights.
    assert ends["similarity"] == 4
    assert ends["attention"] == 4
    assert all(
        position > 4
        for finding in numbers.beyond_margin
        for position in finding.measure.axis.positions(finding.indices)
    )
    text = repr(comparison)
    assert text.splitlines() == comparison.lines()
    assert text.startswith("tuned against tiny-llava on tiny: 32 samples, paired\n")
    assert "weights differ in layers 5-6; the same in layers 1-4, model.language_model.embed_tokens, " in text
    if amount > 0.1:
        assert numbers.verdicts["intra"] == "differs"
        assert "similarity: the same, sample by sample, up to residual point 4, the input of layer 5\n" in text
        assert "beyond the margin: similarity within the text tokens at residual point" in text
    else:
        assert set(numbers.verdicts.values()) <= {"reproduces", "equivalent"}
        assert "beyond the margin: no measure" in text


@pytest.mark.usefixtures("tiny_data")
def test_a_model_compared_with_itself_has_no_differences() -> None:
    numbers = compare_with_base(dataclasses.replace(tiny_vlm(layers=6), name="again")).numbers
    assert set(numbers.verdicts.values()) == {"reproduces"}
    assert [trace.exact_until for trace in numbers.traces] == [6] * 5
    assert numbers.weights is not None
    assert numbers.weights.describe() == "weights are the same"


@pytest.mark.usefixtures("tiny_data")
def test_models_of_different_depth_are_compared_by_relative_depth_only() -> None:
    comparison = compare_with_base(dataclasses.replace(tiny_vlm(layers=8), name="deeper"))
    numbers = comparison.numbers
    assert (numbers.verdicts, numbers.traces, numbers.beyond_margin) == ({}, (), ())
    for side in (numbers.measured, numbers.other):
        for layer, share in zip(side.turning_points, side.relative(), strict=True):
            assert share.estimate == layer.estimate / side.depth
            assert (share.low, share.high) == (layer.low / side.depth, layer.high / side.depth)
    text = repr(comparison)
    assert "regression: not judged; 8 and 6 layers are compared by relative depth" in text
    assert "weights: 8 and 6 layers, so they are not compared part by part" in text
    assert "beyond the margin" not in text
    assert set(numbers.measured.claims) == set(numbers.other.claims)


@pytest.mark.usefixtures("tiny_data")
def test_a_changed_prompt_is_reported_first_and_samples_stay_paired() -> None:
    worded = dataclasses.replace(tiny_vlm(layers=6), name="worded")
    worded.processor.chat_template = worded.processor.chat_template.replace("USER:", "Human:")
    comparison = compare_with_base(worded)
    lines = comparison.lines()
    assert lines[0] == "worded against tiny-llava on tiny: 32 samples, paired"
    assert lines[1] == (
        "  the two models receive different inputs: of 32 samples, 32 have other token ids and 0 other pixels (first: "
        "tiny-0); they are still compared in pairs, because images and captions are the same"
    )
    assert lines[2] == (
        "  prompts: '<s>Human: <image>\\nINSTRUCTION ASSISTANT:' and '<s>USER: <image>\\nINSTRUCTION ASSISTANT:'"
    )
    assert (comparison.numbers.inputs.pairing.paired, comparison.numbers.traces) == (True, ())
    assert "readings: not compared sample by sample, the two models receive different inputs" in lines
    assert not {"reproduces"} & set(comparison.numbers.verdicts.values())


def test_too_few_samples_are_not_reported_as_paired() -> None:
    made = synthetic_profile()
    tokens = tuple(f"other {name}" for name in made.token_hashes)
    other = dataclasses.replace(made, model="other", token_hashes=tokens).select(made.sample_ids[10:])
    title, line, *_ = harness.compare_models(made.select(made.sample_ids[:20]), other).lines()
    assert title == "made against other on curves: 10 samples, too few to be paired"
    assert line.endswith("10 have other token ids and 0 other pixels (first: sample-10)")


def test_the_remedy_for_two_data_types_is_a_baseline_of_the_other_model() -> None:
    made = synthetic_profile()
    narrow = dataclasses.replace(made, model="narrow", environment=dataclasses.replace(ENVIRONMENT, dtype="bfloat16"))
    assert (
        "readings: not compared sample by sample, bfloat16 against made's float32: no per-sample tolerance is "
        "calibrated for these; record a baseline of made with --phase-update-new --phase-calibrate"
    ) in harness.compare_models(narrow, made).lines()


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_data")
def test_a_bos_in_only_one_model_is_reported_first() -> None:
    bare = dataclasses.replace(tiny_vlm(layers=6), name="bare")
    bare.processor.chat_template = bare.processor.chat_template.removeprefix("<s>")
    profiles = [measured(bare), base()[0]]
    assert [profile.declared["first_token"] for profile in profiles] == ["text", "BOS <s>, no text"]
    line = (
        "  the first token is text in bare, whose prompts have no BOS; in tiny-llava it is BOS <s>, no text: "
        "the similarities with text include it in bare only"
    )
    comparison = harness.compare_models(*profiles)
    assert line in comparison.lines()
    assert line in harness.compare_models(*reversed(profiles)).lines()
    assert {name: side["first_token"] for name, side in comparison.record()["models"].items()} == {
        "bare": "text",
        "tiny-llava": "BOS <s>, no text",
    }
    for profile in profiles:
        again = harness.compare_models(profile, dataclasses.replace(profile, model="again"))
        assert not any("first token" in text for text in again.lines())


def shifted(profile: Profile, first: int, amount: float) -> Profile:
    """Return the profile under another name, with its inter-modal similarity shifted from a residual point on."""
    step = np.where(np.arange(L + 1) >= first, amount, 0.0).astype(np.float32)
    return dataclasses.replace(replace_arrays(profile, inter=profile["inter"] + step), model="other")


def test_a_change_within_the_tolerance_counts_as_the_same_but_not_as_bit_identical() -> None:
    made = synthetic_profile()
    comparison = harness.compare_models(shifted(shifted(made, 3, 4e-6), 9, 0.01), made)
    similarity = next(trace for trace in comparison.numbers.traces if trace.name == "similarity")
    assert (similarity.same_until, similarity.exact_until, similarity.last) == (8, 2, L)
    assert (
        "similarity: the same within 1e-05, sample by sample, up to residual point 8, the input of layer 9; "
        "bit for bit up to residual point 2, the input of layer 3"
    ) in comparison.lines()
    assert comparison.numbers.weights is None
    assert not any(line.startswith("weights") for line in comparison.lines())


def test_a_difference_from_the_first_residual_point_on_is_reported() -> None:
    made = synthetic_profile()
    assert (
        "similarity: different from residual point 0 on, sample by sample"
        in harness.compare_models(shifted(made, 0, 0.01), made).lines()
    )


def test_different_data_types_are_not_compared_sample_by_sample() -> None:
    made = synthetic_profile()
    narrow = dataclasses.replace(made, model="narrow", environment=dataclasses.replace(ENVIRONMENT, dtype="bfloat16"))
    comparison = harness.compare_models(narrow, made)
    assert comparison.numbers.traces == ()
    assert any(
        line.startswith("readings: not compared sample by sample, bfloat16 against") for line in comparison.lines()
    )
    assert "  dtype: float32 -> bfloat16" in comparison.lines()


def test_changed_settings_are_listed_before_the_results() -> None:
    baseline_settings = {"vision_feature_layer": -2, **{f"text_config.field_{index}": index for index in range(8)}}
    made = dataclasses.replace(synthetic_profile(), configuration=baseline_settings)
    settings = {name: value + 1 for name, value in baseline_settings.items()}
    comparison = harness.compare_models(dataclasses.replace(made, model="other", configuration=settings), made)
    lines = comparison.lines()
    assert lines[1] == "  vision_feature_layer: -2 -> -1"
    assert lines[7] == "  3 more settings"
    assert len(comparison.record()["configuration"]) == len(baseline_settings)


def test_profiles_of_two_datasets_are_refused() -> None:
    made = synthetic_profile()
    with pytest.raises(ValueError, match="made-other and made-curves are of different datasets"):
        harness.compare_models(dataclasses.replace(made, dataset="other"), made)


def test_margins_come_from_the_model_and_its_calibration() -> None:
    made = synthetic_profile()
    noise = {name: Noise(mean=0.02, sample=0.05, changed=1.0) for name in MEASURES}
    calibrated = reference_from_profile(made, Calibration({"bfloat16": RunNoise("bfloat16", noise)}))
    assert reference_from_profile(made).margins["inter"] == pytest.approx(
        0.05 * np.ptp(made["inter"].mean(0)), rel=1e-4
    )
    assert calibrated.margins["inter"] == pytest.approx(0.06)
    assert calibrated.describe() == f"made measured in this run ({ENVIRONMENT})"


def test_a_stored_calibration_applies_only_to_the_same_weights(tmp_path: Path) -> None:
    made, root = synthetic_profile(), tmp_path
    assert stored_calibration(root, made) == Calibration()
    noise = {name: Noise(mean=1e-3, sample=2e-3, changed=1.0) for name in MEASURES}
    write_baseline(root, made, {}, phases_of(made), Calibration({"bfloat16": RunNoise("bfloat16", noise)}))
    assert stored_calibration(root, made).mean_noise("inter") == 1e-3
    assert stored_calibration(root, dataclasses.replace(made, weights="fedcba9876543210")) == Calibration()
