"""Two hundred measurements in one process leave nothing behind, and a model that is let go is really gone."""

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
# A batch has 10 kB of hidden states at each residual point, and a measurement 45 such; numbers of a profile are 4 kB.
MOST_KB_EACH = 10.0
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_with_kwargs")


@dataclass(frozen=True)
class Held:
    """What is alive: tensors, objects that the collector knows, hooks on the model, entries of the harness's caches."""

    tensors: int
    objects: int
    hooks: int
    threads: int
    kept: Mapping[str, int]


def held(vlm: Vlm) -> Held:
    gc.collect()
    return Held(
        tensors=sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()),
        objects=len(gc.get_objects()),
        hooks=sum(len(getattr(module, kind)) for module in vlm.model.modules() for kind in _HOOKS),
        threads=psutil.Process().num_threads(),
        kept=module_level(),
    )


def module_level() -> dict[str, int]:
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
    """The tiny samples as items of two, so that word order is scored too."""

    def draw(n: int, *_: object) -> Any:
        samples = tiny_samples(n)
        return [
            type(sample)(sample.id, sample.load_image, sample.instruction, sample.captions, f"item-{at // 2}")
            for at, sample in enumerate(samples)
        ]

    monkeypatch.setitem(DATASETS, "tiny", Dataset("tiny", "in pairs", draw, paired=True))


def everything(vlm: Vlm, cache: Path, number: int) -> None:
    """One measurement with all that there is: controls, drawing, word order, readings kept; other noise each time."""
    profile = tiny_profile(vlm, controls=("noise", "blank"), control_seed=number, cache=cache / str(number % 3))
    assert profile.drawings
    assert {"noise", "blank"} <= profile.controls.keys()


def resident(vlm: Vlm, cache: Path, measurements: int) -> np.ndarray:
    """Resident memory in kB after each measurement that follows the warm-up."""
    process, sizes = psutil.Process(), []
    for number in range(WARM_UP + measurements):
        everything(vlm, cache, number)
        if number >= WARM_UP:
            gc.collect()
            sizes.append(process.memory_info().rss / 1024)
    return np.array(sizes)


def slope(sizes: np.ndarray) -> tuple[float, float]:
    """Growth in kB for each measurement, the median of all slopes between two points, with its 99 % upper end."""
    fitted = stats.theilslopes(sizes, alpha=0.99)
    return float(fitted.slope), float(fitted.high_slope)


@pytest.mark.slow
def test_memory_stays_flat_over_200_measurements(vlm: Vlm, paired_data: None, tmp_path: Path) -> None:
    sizes = resident(vlm, tmp_path, 200)
    growth, high = slope(sizes)
    assert high < MOST_KB_EACH, f"{growth:.1f} kB a measurement, at most {high:.1f} (99 %), of {sizes[0]:.0f}"


def test_a_measurement_leaves_nothing_behind(own_vlm: Vlm, paired_data: None, tmp_path: Path) -> None:
    # Once with each of the caches, whose directories are swept at the first write.
    for number in range(3):
        everything(own_vlm, tmp_path, number)
    counts = [held(own_vlm)]
    for start in (3, 7, 11):
        for number in range(start, start + 4):
            everything(own_vlm, tmp_path, number)
        counts.append(held(own_vlm))
    # A measurement that keeps one object a layer and sample would show as 4 x 4 x 6 of them, every time; what else a
    # long session makes now and then does not.
    assert min(after.objects - before.objects for before, after in pairwise(counts)) < 60
    before, after = counts[0], counts[-1]
    for kind in ("tensors", "hooks", "threads"):
        assert getattr(after, kind) <= getattr(before, kind), kind
    assert after.kept == before.kept


def whole_states(samples: list[Sample], layers: int) -> int:
    """How many layers' states of all tokens are still held when the last layer of an observed pass is done."""
    # What earlier tests left in cycles would count, and may go at any time.
    gc.collect()
    vlm, words = tiny_vlm(layers=layers), (((5,),),) * len(samples)
    counts: list[int] = []

    def count(_: Any, args: tuple[torch.Tensor, ...]) -> None:
        stores = [thing.untyped_storage() for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
        counts.append(len({store.data_ptr() for store in stores if store.nbytes() == args[0].nbytes}))

    vlm.anatomy.final_norm.register_forward_pre_hook(count)
    observe(vlm, samples, LensTask(References(words, words), tuple(range(20))), checking=False)
    return counts[0]


def test_what_the_lens_holds_back_keeps_no_layer_whole(samples: list[Sample]) -> None:
    assert whole_states(samples, 2) == whole_states(samples, 6)


def test_what_is_kept_would_be_noticed(own_vlm: Vlm, paired_data: None, tmp_path: Path) -> None:
    """The counts of the test above see each kind of thing that a measurement could leave."""
    everything(own_vlm, tmp_path, 0)
    before = held(own_vlm)
    kept = [torch.zeros(1), [[] for _ in range(100)]]
    hook = own_vlm.model.register_forward_pre_hook(lambda *_: None)
    name, known = next((n, value) for n, value in vars(attention).items() if isinstance(value, WeakKeyDictionary))
    known[own_vlm.model] = "kept"
    stem("unheard-of")
    after = held(own_vlm)
    assert after.tensors == before.tensors + 1
    assert after.objects >= before.objects + 100
    assert after.hooks == before.hooks + 1
    grown = {where for where, size in after.kept.items() if size > before.kept[where]}
    assert {f"{attention.__name__}.{name}", "harness.data.words.stem"} <= grown
    hook.remove()
    del kept


def test_a_model_that_is_let_go_is_gone(tiny_data: None, tmp_path: Path) -> None:
    vlm = tiny_vlm()
    profile = tiny_profile(vlm, controls=("noise", "blank"), cache=tmp_path)
    kept = sum(module_level().values())
    gone = weakref.ref(vlm.model), weakref.ref(vlm.processor), weakref.ref(vlm.anatomy.layers[0])
    del vlm
    gc.collect()
    assert [what() for what in gone] == [None, None, None]
    assert sum(module_level().values()) < kept
    assert profile.n > 0
