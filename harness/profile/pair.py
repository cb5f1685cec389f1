"""The pair of a model and a dataset on which a profile is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pair:
    """A model and a dataset by name; `str()` gives the id of the pair, `model-dataset`."""

    model: str
    dataset: str

    def __str__(self) -> str:
        return f"{self.model}-{self.dataset}"
