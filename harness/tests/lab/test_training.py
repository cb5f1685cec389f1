"""Training of vision tower and projector of `scenes-llava`: patch labels, caption targets, learning rate."""

from __future__ import annotations

import math

import pytest
import torch

from harness.data.scenes import Scene, Thing
from harness.lab.training.dense import NOTHING, DenseHead, dense_loss, patch_labels
from harness.lab.training.train import schedule
from harness.lab.training.trained_vision import caption_targets
from harness.models.bundled.checkpoint import PAD_TOKEN_ID
from harness.models.bundled.scenes_llava import IMAGE_TOKENS, processor
from harness.storage.cache_directory import default_cache

RED, BLUE = Thing("red", "circle", "small"), Thing("blue", "square", "large")
PAIR = Scene((RED, BLUE), ("left",), "gray", 0)


def test_patches_are_labelled_with_the_object_that_covers_them() -> None:
    labels = patch_labels([PAIR])
    (a, b), grid = PAIR.placements(), labels["shape"][0].reshape(6, 6)
    assert grid[int(a.y // 16), int(a.x // 16)] == 0
    assert grid[int(b.y // 16), int(b.x // 16)] == 1
    assert (labels["covered"] == (labels["colour"] != NOTHING)).all()
    assert 2 <= int((grid == 0).sum()) < int((grid == 1).sum()) < 20
    assert set(labels["ground"].flatten().tolist()) == {1}


def test_patch_labels_optionally_include_the_position() -> None:
    labels = patch_labels([PAIR, PAIR], positions=True)
    assert "row" not in patch_labels([PAIR])
    assert labels["row"][1].reshape(6, 6)[4, 2] == 4
    assert labels["column"][1].reshape(6, 6)[4, 2] == 2
    loss, accuracy = dense_loss(DenseHead(8, positions=True)(torch.randn(2, IMAGE_TOKENS, 8)), labels)
    assert {"row", "column"} <= accuracy.keys()
    assert bool(torch.isfinite(loss))


def test_equal_scores_give_the_dense_loss_of_a_uniform_guess() -> None:
    labels = patch_labels([PAIR])
    head = DenseHead(8)
    torch.nn.init.zeros_(head.read.weight)
    torch.nn.init.zeros_(head.read.bias)
    loss, _ = dense_loss(head(torch.randn(1, IMAGE_TOKENS, 8)), labels)
    expected = math.log(10) + math.log(8) + math.log(2) + 0.3 * (math.log(4) + math.log(2))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.bundled
def test_targets_end_with_the_turn_and_ignore_the_padding() -> None:
    real_processor = processor(default_cache())
    ids, targets = caption_targets(real_processor, ["A red circle.", "A small red circle left of a large blue square."])
    for row, target in zip(ids, targets, strict=True):
        real = target != -100
        assert torch.equal(row[real], target[real])
        assert int(target[real][-1]) == real_processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
        assert set(row[~real].tolist()) == {PAD_TOKEN_ID}


def test_the_learning_rate_rises_then_falls() -> None:
    rates = [schedule(step, 100, 10) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == 1.0
    assert 0 < rates[-1] < 0.03
