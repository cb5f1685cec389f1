"""A cell of the matrix: one release of transformers with one release of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

#: Oldest first: the first release of the range, two in between, the newest.
TRANSFORMERS = ("5.0.0", "5.8.1", "5.16.1", "5.23.0")
#: Newest first.
TORCH = ("2.15.0", "2.14.1")


@dataclass(frozen=True, slots=True)
class Cell:
    """One release of each, by version number."""

    transformers: str
    torch: str

    @property
    def name(self) -> str:
        """What its environment and its files are called."""
        return f"transformers-{self.transformers}-torch-{self.torch}"

    def __str__(self) -> str:
        return f"transformers {self.transformers}, torch {self.torch}"


def cells_of(transformers: Sequence[str] = (), torch: Sequence[str] = ()) -> list[Cell]:
    """The cells of the releases that were named: each with each; what was not named at all is the newest.

    With nothing named, every release of transformers with the newest torch, and the newest transformers with the older
    torch as well.
    """
    if not transformers and not torch:
        older = [Cell(TRANSFORMERS[-1], release) for release in TORCH[1:]]
        return [*(Cell(release, TORCH[0]) for release in TRANSFORMERS), *older]
    return list(
        dict.fromkeys(Cell(*releases) for releases in product(transformers or TRANSFORMERS[-1:], torch or TORCH[:1]))
    )
