"""The datasets that are known by name."""

from __future__ import annotations

from collections.abc import Sequence

from harness.data.sample import Dataset, Sample, Source


def _scenes(n: int, seed: int, source: Source) -> Sequence[Sample]:
    from harness.data.scenes import scenes

    return scenes(n, seed)


def _scenes_order(n: int, seed: int, source: Source) -> Sequence[Sample]:
    from harness.data.order import scenes_order

    return scenes_order(n, seed)


def _scenes_varied(n: int, seed: int, source: Source) -> Sequence[Sample]:
    from harness.data.varied import scenes_varied

    return scenes_varied(n, seed)


def _coco(n: int, seed: int, source: Source) -> Sequence[Sample]:
    from harness.data.coco import coco_captions

    return coco_captions(n, seed, source)


def _no_coco(source: Source) -> str | None:
    from harness.data.coco import COPY

    return COPY.unavailable(source)


def _winoground(n: int, seed: int, source: Source) -> Sequence[Sample]:
    from harness.data.winoground import winoground

    return winoground(n, seed, source)


def _no_winoground(source: Source) -> str | None:
    from harness.data.winoground import COPY

    return COPY.unavailable(source)


DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset("scenes", "rendered scenes of one to three shapes, five captions each", _scenes),
        Dataset(
            "scenes-order",
            "pairs of rendered scenes whose captions have the same words in another order",
            _scenes_order,
            samples=256,
            paired=True,
        ),
        Dataset(
            "scenes-varied",
            "rendered scenes of several sizes, none square, with instructions of several lengths",
            _scenes_varied,
            samples=64,
            regression_only=True,
        ),
        Dataset(
            "coco-captions",
            "photographs of COCO with about five captions each",
            _coco,
            samples=400,
            unavailable=_no_coco,
            variable="VLM_PHASE_COCO",
        ),
        Dataset(
            "winoground",
            "pairs of photographs whose captions have the same words in another order",
            _winoground,
            samples=400,
            unavailable=_no_winoground,
            paired=True,
            variable="VLM_PHASE_WINOGROUND",
        ),
    )
}


def find_dataset(name: str) -> Dataset:
    """The dataset of that name.

    Raises LookupError, with the known names, where there is none.
    """
    try:
        return DATASETS[name]
    except KeyError:
        known = ", ".join(sorted(DATASETS))
        raise LookupError(f"no dataset is called {name!r}: choose one of {known}") from None
