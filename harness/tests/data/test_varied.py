"""Scenes of several sizes and instruction lengths: sizes, balance, and equality on every machine."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from harness.data.datasets import find_dataset
from harness.data.sample import Source
from harness.data.scenes import INSTRUCTIONS, SIDE, SIZES, scene, scenes_varied, varied_scene

N = 64


def test_scenes_varied_is_unchanged_since_the_baselines_were_recorded() -> None:
    """A change of the images or prompts would invalidate the stored baselines."""
    total = hashlib.sha256()
    for index, sample in enumerate(scenes_varied(N, 0)):
        total.update("\n".join((sample.id, sample.instruction, *sample.captions, str(varied_scene(index, 0)))).encode())
    assert total.hexdigest() == "d69540450ca64b766dd1ff1c8ad53bfe0c2df23ec187bf24d2103b4a31bb3304"


def test_no_image_is_square_and_every_size_occurs_with_every_instruction() -> None:
    drawn = find_dataset("scenes-varied").draw(N, 0, Source())
    assert [sample.load_image().size for sample in drawn[: len(SIZES)]] == list(SIZES)
    assert all(width != height for width, height in SIZES)
    wide = [width > height for width, height in SIZES]
    assert sum(wide) == len(SIZES) / 2
    counts = Counter((sample.load_image().size, sample.instruction) for sample in drawn)
    assert len(counts) == len(SIZES) * len(INSTRUCTIONS)
    assert set(counts.values()) <= {2, 3}


def test_any_eight_consecutive_samples_have_all_three_instruction_lengths() -> None:
    lengths = [len(text) for text in INSTRUCTIONS]
    assert sorted(lengths) == lengths
    assert all(longer >= 2 * shorter for shorter, longer in itertools.pairwise(lengths))
    drawn = scenes_varied(N, 0)
    assert all(len({s.instruction for s in drawn[start : start + 8]}) == 3 for start in range(0, N, 8))


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_scene_has_two_objects_and_belongs_to_the_test_split(index: int, seed: int) -> None:
    truth = varied_scene(index, seed)
    assert len(truth.things) == 2
    assert truth.held_out


@pytest.mark.parametrize("size", SIZES)
def test_objects_lie_inside_images_of_every_size(size: tuple[int, int]) -> None:
    width, height = size
    for index in range(20):
        truth = varied_scene(index, 0)
        pixels = np.asarray(truth.render(size), dtype=float)
        assert pixels.shape == (height, width, 3)
        for placement in truth.placements(size):
            assert 0.8 * placement.radius < min(placement.x, placement.y, width - placement.x, height - placement.y)
            y, x = np.mgrid[0:height, 0:width] + 0.5
            disc = np.hypot(x - placement.x, y - placement.y) <= placement.radius * 1.35 + 1
            painted = np.abs(pixels - placement.rgb).max(axis=2) < 25
            assert painted[disc].sum() > 0.3 * np.pi * placement.radius**2


def test_the_square_size_gives_the_images_of_scenes() -> None:
    truth = scene(3, 0)
    assert truth.render((SIDE, SIDE)).tobytes() == truth.render().tobytes()
    assert truth.placements((SIDE, SIDE)) == truth.placements()


def test_the_resampling_filter_changes_resized_images_of_these_sizes() -> None:
    """The square images of `scenes` are not resized, so only this dataset reveals such a change."""
    square = scene(0, 0).render()
    assert square.resize((SIDE, SIDE), Image.Resampling.BILINEAR).tobytes() == square.tobytes()
    for sample in scenes_varied(len(SIZES), 0):
        picture = sample.load_image()
        filters = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR)
        bicubic, bilinear = (np.asarray(picture.resize((SIDE, SIDE), resampling), dtype=int) for resampling in filters)
        assert np.abs(bicubic - bilinear).max() > 3


def test_a_longer_draw_extends_a_shorter_one_and_each_id_is_its_cluster() -> None:
    short, long = scenes_varied(5, 3), scenes_varied(9, 3)
    assert [(s.id, s.instruction, s.captions) for s in short] == [(s.id, s.instruction, s.captions) for s in long[:5]]
    assert [s.load_image().tobytes() for s in short] == [s.load_image().tobytes() for s in long[:5]]
    assert long[8].id == long[8].cluster == "scenes-varied-3-00008"


def test_scenes_varied_is_for_regression_only() -> None:
    assert find_dataset("scenes-varied").regression_only
    assert not any(find_dataset(name).regression_only for name in ("scenes", "scenes-order", "coco-captions"))
