"""Controls remove only the image, and are measured on the same samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.data.sample import CONTROLS, with_grey_image
from harness.judgement.phases import phase_reading, phases_of
from harness.measurement.control_curves import first_clusters
from harness.measurement.plan import MeasureError
from harness.models.prompts.prompt import encode
from harness.models.vlm import Vlm
from harness.probe.noise import noise_like, noise_seed, replace_features_by_noise
from harness.probe.observation import observing
from harness.profile.measures import CURVES
from harness.tests.support import literal
from harness.tests.support.tiny import N, cast_inputs, tiny_profile, tiny_samples

pytestmark = pytest.mark.usefixtures("tiny_data")
BOTH = tuple(CONTROLS)


def test_noise_has_the_norm_of_every_feature_and_leaves_the_text_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn((3, 7, 16), generator=generator) * torch.arange(1, 8).view(1, 7, 1)
    image = torch.zeros((3, 7), dtype=torch.bool)
    image[0, 1:4] = image[1, 2:5] = image[2, :2] = True
    noisy = noise_like(states, image, [1, 2, 1])
    assert torch.equal(noisy[~image], states[~image])
    torch.testing.assert_close(noisy.norm(dim=-1), states.norm(dim=-1))
    assert float(torch.cosine_similarity(noisy[image], states[image], dim=-1).abs().max()) < 0.9
    # The same seed draws the same directions, independent of the rest of the batch.
    alone = noise_like(states[2:], image[2:], [1])
    assert torch.equal(alone[0], noisy[2])


def test_each_sample_has_its_own_seed() -> None:
    seeds = {noise_seed(f"tiny-{index}", seed) for index in range(50) for seed in (0, 1)}
    assert len(seeds) == 100


def test_the_first_observed_state_holds_the_noise(vlm: Vlm) -> None:
    samples = tiny_samples(2)
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    inputs = cast_inputs(vlm, batch)
    with torch.inference_mode():
        real = vlm.model(**inputs, use_cache=False, output_hidden_states=True).hidden_states[0]
        with (
            replace_features_by_noise(vlm.anatomy, batch.groups.image, [5, 6]),
            observing(vlm.model, vlm.anatomy, batch.groups, sample_ids=["a", "b"], attention=False) as observer,
        ):
            vlm.model(**inputs, use_cache=False, logits_to_keep=1)
        readings = observer.readings()
        again = vlm.model(**inputs, use_cache=False, output_hidden_states=True).hidden_states[0]
    assert torch.equal(real, again), "the noise is still applied after its block"
    noisy = literal.to_float64(noise_like(real, batch.groups.image, [5, 6]))
    for row in range(2):
        image, text = (getattr(batch.groups, name)[row].numpy() for name in ("image", "text"))
        expected = literal.mean_cosine_across(noisy[row], image, text)
        assert readings.similarity[row, 0, 0] == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_controls_are_measured_on_the_same_samples(vlm: Vlm) -> None:
    plain, controlled = tiny_profile(vlm), tiny_profile(vlm, controls=BOTH)
    assert set(controlled.controls) == {"noise", "blank"}
    for name, array in plain.arrays.items():
        assert np.array_equal(controlled.arrays[name], array), name
    for curves in controlled.controls.values():
        assert {name: array.shape for name, array in curves.items()} == dict.fromkeys(CURVES, (N, 5))
        assert np.abs(curves["inter"] - controlled["inter"]).max() > 1e-3
        # Text tokens of the first residual point are the prompt's embeddings: no image affects them.
        np.testing.assert_allclose(curves["text"][:, 0], controlled["text"][:, 0], atol=1e-6)
    assert set(controlled.declared["controls"]) == {"noise", "blank"}
    assert plain.declared["controls"] == {}


def test_the_noise_control_has_the_first_samples_and_declares_their_number(vlm: Vlm) -> None:
    complete, some = tiny_profile(vlm, controls=BOTH), tiny_profile(vlm, controls=BOTH, control_samples=4)
    for name, curve in some.controls["noise"].items():
        if name == "inter_adjusted":  # over the samples of the control
            continue
        np.testing.assert_allclose(curve, complete.controls["noise"][name][:4], atol=1e-6, err_msg=name)
    assert (some.samples_of("noise"), some.samples_of("blank")) == (some.sample_ids[:4], some.sample_ids)
    assert some.declared["controls"]["noise"] == f"{CONTROLS['noise']} (seed 0, the first 4 samples)"
    assert some.declared["controls"]["blank"] == complete.declared["controls"]["blank"]
    assert complete.declared["controls"]["noise"] == f"{CONTROLS['noise']} (seed 0)"
    assert phase_reading(some).control_differences["noise"]["inter"].shape == (4, 5)
    assert phases_of(some)["controls"].keys() == {"noise", "blank"}
    with pytest.raises(MeasureError, match="controls on 1 samples: an interval needs at least two"):
        tiny_profile(vlm, control_samples=1)


def test_selected_samples_keep_their_own_rows_of_a_control(vlm: Vlm) -> None:
    some = tiny_profile(vlm, controls=("noise",), control_samples=4)
    picked = some.select(["tiny-5", "tiny-3", "tiny-0"])
    assert picked.samples_of("noise") == ("tiny-3", "tiny-0")
    assert picked.control_rows("noise") == [1, 2]
    assert np.array_equal(picked.controls["noise"]["inter"], some.controls["noise"]["inter"][[3, 0]])
    again = picked.select(["tiny-0"])
    assert np.array_equal(again.controls["noise"]["inter"], some.controls["noise"]["inter"][[0]])
    assert some.select(["tiny-5", "tiny-4"]).controls == {}


@pytest.mark.parametrize(
    ("clusters", "most", "expected"),
    [
        ("aabbccdd", 4, "aabb"),
        ("aabbccdd", 5, "aabb"),
        ("abab", 64, "abab"),
        ("abacbd", 5, "abacb"),
        ("aaabbbccc", 2, "aaabbb"),
        ("aaaa", 2, "aaaa"),
    ],
)
def test_no_cluster_is_divided_and_two_remain(clusters: str, most: int, expected: str) -> None:
    samples = [replace(sample, cluster=label) for sample, label in zip(tiny_samples(9), clusters, strict=False)]
    chosen = first_clusters(samples, most)
    assert "".join(sample.cluster for sample in chosen) == expected
    assert [sample for sample in samples if sample in chosen] == chosen


@pytest.mark.parametrize("batch_size", [1, 4])
def test_controls_do_not_depend_on_the_batch(vlm: Vlm, batch_size: int) -> None:
    two, other = tiny_profile(vlm, controls=BOTH), tiny_profile(vlm, controls=BOTH, batch_size=batch_size)
    for control, curves in two.controls.items():
        for name, array in curves.items():
            np.testing.assert_allclose(other.controls[control][name], array, atol=1e-5, err_msg=f"{control} {name}")


def test_controls_do_not_depend_on_the_order_of_the_samples(vlm: Vlm) -> None:
    forward = tiny_profile(vlm, controls=BOTH)
    backward = tiny_profile(vlm, "tiny-reversed", controls=BOTH).select(forward.sample_ids)
    for control, curves in forward.controls.items():
        np.testing.assert_allclose(backward.controls[control]["inter"], curves["inter"], atol=1e-5, err_msg=control)


def test_another_seed_of_the_noise_changes_the_noise_only(vlm: Vlm) -> None:
    first, second = (tiny_profile(vlm, controls=BOTH, control_seed=seed) for seed in (0, 1))
    assert np.array_equal(first["inter"], second["inter"])
    assert np.array_equal(first.controls["blank"]["inter"], second.controls["blank"]["inter"])
    assert not np.array_equal(first.controls["noise"]["inter"], second.controls["noise"]["inter"])


def test_equal_prompts_of_the_blank_control_run_once(fresh_vlm: Vlm, tmp_path: Path) -> None:
    passes: list[int] = []
    plain = tiny_profile(fresh_vlm, batch_size=2)
    fresh_vlm.anatomy.layers[0].register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    tiny_profile(fresh_vlm, batch_size=2)
    without = len(passes)
    passes.clear()
    blank = tiny_profile(fresh_vlm, batch_size=2, controls=("blank",), cache=tmp_path)
    # Three instructions in batches of two: each batch holds one prompt twice.
    assert len(passes) == without + 3
    assert len(np.unique(blank.controls["blank"]["inter"], axis=0)) == 3
    passes.clear()
    cached = tiny_profile(fresh_vlm, batch_size=2, controls=("blank",), cache=tmp_path)
    assert len(passes) < without
    assert np.array_equal(cached.controls["blank"]["inter"], blank.controls["blank"]["inter"])
    assert np.array_equal(plain["inter"], blank["inter"])


def test_a_blank_image_has_the_size_of_the_original() -> None:
    sample = tiny_samples(1)[0]
    grey = with_grey_image(sample).load_image()
    assert grey.size == sample.load_image().size
    assert grey.getcolors() == [(grey.size[0] * grey.size[1], (128, 128, 128))]


def test_an_unknown_control_is_refused(vlm: Vlm) -> None:
    with pytest.raises(MeasureError, match="unknown control 'static'; known controls: noise, blank"):
        tiny_profile(vlm, controls=("static",))
