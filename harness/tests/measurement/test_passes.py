"""Batches of samples: a fault of one sample does not affect the others."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.utils import PaddingStrategy

from harness.data.datasets import DATASETS
from harness.data.sample import DataError, Dataset, Sample
from harness.measurement.batch_size import MemoryShortageError
from harness.measurement.batches import SampleError
from harness.models.vlm import Vlm
from harness.tests.support.tiny import (
    SIDE,
    have_same_numbers,
    largest_difference,
    tiny_profile,
    tiny_samples,
    try_separators,
)

N, BATCH, DRAWING_PASSES = 80, 8, 2
WRONG = "tiny-57"


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Sample], Sample]], None]:
    """Make the dataset `tiny` of `tiny_samples`, some of them changed."""

    def change(changed: Callable[[Sample], Sample]) -> None:
        drawn = [changed(sample) for sample in tiny_samples(N)]
        monkeypatch.setitem(DATASETS, "tiny", Dataset("tiny", "tiny", lambda n, *_: drawn[:n]))

    change(lambda sample: sample)
    return change


def measured(vlm: Vlm, **options: Any) -> Any:
    return tiny_profile(vlm, **({"samples": N, "batch_size": BATCH} | options))


def record_batch_sizes(vlm: Vlm) -> list[int]:
    """Return a list that collects the batch size of every further forward pass."""
    try_separators(vlm)
    passes: list[int] = []
    vlm.anatomy.layers[0].register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    return passes


def with_white_image(sample: Sample) -> Sample:
    """Return the sample with a white image if it is WRONG, so that a hook can recognise it."""
    return replace(sample, load_image=lambda: Image.new("RGB", (SIDE, SIDE), "white")) if sample.id == WRONG else sample


def add_nan_hooks(vlm: Vlm) -> list[Any]:
    """Add hooks that set the states of a white image's row to NaN before the third layer."""
    rows: list[torch.Tensor] = []

    def find_white(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        rows[:] = [kwargs["pixel_values"].flatten(1).amin(1) > 1.0]

    def spoil(_: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0].masked_fill(rows[0].view(-1, 1, 1), torch.nan), *args[1:])

    return [
        vlm.model.register_forward_pre_hook(find_white, with_kwargs=True),
        vlm.anatomy.layers[2].register_forward_pre_hook(spoil),
    ]


def count_readings(cache: Path) -> int:
    """Return the number of readings in the files of a cache."""
    counts = []
    for path in cache.rglob("*.npz"):
        with np.load(path) as arrays:
            counts.append(len(arrays["names"]))
    return sum(counts)


def test_a_sample_with_nan_is_named_and_the_others_are_cached(
    fresh_vlm: Vlm, many: Callable[[Callable[[Sample], Sample]], None], tmp_path: Path
) -> None:
    many(with_white_image)
    expected = measured(fresh_vlm)
    hooks = add_nan_hooks(fresh_vlm)
    with pytest.raises(SampleError) as raised:
        measured(fresh_vlm, cache=tmp_path)
    message = str(raised.value)
    assert message.startswith(f"tiny-llava-tiny: 1 of {N} samples cannot be measured: sample {WRONG}: ")
    assert f"of sample {WRONG} is nan at residual point 2; " in message
    assert message.endswith(
        f"the readings of {N - 1} others are cached. Repair it, or remove it from the dataset, and run again"
    )
    assert count_readings(tmp_path) == N - 1
    for hook in hooks:
        hook.remove()
    passes = record_batch_sizes(fresh_vlm)
    assert have_same_numbers(measured(fresh_vlm, cache=tmp_path), expected)
    assert passes == [2] * DRAWING_PASSES + [BATCH]


def test_a_broken_image_is_named_and_the_other_samples_are_cached(
    fresh_vlm: Vlm, many: Callable[[Callable[[Sample], Sample]], None], tmp_path: Path
) -> None:
    expected = measured(fresh_vlm, samples=64)

    def broken() -> Image.Image:
        raise DataError("photo.jpg is broken or truncated")

    many(lambda sample: replace(sample, load_image=broken) if sample.id == WRONG else sample)
    with pytest.raises(
        SampleError,
        match=f"1 of 64 samples cannot be measured: sample {WRONG}: photo.jpg is broken or truncated; the readings of "
        "63 others are cached",
    ):
        measured(fresh_vlm, samples=64, cache=tmp_path)
    assert count_readings(tmp_path) == 63
    many(lambda sample: sample)
    passes = record_batch_sizes(fresh_vlm)
    assert have_same_numbers(measured(fresh_vlm, samples=64, cache=tmp_path), expected)
    assert passes == [2] * DRAWING_PASSES + [BATCH]


@pytest.mark.parametrize("wrong", ["tiny-0", "tiny-1"])
def test_a_broken_image_among_the_first_samples_is_named_before_any_pass(
    fresh_vlm: Vlm, many: Callable[[Callable[[Sample], Sample]], None], wrong: str
) -> None:
    def gone() -> Image.Image:
        raise OSError("the disk is gone")

    many(lambda sample: replace(sample, load_image=gone) if sample.id == wrong else sample)
    passes = record_batch_sizes(fresh_vlm)
    with pytest.raises(SampleError, match=f"tiny-llava-tiny: sample {wrong} cannot be measured: the disk is gone; it"):
        measured(fresh_vlm, samples=4)
    assert passes == []


def test_without_a_cache_a_fault_states_that_no_readings_are_cached(
    fresh_vlm: Vlm, many: Callable[[Callable[[Sample], Sample]], None]
) -> None:
    def gone() -> Image.Image:
        raise OSError("the disk is gone")

    wrong = {f"tiny-{index}" for index in range(10, 15)}
    many(lambda sample: replace(sample, load_image=gone) if sample.id in wrong else sample)
    with pytest.raises(SampleError) as raised:
        measured(fresh_vlm, samples=40)
    message = str(raised.value)
    assert "5 of 40 samples cannot be measured: sample tiny-10: the disk is gone; sample tiny-11: " in message
    assert message.endswith(
        "and 2 more; no readings are cached. Repair them, or remove them from the dataset, and run again"
    )


@pytest.mark.usefixtures("many")
def test_a_measurement_stops_early_if_every_sample_is_nan(fresh_vlm: Vlm) -> None:
    """The fault begins after the first two samples, which are recorded in full."""
    passes = record_batch_sizes(fresh_vlm)

    def spoil(_: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0] * torch.nan if len(passes) > DRAWING_PASSES else args[0], *args[1:])

    fresh_vlm.anatomy.layers[1].register_forward_pre_hook(spoil)
    with pytest.raises(SampleError, match=r"16 of 80 samples cannot be measured \(the rest were not tried\): sample "):
        measured(fresh_vlm)
    assert passes == [2] * DRAWING_PASSES + [BATCH] * 2


def limit_memory(vlm: Vlm, most: int, shortage: Callable[[], Any]) -> None:
    """Let memory run out in every pass of more than `most` samples."""

    def run_out(_: Any, args: tuple[torch.Tensor, ...]) -> None:
        if len(args[0]) > most:
            shortage()

    vlm.anatomy.layers[1].register_forward_pre_hook(run_out)


def on_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def on_the_cpu() -> None:
    """Allocate more memory than any machine has."""
    torch.empty(2**60, dtype=torch.uint8)


def in_onednn() -> None:
    raise RuntimeError("could not create a primitive")


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("shortage", [on_a_gpu, on_the_cpu, in_onednn])
def test_out_of_memory_halves_the_batch_size_and_reports_it_once(
    fresh_vlm: Vlm, tmp_path: Path, shortage: Callable[[], Any]
) -> None:
    expected = measured(fresh_vlm, samples=16, controls=("noise",))
    lines: list[str] = []
    limit_memory(fresh_vlm, 3, shortage)
    passes = record_batch_sizes(fresh_vlm)
    small = measured(fresh_vlm, samples=16, controls=("noise",), cache=tmp_path, say=lines.append)
    assert lines == [
        "tiny-llava: out of memory with batches of 8 samples, continuing with 4",
        "tiny-llava: out of memory with batches of 4 samples, continuing with 2",
    ]
    assert passes == [2] * DRAWING_PASSES + [8, 4] + [2] * 16
    assert largest_difference(small, expected) < 1e-5
    assert np.array_equal(small["hits"], expected["hits"])
    passes.clear()
    assert have_same_numbers(measured(fresh_vlm, samples=16, controls=("noise",), cache=tmp_path), small)
    assert passes == [2] * DRAWING_PASSES


@pytest.mark.slow
def test_halved_batches_are_encoded_while_others_are_prefetched(
    fresh_vlm: Vlm, many: Callable[[Callable[[Sample], Sample]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokenizer's padding state is set before each call; a delay provokes a race of two threads."""
    many(lambda sample: replace(sample, instruction="describe the image" + " please" * int(sample.id[5:])))
    kind = type(fresh_vlm.processor.tokenizer)
    set_padding = kind.set_truncation_and_padding

    def set_padding_early(tokenizer: Any, padding_strategy: Any, *args: Any, **kwargs: Any) -> None:
        set_padding(tokenizer, padding_strategy, *args, **kwargs)
        if padding_strategy is PaddingStrategy.LONGEST:
            time.sleep(0.05)

    expected = measured(fresh_vlm, samples=24)
    limit_memory(fresh_vlm, 1, on_the_cpu)
    monkeypatch.setattr(kind, "set_truncation_and_padding", set_padding_early)
    assert largest_difference(measured(fresh_vlm, samples=24), expected) < 1e-5


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(("shortage", "words"), [(on_the_cpu, "memory"), (in_onednn, "could not create a primitive")])
def test_a_single_sample_that_exceeds_memory_is_reported(
    fresh_vlm: Vlm, shortage: Callable[[], Any], words: str
) -> None:
    lines: list[str] = []
    limit_memory(fresh_vlm, 0, shortage)
    with pytest.raises(MemoryShortageError, match=rf"tiny-llava: not even one sample .* \(.*{words}"):
        measured(fresh_vlm, samples=4, say=lines.append)
    assert lines == ["tiny-llava: out of memory with batches of 2 samples, continuing with 1"]
