"""A model on a dataset: the pair that a profile is measured of, and its id."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pair:
    """One model on one dataset, by their names; as text it is the id of the pair, `model-dataset`."""

    model: str
    dataset: str

    def __str__(self) -> str:
        return f"{self.model}-{self.dataset}"
