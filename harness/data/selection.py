"""Which items of a dataset on disk are used: the first that can be, in an order drawn from the seed."""

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

#: Characters of a caption, and of all captions of a picture: the longest that are published have a few thousand. What
#: is read becomes words, tokens and pages.
MOST_CAPTION, MOST_TOGETHER = 10_000, 100_000
_MOST_CAPTIONS = 1_000
# General categories of Unicode that no caption is made of: controls, a terminal's among them, and halves of characters.
_UNWRITTEN = ("Cc", "Cs")


def first_usable(
    ids: Iterable[str],
    n: int,
    seed: int,
    dataset: str,
    fault: Callable[[str], str | None],
    most_faulty: int | None = None,
) -> tuple[list[str], dict[str, str]]:
    """Return the first n ids without a fault, and the faulty ones met on the way with what `fault` says of them.

    The order is a permutation of all ids drawn from dataset and seed. It does not depend on the order in which they
    are given, and the first m are the same for every n >= m. Where fewer than n are usable, all of them are returned.
    After `most_faulty` faulty ones no more are tried.
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
    """An item's id as messages, summaries and stored files may hold it: control characters spelled out as escapes.

    Different ids have different names.

    Raises:
        ValueError: no number or text, or none of 1 to 200 characters.
    """
    if isinstance(value, float) and value.is_integer():  # As tables with gaps give whole numbers.
        value = int(value)
    if not isinstance(value, int | str):
        raise ValueError(f"an id is {quote(repr(value))}, neither number nor text")
    name = str(value)
    if not 0 < len(name) <= LONGEST_QUOTED:
        raise ValueError(f"an id has {len(name)} characters instead of 1 to {LONGEST_QUOTED}")
    return name if name.isprintable() else printable(name.replace("\\", "\\\\"))


def entry_problem(error: Exception) -> str:
    """Why an entry of a list is left out, from the error with which it was read."""
    return f"the entry cannot be read ({type(error).__name__}: {quote(error)})"


def none_usable(directory: Path, count: int, noun: str, faulty: Mapping[str, str], dataset: str) -> str:
    """Return the sentence about a dataset of `count` items of which none can be used."""
    tried = f"its {count}" if len(faulty) == count else f"the {len(faulty)} that were tried of its {count}"
    example = next((f", for example {dataset}-{name}: {reason}" for name, reason in faulty.items()), "")
    remedy = "check that its list and its pictures belong together, or fetch both again"
    return f"{directory}: none of {tried} {noun} can be used{example}; {remedy}"


def shortened(text: str) -> str:
    """Return the text up to the first character by which it is too long for a caption."""
    return text[: MOST_CAPTION + 1]


def find_captions_fault(texts: Sequence[str | None]) -> str:
    """Return why the captions of a picture cannot be used; empty where they can. A caption that is no text is None."""
    lengths = [len(text or "") for text in texts]
    if len(texts) > _MOST_CAPTIONS:
        return f"it has {len(texts):,} captions, more than {_MOST_CAPTIONS:,}"
    if max(lengths, default=0) > MOST_CAPTION:
        return f"a caption has more than {MOST_CAPTION:,} characters"
    if sum(lengths) > MOST_TOGETHER:
        return f"its captions have more than {MOST_TOGETHER:,} characters together"
    if tidy_captions(texts):
        return ""
    return "no caption that is text" if None in texts else "no captions"


def tidy_captions(texts: Iterable[str | None]) -> tuple[str, ...]:
    """Return the captions with single spaces for white space and control characters, none at the ends, each once.

    Entities of HTML are written out. Empty captions are dropped.
    """
    whole = (html.unescape(text or "") for text in texts)
    return tuple(dict.fromkeys(tidy for text in whole if (tidy := " ".join(_written(text).split()))))


def _written(text: str) -> str:
    return text if text.isprintable() else "".join(" " if unicodedata.category(s) in _UNWRITTEN else s for s in text)


def _as_number(name: str) -> tuple[bool, int, str]:
    """Key that puts numbers first and in order of size, whatever file they came from."""
    number = name.isascii() and name.isdigit()
    return not number, int(name) if number else 0, name
