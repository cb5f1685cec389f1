"""Repeated measurements do not leak memory, and a released model is freed."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import psutil
import pytest
import torch
from scipy import stats

from harness.data.datasets import DATASETS
from harness.data.sample import Dataset, Sample
from harness.data.words import stem
from harness.models.vlm import Vlm
from harness.probe import attention
from harness.probe.lens_task import LensTask, References
from harness.tests.support.tiny import observe, tiny_profile, tiny_samples, tiny_vlm

WARM_UP = 20
# A batch has 10 kB of hidden states per residual point, 45 times per measurement; a profile's numbers take 4 kB.
MOST_KB_EACH = 10.0
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_with_kwargs")


@dataclass(frozen=True)
class LiveCounts:
    """Counts of live tensors, objects known to the garbage collector, hooks, threads and cache entries."""

    tensors: int
    objects: int
    hooks: int
    threads: int
    cache_sizes: Mapping[str, int]


def count_live(vlm: Vlm) -> LiveCounts:
    gc.collect()
    objects = gc.get_objects()
    return LiveCounts(
        tensors=sum(issubclass(type(thing), torch.Tensor) for thing in objects),
        objects=len(objects),
        hooks=sum(len(getattr(module, kind)) for module in vlm.model.modules() for kind in _HOOKS),
        threads=psutil.Process().num_threads(),
        cache_sizes=module_level_sizes(),
    )


def module_level_sizes() -> dict[str, int]:
    """Return the sizes of all collections and function caches that the harness's modules hold."""
    sizes = {}
    for module in [name for name in sys.modules if name.startswith("harness.") and ".tests" not in name]:
        for name, value in vars(sys.modules[module]).items():
            if isinstance(value, dict | list | set | WeakKeyDictionary) and not name.startswith("__"):
                sizes[f"{module}.{name}"] = len(value)
            elif hasattr(value, "cache_info"):
                sizes[f"{module}.{name}"] = value.cache_info().currsize
    return sizes


@pytest.fixture
def paired_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pair the tiny samples as items, so that word order is scored too."""

    def draw(n: int, *_: object) -> Any:
        samples = tiny_samples(n)
        return [
            type(sample)(sample.id, sample.load_image, sample.instruction, sample.captions, f"item-{row // 2}")
            for row, sample in enumerate(samples)
        ]

    monkeypatch.setitem(DATASETS, "tiny", Dataset("tiny", "in pairs", draw, paired=True))


def measure_everything(vlm: Vlm, cache: Path, number: int) -> None:
    """Measure with controls, drawings, word order and a cache; each number has its own noise seed."""
    profile = tiny_profile(vlm, controls=("noise", "blank"), control_seed=number, cache=cache / str(number % 3))
    assert profile.drawings
    assert {"noise", "blank"} <= profile.controls.keys()


def resident_sizes(vlm: Vlm, cache: Path, measurements: int) -> np.ndarray:
    """Return the resident memory in kB after each measurement that follows the warm-up."""
    process, sizes = psutil.Process(), []
    for number in range(WARM_UP + measurements):
        measure_everything(vlm, cache, number)
        if number >= WARM_UP:
            gc.collect()
            sizes.append(process.memory_info().rss / 1024)
    return np.array(sizes)


def slope(sizes: np.ndarray) -> tuple[float, float]:
    """Return the growth in kB per measurement, the median pairwise slope, with its 99 % upper bound."""
    fitted = stats.theilslopes(sizes, alpha=0.99)
    return float(fitted.slope), float(fitted.high_slope)


@pytest.mark.slow
def test_memory_stays_flat_over_200_measurements(vlm: Vlm, paired_data: None, tmp_path: Path) -> None:
    sizes = resident_sizes(vlm, tmp_path, 200)
    growth, high = slope(sizes)
    assert high < MOST_KB_EACH, f"{growth:.1f} kB a measurement, at most {high:.1f} (99 %), of {sizes[0]:.0f}"


@pytest.mark.slow
def test_a_measurement_leaves_no_objects_hooks_or_cache_entries(
    fresh_vlm: Vlm, paired_data: None, tmp_path: Path
) -> None:
    # Once with each of the caches, whose directories are cleaned at the first write.
    for number in range(3):
        measure_everything(fresh_vlm, tmp_path, number)
    counts = [count_live(fresh_vlm)]
    for start in (3, 6, 9):
        for number in range(start, start + 3):
            measure_everything(fresh_vlm, tmp_path, number)
        counts.append(count_live(fresh_vlm))
    # A leak of one object per layer and sample adds 3 x 4 x 6 objects every time; occasional objects of a long session
    # do not occur every time.
    assert min(after.objects - before.objects for before, after in pairwise(counts)) < 60
    before, after = counts[0], counts[-1]
    for kind in ("tensors", "hooks", "threads"):
        assert getattr(after, kind) <= getattr(before, kind), kind
    assert after.cache_sizes == before.cache_sizes


def count_full_states(samples: list[Sample], layers: int) -> int:
    """Return the number of layers whose states of all tokens are alive after the last layer of an observed pass."""
    # Reference cycles of earlier tests would be counted too.
    gc.collect()
    vlm, words = tiny_vlm(layers=layers), (((5,),),) * len(samples)
    counts: list[int] = []

    def count(_: Any, args: tuple[torch.Tensor, ...]) -> None:
        stores = [thing.untyped_storage() for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
        counts.append(len({store.data_ptr() for store in stores if store.nbytes() == args[0].nbytes}))

    vlm.anatomy.final_norm.register_forward_pre_hook(count)
    observe(vlm, samples, LensTask(References(words, words), tuple(range(20))), checking=False)
    return counts[0]


def test_the_deferred_lens_keeps_no_full_layer_states(samples: list[Sample]) -> None:
    assert count_full_states(samples, 2) == count_full_states(samples, 6)


def test_the_counts_detect_each_kind_of_leak(fresh_vlm: Vlm, paired_data: None, tmp_path: Path) -> None:
    """The counts of the test above include every kind of leak."""
    measure_everything(fresh_vlm, tmp_path, 0)
    before = count_live(fresh_vlm)
    leaked = [torch.zeros(1), [[] for _ in range(100)]]
    hook = fresh_vlm.model.register_forward_pre_hook(lambda *_: None)
    name, known = next((n, value) for n, value in vars(attention).items() if isinstance(value, WeakKeyDictionary))
    known[fresh_vlm.model] = "leaked"
    stem("unheard-of")
    after = count_live(fresh_vlm)
    assert after.tensors == before.tensors + 1
    assert after.objects >= before.objects + 100
    assert after.hooks == before.hooks + 1
    grown = {name for name, size in after.cache_sizes.items() if size > before.cache_sizes[name]}
    assert {f"{attention.__name__}.{name}", "harness.data.words.stem"} <= grown
    hook.remove()
    del leaked


def test_a_released_model_is_freed(tiny_data: None, tmp_path: Path) -> None:
    vlm = tiny_vlm()
    profile = tiny_profile(vlm, controls=("noise", "blank"), cache=tmp_path)
    size = sum(module_level_sizes().values())
    references = weakref.ref(vlm.model), weakref.ref(vlm.processor), weakref.ref(vlm.anatomy.layers[0])
    del vlm
    gc.collect()
    assert [reference() for reference in references] == [None, None, None]
    assert sum(module_level_sizes().values()) < size
    assert profile.n > 0
