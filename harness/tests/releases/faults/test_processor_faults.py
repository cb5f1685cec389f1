"""A faster image processor by default, planted into the installed transformers, is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers

from harness.releases.processors.processor_comparison import ProcessorOutcome, compare_processors
from harness.releases.processors.processor_reader import make_processor, read_processor
from harness.tests.releases.faults.planted_masks import Patch
from harness.tests.releases.faults.planted_processors import resize_by_tensors


@pytest.mark.skipif(not transformers.__version__.startswith("5.24."), reason="the faults patch code of 5.24")
def test_a_fast_image_processor_is_noticed(tmp_path: Path, monkeypatch: Patch) -> None:
    """Transformers change 39591: the fast image processor became the default of saved slow ones."""
    before = make_processor("paligemma", tmp_path)
    assert compare_processors(before, read_processor(tmp_path)).verdict is ProcessorOutcome.SAME
    resize_by_tensors(monkeypatch)
    comparison = compare_processors(before, read_processor(tmp_path))
    assert comparison.verdict is ProcessorOutcome.CHANGED
    assert "slow (Pillow) to fast (torchvision)" in comparison.sentence
    assert comparison.largest_pixels is not None
    assert 0 < comparison.largest_pixels.mean < 0.05
