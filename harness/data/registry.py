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
