from __future__ import annotations

import re
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness.data.datasets import find_dataset
from harness.data.order import Swap, order_item, scenes_order
from harness.data.sample import Source
from harness.data.scenes import Scene

indices = st.integers(0, 10**6)
seeds = st.integers(0, 10**6)


def swap_kind(item: tuple[Scene, Scene]) -> Swap:
    return "objects" if item[0].things == item[1].things[::-1] else "colours"


@given(indices, seeds)
def test_every_caption_of_a_pair_has_the_same_words_in_another_order(index: int, seed: int) -> None:
    first, second = order_item(index, seed)
    for a, b in zip(first.captions(), second.captions(), strict=True):
        words_a, words_b = (re.findall("[a-z]+", text.lower()) for text in (a, b))
        # The article follows its noun ("an orange"), so both of its forms count as one word.
        assert Counter("a" if w == "an" else w for w in words_a) == Counter("a" if w == "an" else w for w in words_b)
        assert words_a != words_b


@given(indices, seeds)
def test_both_sides_belong_to_the_test_split_and_share_background_and_relation(index: int, seed: int) -> None:
    first, second = order_item(index, seed)
    assert first.held_out
    assert second.held_out
    assert (first.relations, first.background, first.seed) == (second.relations, second.background, second.seed)
    if swap_kind((first, second)) == "colours":
        assert [t.shape for t in first.things] == [t.shape for t in second.things]
        assert [t.colour for t in first.things] == [t.colour for t in second.things][::-1]


def test_both_kinds_of_swap_occur_equally_often() -> None:
    kinds = Counter(swap_kind(order_item(k, 0)) for k in range(300))
    assert 110 < kinds["objects"] < 190


@given(seeds, st.integers(0, 15), st.integers(0, 9))
def test_a_longer_draw_extends_a_shorter_one_and_keeps_the_pairs(seed: int, n: int, extra: int) -> None:
    short, long = scenes_order(n, seed), scenes_order(n + extra, seed)
    assert len(short) == n
    assert [(s.id, s.captions) for s in short] == [(s.id, s.captions) for s in long[:n]]
    for k, sample in enumerate(long):
        assert sample.id == f"{sample.cluster}-{k % 2}"
        assert sample.cluster == long[k - k % 2].cluster
    assert len({s.cluster for s in long}) == (len(long) + 1) // 2


def test_the_images_of_a_pair_differ_only_at_the_objects() -> None:
    first, second = find_dataset("scenes-order").draw(2, 0, Source())
    a, b = (np.asarray(s.load_image(), dtype=int) for s in (first, second))
    differs = (np.abs(a - b).max(axis=2) > 12).mean()
    assert 0.01 < differs < 0.5
