"""A plugin that registers two tiny models and a tiny dataset, for pytest runs in separate processes.

The environment variable TINY_FAULT selects a fault:
    sample: one image cannot be loaded.
    refused: the processor refuses two images.
    dead: the second process exits in the middle of its share.
    ended: the second or only process gets TINY_SIGNAL (default SIGTERM) there.
    stopped: the second process is stopped there. TINY_SILENCE is the time in seconds until that is reported.
    own: only the second process raises an error.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch

from harness.data.datasets import DATASETS
from harness.data.sample import Dataset, Sample
from harness.measurement import heartbeats
from harness.models.registry import MODELS, ModelEntry
from harness.models.vlm import Vlm
from harness.tests.support.picky import make_picky, with_narrow_image
from harness.tests.support.rephrased import SAME
from harness.tests.support.tiny import tiny_samples, tiny_vlm

torch.set_num_threads(1)
heartbeats.SILENCE = float(os.environ.get("TINY_SILENCE", heartbeats.SILENCE))


def load_tiny(cache: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    vlm = make_picky(tiny_vlm(layers=6, dtype=dtype))
    return vlm.model, vlm.processor


def load_other(cache: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    vlm = tiny_vlm(1, layers=6, dtype=dtype)
    return vlm.model, vlm.processor


def raise_torn_image() -> Any:
    raise OSError("the picture is torn")


_PICTURES = count()


def stop_process() -> Any:
    os.kill(os.getpid(), signal.SIGSTOP)
    return tiny_samples(1)[0].load_image()


def end_process() -> Any:
    os.kill(os.getpid(), signal.Signals[os.environ.get("TINY_SIGNAL", "SIGTERM")])
    return tiny_samples(1)[0].load_image()


def end_process_late(picture: Callable[[], Any]) -> Any:
    """Return the image, but send the signal at the 40th: three batches of 8 are prefetched, so some are cached."""
    return end_process() if next(_PICTURES) == 40 else picture()


def draw(n: int, *_: object) -> Sequence[Sample]:
    samples = tiny_samples(n)
    fault, rank = os.environ.get("TINY_FAULT", ""), os.environ.get("RANK")
    if fault == "sample":
        samples[-1] = replace(samples[-1], load_image=raise_torn_image)
    if fault == "refused":
        samples = [with_narrow_image(sample) if row in (0, 11) else sample for row, sample in enumerate(samples)]
    if fault == "dead" and rank == "1":
        # Every process draws the first two samples in full.
        samples[2:] = [replace(sample, load_image=lambda: os._exit(9)) for sample in samples[2:]]
    if fault == "ended" and rank == "1":
        # Each of these samples sends a signal; the first is in the middle of the share.
        samples[32:] = [replace(sample, load_image=end_process) for sample in samples[32:]]
    if fault == "ended" and rank is None:
        samples = [replace(sample, load_image=partial(end_process_late, sample.load_image)) for sample in samples]
    if fault == "stopped" and rank == "1":
        samples[2:] = [replace(sample, load_image=stop_process) for sample in samples[2:]]
    if fault == "own" and rank == "1":
        raise ValueError("the second process has a fault of its own")
    return samples


def pytest_phase_model_loaded(vlm: Vlm) -> None:
    """Append the name of the loaded model to the file TINY_LOADS."""
    if "TINY_LOADS" in os.environ:
        with Path(os.environ["TINY_LOADS"]).open("a", encoding="utf-8") as notes:
            notes.write(f"{vlm.name}\n")


for name, loader in (("tiny-llava", "load_tiny"), ("tiny-other", "load_other")):
    MODELS[name] = ModelEntry(name, "tiny", f"{__name__}:{loader}", ("tiny",), bundled=True)
DATASETS["tiny"] = Dataset("tiny", "tiny", draw)
DATASETS[SAME.name] = SAME
