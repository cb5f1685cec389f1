"""A model of full width on a GPU: the added time and memory of a measurement stay small."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from harness.analysis.timing import MIN_TIMING_PAIRS, TimingRatio, log_ratios, timing_ratio
from harness.data.datasets import DATASETS
from harness.data.sample import Dataset
from harness.measurement.measure import measure
from harness.measurement.stopwatch import WARM_UPS, ForwardPassTimer
from harness.models.prompts.prompt import encode
from harness.models.vlm import Vlm
from harness.probe.forward import observe
from harness.tests.support import topology
from harness.tests.support.topology import DEPTH, random_photographs

N, BATCH = 64, 8
# Looser than the targets (1.05, 1.25 and 1.02), to allow for other or shared GPUs.
MOST_TIME, MOST_TIME_WITH_LENS, MOST_MEMORY = 1.25, 1.5, 1.1

Record = Callable[[str, object], None]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="torch sees no CUDA device; a 7B model in bf16 needs one of 24 GB or more"
    ),
]


@pytest.fixture(scope="module", params=["llava", "instructblip"])
def vlm(request: pytest.FixtureRequest) -> Iterator[Vlm]:
    """A model of full width in bf16, initialised on the GPU, without a copy in the host's memory."""
    yield getattr(topology, f"random_{request.param}")(None, dtype=torch.bfloat16, device="cuda")
    gc.collect()
    torch.cuda.empty_cache()


@pytest.fixture
def record(vlm: Vlm, record_testsuite_property: Record) -> Record:
    """Print a value with model and device, and add it to the JUnit file."""

    def keep(name: str, value: object) -> None:
        record_testsuite_property(f"{vlm.name} {name}", value)
        print(f"{vlm.name}, {torch.cuda.get_device_name()}, torch {torch.__version__}: {name} {value}")

    return keep


@pytest.fixture
def paths(vlm: Vlm) -> tuple[Callable[[], object], Callable[[], object]]:
    """Two functions on the same encoded batch: a plain forward pass, and one with similarity and attention."""
    samples = random_photographs(BATCH)
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    inputs = vlm.to_device(batch.inputs)

    def plain() -> object:
        with torch.inference_mode():
            return vlm.model(**inputs, use_cache=False, logits_to_keep=1)

    return plain, lambda: observe(vlm, batch, samples)


def test_64_samples_end_to_end(vlm: Vlm, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "photographs", Dataset("photographs", "drawn", lambda n, *_: random_photographs(n)))
    start = time.perf_counter()
    profile = measure(vlm, "photographs", samples=N, batch_size=BATCH, progress=False)
    record("seconds per sample, with both controls", round((time.perf_counter() - start) / N, 3))
    assert profile["inter"].shape == (N, DEPTH + 1)
    assert profile["exit_agreement"][:, -1].all()


def test_similarity_and_attention_cost_little_time(
    vlm: Vlm, record: Record, paths: tuple[Callable[[], object], Callable[[], object]]
) -> None:
    plain, hooked = paths
    timing = alternating(plain, hooked)
    record("similarity and attention / plain", shown(timing))
    assert timing.interval[0] <= MOST_TIME


def test_similarity_attention_and_lens_cost_little_time(vlm: Vlm, record: Record) -> None:
    timing = ForwardPassTimer(vlm, random_photographs(BATCH)).ratio()
    record("everything / plain", shown(timing))
    assert timing.interval[0] <= MOST_TIME_WITH_LENS


def test_similarity_and_attention_need_little_memory(
    vlm: Vlm, record: Record, paths: tuple[Callable[[], object], Callable[[], object]]
) -> None:
    plain, hooked = (peak(run) for run in paths)
    everything = peak(ForwardPassTimer(vlm, random_photographs(BATCH)).hooked)
    record("peak memory in GB, plain", round(plain / 1e9, 3))
    record("peak memory in GB, similarity and attention", round(hooked / 1e9, 3))
    record("peak memory in GB, everything", round(everything / 1e9, 3))
    assert hooked <= MOST_MEMORY * plain


def alternating(plain: Callable[[], object], hooked: Callable[[], object]) -> TimingRatio:
    """Return the median ratio of hooked to plain over alternating pairs (ABBA), warm-ups dropped."""
    seconds: dict[Callable[[], object], list[float]] = {plain: [], hooked: []}
    for turn in range(MIN_TIMING_PAIRS + WARM_UPS):
        for run in (hooked, plain) if turn % 2 else (plain, hooked):
            torch.cuda.synchronize()
            start = time.perf_counter()
            run()
            torch.cuda.synchronize()
            seconds[run].append(time.perf_counter() - start)
    return timing_ratio(log_ratios(seconds[hooked][WARM_UPS:], seconds[plain][WARM_UPS:]))


def shown(timing: TimingRatio) -> str:
    low, high = timing.interval
    return f"{timing.ratio:.3f} ({low:.3f} to {high:.3f}, {timing.n} pairs of {BATCH} samples)"


def peak(run: Callable[[], object]) -> int:
    """Return the peak of allocated bytes during a run, weights included, after a warm-up run."""
    run()
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()
