"""Selection of usable items of a dataset on disk, in an order drawn from the seed."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.sample import LONGEST_QUOTED, quote
from harness.data.scenes import stable_seed
from harness.errors import printable

#: Most characters of a caption, and of all captions of an image. The longest published captions have a few thousand.
MOST_CAPTION, MOST_TOGETHER = 10_000, 100_000
_MOST_CAPTIONS = 1_000
# Unicode categories that captions must not contain: control characters and surrogates.
_UNWRITTEN = ("Cc", "Cs")


def first_usable(
    ids: Iterable[str],
    n: int,
    seed: int,
    dataset: str,
    fault: Callable[[str], str | None],
    most_faulty: int | None = None,
) -> tuple[list[str], dict[str, str]]:
    """Return the first n usable ids, or fewer, and the reason for each faulty id before them.

    The order is a permutation of all ids, drawn from dataset and seed. It does not depend on the order of `ids`, and
    the first m results are the same for every n >= m. After `most_faulty` faulty ids the search stops.
    """
    ordered = sorted(ids, key=_as_number)
    rng = np.random.Generator(np.random.PCG64(stable_seed(f"{dataset}/{seed}")))
    usable: list[str] = []
    faulty: dict[str, str] = {}
    for index in rng.permutation(len(ordered)):
        if len(usable) >= n or len(faulty) == most_faulty:
            break
        name = ordered[index]
        reason = fault(name)
        if reason is None:
            usable.append(name)
        else:
            faulty[name] = reason
    return usable, faulty


def item_name(value: Any) -> str:
    """Return an item's id for messages and stored files, with escapes for control characters.

    Different ids have different names.

    Raises:
        ValueError: the value is neither a number nor text, or does not have 1 to 200 characters.
    """
    if isinstance(value, float) and value.is_integer():  # Tables with gaps return integers as floats.
        value = int(value)
    if not isinstance(value, int | str):
        raise ValueError(f"an id is {quote(repr(value))}, neither a number nor text")
    name = str(value)
    if not 0 < len(name) <= LONGEST_QUOTED:
        raise ValueError(f"an id has {len(name)} characters instead of 1 to {LONGEST_QUOTED}")
    return name if name.isprintable() else printable(name.replace("\\", "\\\\"))


def entry_problem(error: Exception) -> str:
    """Return why an entry of a list is excluded, given the error that it caused."""
    return f"the entry cannot be read ({type(error).__name__}: {quote(error)})"


def none_usable(directory: Path, count: int, noun: str, faulty: Mapping[str, str], dataset: str) -> str:
    """Return the message for a dataset with `count` items, none of them usable."""
    tried = f"its {count}" if len(faulty) == count else f"the {len(faulty)} that were tried of its {count}"
    example = next((f", for example {dataset}-{name}: {reason}" for name, reason in faulty.items()), "")
    remedy = "check that its list and its images belong together, or download both again"
    return f"{directory}: none of {tried} {noun} can be used{example}; {remedy}"


def shortened(text: str) -> str:
    """Return the text, cut to one character more than the longest caption; it still counts as too long."""
    return text[: MOST_CAPTION + 1]


def find_captions_fault(texts: Sequence[str | None]) -> str:
    """Return why an image's captions cannot be used; empty if they can. A caption that is not text is None."""
    lengths = [len(text or "") for text in texts]
    if len(texts) > _MOST_CAPTIONS:
        return f"it has {len(texts):,} captions, more than {_MOST_CAPTIONS:,}"
    if max(lengths, default=0) > MOST_CAPTION:
        return f"a caption has more than {MOST_CAPTION:,} characters"
    if sum(lengths) > MOST_TOGETHER:
        return f"its captions have more than {MOST_TOGETHER:,} characters together"
    if tidy_captions(texts):
        return ""
    return "no caption is text" if None in texts else "no captions"


def tidy_captions(texts: Iterable[str | None]) -> tuple[str, ...]:
    """Return the distinct captions with normalised white space and without control characters.

    HTML entities are decoded, and empty captions are dropped.
    """
    unescaped = (html.unescape(text or "") for text in texts)
    return tuple(dict.fromkeys(tidy for text in unescaped if (tidy := " ".join(_written(text).split()))))


def _written(text: str) -> str:
    return text if text.isprintable() else "".join(" " if unicodedata.category(s) in _UNWRITTEN else s for s in text)


def _as_number(name: str) -> tuple[bool, int, str]:
    """Return a sort key that puts numbers first, by size."""
    number = name.isascii() and name.isdigit()
    return not number, int(name) if number else 0, name
