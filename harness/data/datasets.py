"""The datasets by name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from operator import attrgetter
from typing import Any

from harness.data.sample import Dataset, Sample, Source
from harness.errors import did_you_mean


def _call(function: str, *args: Any) -> Any:
    """Call a function 'module:name' of this package; the late import defers loading numpy and Pillow."""
    module, name = function.split(":")
    return attrgetter(name)(import_module(f"harness.data.{module}"))(*args)


def _draw(function: str, n: int, seed: int, source: Source) -> Sequence[Sample]:
    samples: Sequence[Sample] = _call(function, n, seed)
    return samples


# The instruction of all bundled data but the varied scenes is "Describe the image."
_REPHRASING = "Give a description of the picture."

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            "scenes",
            "rendered scenes of one to three shapes, five captions each",
            partial(_draw, "scenes:scenes"),
            rephrasing=_REPHRASING,
        ),
        Dataset(
            "scenes-order",
            "pairs of rendered scenes whose captions have the same words in another order",
            partial(_draw, "order:scenes_order"),
            samples=256,
            paired=True,
            rephrasing=_REPHRASING,
        ),
        Dataset(
            "scenes-varied",
            "rendered scenes of several sizes, none square, with instructions of several lengths",
            partial(_draw, "scenes:scenes_varied"),
            samples=64,
            regression_only=True,
        ),
        Dataset(
            "coco-captions",
            "photographs of COCO with about five captions each",
            partial(_call, "coco:coco_captions"),
            samples=400,
            unavailable=partial(_call, "coco:COPY.unavailable"),
            variable="VLM_PHASE_COCO",
            rephrasing=_REPHRASING,
        ),
        Dataset(
            "winoground",
            "pairs of photographs whose captions have the same words in another order",
            partial(_call, "winoground:winoground"),
            samples=400,
            unavailable=partial(_call, "winoground:COPY.unavailable"),
            paired=True,
            variable="VLM_PHASE_WINOGROUND",
            rephrasing=_REPHRASING,
        ),
    )
}


def find_dataset(name: str) -> Dataset:
    """Return the dataset with a name.

    Raises:
        LookupError: there is none; the message lists the known names.
    """
    try:
        return DATASETS[name]
    except KeyError:
        known = ", ".join(sorted(DATASETS))
        raise LookupError(
            f"no dataset is called {name!r}: choose one of {known}{did_you_mean(name, DATASETS)}"
        ) from None
