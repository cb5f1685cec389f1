from __future__ import annotations

import hashlib
import inspect
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.captions import caption_variants
from harness.data.datasets import DATASETS, find_dataset
from harness.data.sample import Source
from harness.data.scenes import BACKGROUNDS, COLOURS, OPPOSITE, SHAPES, SIDE, Scene, Thing, scene, scenes
from harness.tests.support.case_runs import ROOT

indices = st.integers(min_value=0, max_value=10**6)
seeds = st.integers(min_value=0, max_value=10**6)


def digest(n: int, seed: int) -> str:
    """Return a hash of the images, ids and captions of a draw."""
    total = hashlib.sha256()
    for sample in scenes(n, seed):
        total.update(np.asarray(sample.load_image()).tobytes())
        total.update("\n".join((sample.id, *sample.captions)).encode())
    return total.hexdigest()


def test_images_are_the_same_in_every_process() -> None:
    """Python's built-in hash differs between processes, so no seed may depend on it."""
    imports = "import hashlib; import numpy as np; from harness.data.scenes import scenes"
    code = f"{imports}\n{inspect.getsource(digest)}\nprint(digest(12, 7))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest(12, 7)


def test_scenes_are_unchanged_since_the_baselines_were_recorded() -> None:
    """A change of the scenes would invalidate the stored baselines and the trained vision tower and projector."""
    drawn = "\n".join(str(scene(index, 0, split)) for split in ("train", "test") for index in range(50))
    digest_of_scenes = hashlib.sha256(drawn.encode()).hexdigest()
    assert digest_of_scenes == "fe18694ed260957616046b999fe288733b385daa981984ed6086a51672d1912d"
    assert scene(0, 0).captions()[0] == "A large orange ring left of a large yellow heart."


@given(seeds, st.integers(0, 12), st.integers(0, 12))
def test_a_longer_draw_extends_a_shorter_one(seed: int, n: int, extra: int) -> None:
    short, long = scenes(n, seed), scenes(n + extra, seed)
    assert [(s.id, s.captions, s.cluster) for s in short] == [(s.id, s.captions, s.cluster) for s in long[:n]]
    assert all(np.array_equal(a.load_image(), b.load_image()) for a, b in list(zip(short, long, strict=False))[:2])


@given(indices, seeds)
def test_splits_share_no_combination_and_no_image_seed(index: int, seed: int) -> None:
    training, held_out = scene(index, seed, "train"), scene(index, seed, "test")
    assert not any(thing.held_out_on(training.background) for thing in training.things)
    assert any(thing.held_out_on(held_out.background) for thing in held_out.things)
    assert training.seed != held_out.seed


def test_a_tenth_of_the_combinations_is_held_out_and_includes_every_value() -> None:
    triples = [(c, s, b) for c in COLOURS for s in SHAPES for b in BACKGROUNDS]
    held_out = [(c, s, b) for c, s, b in triples if Thing(c, s, "small").held_out_on(b)]
    assert len(held_out) == 32
    assert [set(values) for values in zip(*held_out, strict=True)] == [set(COLOURS), set(SHAPES), set(BACKGROUNDS)]


def test_the_training_split_contains_every_pair_of_colour_and_shape() -> None:
    """Only combinations with a background are held out; an unseen pair would test the language model instead."""
    shown = {(t.colour, t.shape) for k in range(1500) for t in scene(k, 0, "train").things}
    assert shown == {(c, s) for c in COLOURS for s in SHAPES}


@given(indices, seeds)
def test_relations_match_the_placements_and_objects_do_not_touch(index: int, seed: int) -> None:
    truth = scene(index, seed)
    places = truth.placements()
    pairs = [(places[0], places[1], truth.relations[0])] if len(places) > 1 else []
    pairs += [(places[2], places[1], truth.relations[1])] if len(places) > 2 else []
    for a, b, relation in pairs:
        right, down = a.x - b.x, a.y - b.y
        along = {"above": -down, "below": down, "left": -right, "right": right}[relation]
        across = right if relation in ("above", "below") else down
        assert along > 2 * abs(across)
    for k, a in enumerate(places):
        assert a.radius * 0.8 < min(a.x, a.y, SIDE - a.x, SIDE - a.y)
        for b in places[k + 1 :]:
            assert max(abs(a.x - b.x), abs(a.y - b.y)) > 0.86 * (a.radius + b.radius)


@given(indices, seeds)
def test_objects_are_in_raster_order_and_differ(index: int, seed: int) -> None:
    truth = scene(index, seed)
    rows = [
        (round(p.y / 20), p.x) if "above" in truth.relations or "below" in truth.relations else (0, p.x)
        for p in truth.placements()
    ]
    for (row_a, x_a), (row_b, x_b) in pairwise(rows):
        assert row_a < row_b or x_a < x_b
    assert len({t.colour for t in truth.things}) == len({t.shape for t in truth.things}) == len(truth.things)
    assert all(t.colour != truth.background for t in truth.things)


@given(indices, seeds)
@settings(max_examples=30)
def test_every_object_is_painted_at_its_placement(index: int, seed: int) -> None:
    """The object's colour fills much of its disc, and almost all pixels outside every disc are background."""
    truth = scene(index, seed)
    pixels = np.asarray(truth.render(), dtype=float)
    y, x = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    outside = np.ones((SIDE, SIDE), dtype=bool)
    for placement in truth.placements():
        disc = np.hypot(x - placement.x, y - placement.y) <= placement.radius * 1.35 + 1
        painted = np.abs(pixels - placement.rgb).max(axis=2) < 25
        assert painted[disc].sum() > 0.3 * np.pi * placement.radius**2
        outside &= ~disc
    ground = np.asarray(BACKGROUNDS[truth.background])
    assert (np.abs(pixels - ground).max(axis=2) < 40)[outside].mean() > 0.999


@given(indices, seeds)
def test_captions_name_every_object_and_the_first_is_in_raster_order(index: int, seed: int) -> None:
    truth = scene(index, seed)
    captions = truth.captions()
    assert len(captions) == len(set(captions)) == 5
    for caption in captions:
        for thing in truth.things:
            assert f"{thing.colour} {thing.shape}" in caption
        assert caption[0].isupper()
        assert caption.endswith(".")
        assert " a orange" not in f" {caption.lower()}"
    positions = [captions[0].index(f"{t.colour} {t.shape}") for t in truth.things]
    assert positions == sorted(positions)


def test_captions_of_one_two_and_three_objects() -> None:
    first, second, third = (
        Thing("orange", "ring", "large"),
        Thing("blue", "star", "small"),
        Thing("red", "cross", "small"),
    )
    assert Scene((first,), (), "gray", 0).captions()[0] == "A large orange ring on a gray background."
    pair = Scene((first, second), ("left",), "gray", 0).captions()
    assert pair[:2] == (
        "A large orange ring left of a small blue star.",
        "A small blue star right of a large orange ring.",
    )
    assert Scene((first, second, third), ("above", "right"), "gray", 0).captions()[0] == (
        "An orange ring above a blue star, with a red cross right of it."
    )
    with pytest.raises(ValueError, match="not 4"):
        caption_variants([("small", "red", "ring")] * 4, ["left"] * 3, ["right"] * 3, "gray")


def test_the_opposite_of_an_opposite_is_the_relation_itself() -> None:
    assert all(OPPOSITE[OPPOSITE[r]] == r for r in OPPOSITE)


def test_about_a_quarter_of_the_scenes_have_three_objects() -> None:
    counts = np.bincount([len(scene(k, 0).things) for k in range(1000)], minlength=4)
    assert 220 <= counts[3] <= 340
    assert counts[0] == 0
    assert counts[1] > 180


def test_all_images_of_a_draw_differ() -> None:
    assert len({sample.load_image().tobytes() for sample in scenes(100, 3)}) == 100


def test_an_unknown_dataset_is_refused_with_the_known_names() -> None:
    assert find_dataset("scenes") is DATASETS["scenes"]
    assert [s.id for s in find_dataset("scenes").draw(2, 5, Source())] == ["scenes-5-00000", "scenes-5-00001"]
    with pytest.raises(LookupError, match=r"'coconuts'.*scenes, scenes-order"):
        find_dataset("coconuts")


def test_listing_the_datasets_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, harness.data.datasets; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )
