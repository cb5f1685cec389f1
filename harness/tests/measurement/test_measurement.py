"""Measurements do not depend on batch size and order, and refuse invalid requests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import harness.measurement.drawn_samples
from harness.data.datasets import DATASETS
from harness.data.sample import Dataset, Sample
from harness.data.words import content_words
from harness.measurement.plan import MeasureError
from harness.models.prompts.prompt import encode
from harness.models.vlm import Vlm
from harness.probe.lens import Lens
from harness.probe.lens_task import KS
from harness.probe.self_checks import SelfCheckError
from harness.probe.vocabulary import Vocabulary
from harness.profile.measures import CURVES, SHARE_GROUPS
from harness.tests.support import literal
from harness.tests.support.tiny import N, have_same_numbers, largest_difference, tiny_profile, tiny_samples, tiny_vlm

pytestmark = pytest.mark.usefixtures("tiny_data")


def test_a_profile_holds_every_measure(vlm: Vlm) -> None:
    profile = tiny_profile(vlm)
    points = dict.fromkeys((*CURVES, "exit_agreement", "norm_ratio"), (N, 5))
    layers = dict.fromkeys(("sink_share", "instruction_share", "step_image", "step_text"), (N, 4))
    layers |= {f"{kind}_{group}": (N, 4) for kind in ("norm", "weight") for group in SHARE_GROUPS}
    post = {f"post_norm_{name}": (N,) for name in CURVES if name != "inter_adjusted"}
    counts = {"hits": (N, 5, 2), "chance_hits": (N, 5, 2), "words": (N,), "chance_words": (N,)}
    assert {name: array.shape for name, array in profile.arrays.items()} == points | layers | post | counts
    for name, array in profile.arrays.items():
        assert array.dtype == (np.int32 if name in counts or name == "exit_agreement" else np.float32), name
    assert (profile.n, profile.depth, profile.pair) == (N, 4, "tiny-llava-tiny")
    assert profile.arrays["exit_agreement"][:, -1].all()
    assert profile.sample_ids == tuple(sample.id for sample in tiny_samples(N))
    assert len(set(profile.pixel_hashes)) == N
    assert [drawing.sample_id for drawing in profile.drawings] == ["tiny-0", "tiny-1"]


def test_hits_and_chance_hits_equal_those_of_a_literal_lens(vlm: Vlm) -> None:
    """The expected hits come from hidden states of transformers, the norm and all logits."""
    samples = tiny_samples(3)
    profile = tiny_profile(vlm, samples=3)
    vocabulary = Vocabulary(vlm.processor.tokenizer, 400)
    words = [vocabulary.references(content_words(sample.captions)) for sample in samples]
    weight = literal.to_float64(vlm.anatomy.unembedding.weight)
    for row, sample in enumerate(samples):
        batch = encode(vlm.processor, [sample], vlm.anatomy.image_positions)
        with torch.inference_mode():
            hidden = vlm.model(**batch.inputs, use_cache=False, output_hidden_states=True).hidden_states
            normed = [*(vlm.anatomy.final_norm(states) for states in hidden[:-1]), hidden[-1]]
        image = batch.groups.image[0].numpy()
        logits = [
            [literal.logits(state, weight) for state in literal.to_float64(states)[0][image]] for states in normed
        ]
        for name, words_of_row in (("", words[row]), ("chance_", words[(row + 1) % 3])):
            assert profile.arrays[f"{name}words"][row] == len(words_of_row)
            for point in range(len(normed)):
                for column, k in enumerate(KS):
                    hits = sum(literal.is_word_in_top_k(logits[point], word, k) for word in words_of_row)
                    assert profile.arrays[f"{name}hits"][row, point, column] == hits
    assert profile.arrays["hits"].sum() > 0


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_batch_size_does_not_matter(vlm: Vlm, batch_size: int) -> None:
    assert largest_difference(tiny_profile(vlm), tiny_profile(vlm, batch_size=batch_size)) <= 1e-5


def test_sample_order_does_not_matter(vlm: Vlm) -> None:
    forward, backward = tiny_profile(vlm), tiny_profile(vlm, "tiny-reversed")
    turned = backward.select(forward.sample_ids)
    assert turned.pixel_hashes == forward.pixel_hashes
    for name in forward.arrays:
        # The words for the chance level depend on the order of samples.
        if not name.startswith("chance"):
            np.testing.assert_allclose(turned.arrays[name], forward.arrays[name], rtol=0, atol=1e-5, err_msg=name)


def test_two_measurements_are_identical_bit_for_bit(vlm: Vlm) -> None:
    assert have_same_numbers(tiny_profile(vlm), tiny_profile(vlm))


@pytest.mark.parametrize("samples", [0, 1])
def test_fewer_than_two_samples_are_refused(vlm: Vlm, samples: int) -> None:
    with pytest.raises(MeasureError, match=f"{samples} samples of tiny: .* at least two; raise --phase-samples"):
        tiny_profile(vlm, samples=samples)


def test_a_smaller_dataset_is_measured_completely(monkeypatch: pytest.MonkeyPatch, vlm: Vlm) -> None:
    monkeypatch.setitem(DATASETS, "tiny", Dataset("tiny", "three samples", lambda n, *_: tiny_samples(min(n, 3))))
    assert tiny_profile(vlm, samples=100).n == 3


def test_a_batch_size_of_zero_is_refused(vlm: Vlm) -> None:
    with pytest.raises(MeasureError, match="batch size 0: at least one"):
        tiny_profile(vlm, batch_size=0)


def test_an_unknown_dataset_is_refused(vlm: Vlm) -> None:
    with pytest.raises(LookupError, match="nowhere"):
        tiny_profile(vlm, "nowhere")


def test_chance_words_come_from_another_cluster(monkeypatch: pytest.MonkeyPatch, vlm: Vlm) -> None:
    captions = ["red", "red circle", "red circle star", "red circle star heart"]
    clusters = ["first", "first", "second", "second"]
    paired = [
        Sample(first.id, first.load_image, first.instruction, (caption,), cluster)
        for first, caption, cluster in zip(tiny_samples(4), captions, clusters, strict=True)
    ]
    monkeypatch.setitem(DATASETS, "paired", Dataset("paired", "two clusters", lambda *_: paired))
    profile = tiny_profile(vlm, "paired", samples=4)
    assert profile.arrays["words"].tolist() == [1, 2, 3, 4]
    assert profile.arrays["chance_words"].tolist() == [3, 3, 1, 1]


def test_self_checks_run_in_every_measurement(monkeypatch: pytest.MonkeyPatch, vlm: Vlm) -> None:
    calls: list[str] = []
    for name in ("check_image_positions", "check_repeatable", "check_same_hits"):
        plain = getattr(harness.measurement.drawn_samples, name)

        def record(*args: Any, name: str = name, plain: Any = plain) -> None:
            calls.append(name)
            plain(*args)

        monkeypatch.setattr(harness.measurement.drawn_samples, name, record)
    tiny_profile(vlm)
    assert calls == ["check_image_positions", "check_repeatable", "check_same_hits"]


def test_without_drawings_the_numbers_are_the_same_and_the_lens_is_checked_at_five_points(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deep = tiny_vlm(layers=8)
    drawn, plain = tiny_profile(deep), tiny_profile(deep, drawings=False, draw=["tiny-3"])
    assert [drawing.sample_id for drawing in plain.drawings] == ["tiny-3"]
    assert have_same_numbers(drawn, plain)
    assert drawn.declared == plain.declared
    hits = Lens.hits
    for point, seen in ((6, True), (5, False)):

        def miscounted(lens: Lens, point: int = point) -> torch.Tensor:
            counts = hits(lens)
            counts[:, point] += 1
            return counts

        monkeypatch.setattr(Lens, "hits", miscounted)
        with pytest.raises(SelfCheckError, match=f"at residual point {point} of sample tiny-0 the dense lens finds"):
            tiny_profile(deep)
        if seen:
            with pytest.raises(SelfCheckError, match=f"at residual point {point} of sample tiny-0"):
                tiny_profile(deep, drawings=False)
        else:
            tiny_profile(deep, drawings=False)


def test_select_returns_rows_in_the_requested_order(vlm: Vlm) -> None:
    profile = tiny_profile(vlm)
    picked = profile.select(["tiny-4", "tiny-1"])
    assert picked.sample_ids == ("tiny-4", "tiny-1")
    assert picked.token_hashes == (profile.token_hashes[4], profile.token_hashes[1])
    assert picked.pixel_hashes == (profile.pixel_hashes[4], profile.pixel_hashes[1])
    assert picked.clusters == (profile.clusters[4], profile.clusters[1])
    for name, array in profile.arrays.items():
        np.testing.assert_array_equal(picked.arrays[name], array[[4, 1]])
    assert (picked.environment, picked.weights, picked.declared) == (
        profile.environment,
        profile.weights,
        profile.declared,
    )
    with pytest.raises(KeyError, match="tiny-9"):
        profile.select(["tiny-9"])


def test_recall_is_the_number_of_hits_divided_by_words(vlm: Vlm) -> None:
    profile = tiny_profile(vlm)
    for chance in ("", "chance_"):
        for column, k in enumerate(KS):
            recall = profile[f"recall_{chance}{k}"]
            for row in range(N):
                for point in range(profile.depth + 1):
                    hits = int(profile.arrays[f"{chance}hits"][row, point, column])
                    assert recall[row, point] == hits / int(profile.arrays[f"{chance}words"][row])
    assert (profile["recall_1"] <= profile["recall_5"]).all()
    assert profile["recall_5"].max() <= 1.0
    assert profile["inter"] is profile.arrays["inter"]
    with pytest.raises(KeyError):
        profile["nonsense"]


def test_drawings_hold_the_full_attention_row(vlm: Vlm) -> None:
    profile = tiny_profile(vlm)
    for row, drawing in enumerate(profile.drawings):
        tokens = drawing.norm_rows.shape[1]
        assert drawing.norm_rows.shape[0] == profile.depth
        partition = sum(drawing.groups[name].astype(int) for name in ("image", "instruction", "other"))
        assert (partition == np.ones(tokens)).all()
        assert (len(drawing.image_tokens), len(drawing.image_tokens[0])) == (5, int(drawing.groups["image"].sum()))
        assert [len(point) for point in drawing.last_token] == [5] * 5
        for layer in range(profile.depth):
            amounts = drawing.norm_rows[layer]
            share = amounts[:-1][drawing.groups["image"][:-1]].sum() / amounts.sum()
            assert profile.arrays["norm_image"][row, layer] == pytest.approx(share, rel=1e-5)


def test_requested_samples_are_recorded_in_full_like_the_first_two(vlm: Vlm) -> None:
    forth = tiny_profile(vlm, draw=("tiny-5", "tiny-0", "nobody"))
    assert [drawing.sample_id for drawing in forth.drawings] == ["tiny-0", "tiny-1", "tiny-5"]
    # In the other order it is the first: the same sample in full, from another batch.
    back = tiny_profile(vlm, "tiny-reversed")
    first, second = forth.drawings[2], back.drawings[0]
    assert (first.sample_id, first.captions, first.tokens, first.grid) == (
        second.sample_id,
        second.captions,
        second.tokens,
        (4, 4),
    )
    np.testing.assert_allclose(first.norm_rows, second.norm_rows, rtol=1e-4)
    np.testing.assert_array_equal(first.image, second.image)
    assert first.image_tokens == second.image_tokens
