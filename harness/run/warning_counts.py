"""Counts of library warnings while a model is loaded and measured; they are never raised."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TextIO, cast

from harness.errors import printable
from harness.models.library_messages import plain_messages

_LONGEST = 240  # characters of a warning's text
_MOST_KINDS = 5
# Numbers in a warning's text, such as counts or times, do not distinguish kinds.
_NUMBER = re.compile(r"0x[0-9a-f]+|\d+(\.\d+)?")


class WarningCounts(Counter[str]):
    """Number of warnings per kind; a kind is the category, the text without numbers, and the source line."""

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Count warnings instead of printing or raising them; warnings that a filter ignores are not counted.

        A library's warning is no fault of the measured model, so `-W error` raises nothing here.
        """
        with warnings.catch_warnings(), plain_messages():
            filters = list(warnings.filters)
            warnings.resetwarnings()
            warnings.simplefilter("always")
            for action, message, category, module, line in reversed(filters):
                new_action: Literal["ignore", "always"] = "ignore" if action == "ignore" else "always"
                kind = cast(type[Warning], category)
                warnings.filterwarnings(new_action, _pattern(message), kind, _pattern(module), line)
            warnings.showwarning = self._count
            yield

    def lines(self) -> list[str]:
        """Return a line on the number of warnings and one per kind, the most frequent first; empty without warnings."""
        if not self:
            return []
        counts, first = Counter[str](), dict[str, str]()
        for kind, count in self.items():
            source, _, text = kind.partition(": ")
            counts[first.setdefault(f"{source}: {_NUMBER.sub('0', text)}", kind)] += count
        often = counts.most_common(_MOST_KINDS)
        kinds = [f"  {'once' if count == 1 else f'{count} times'} {kind}" for kind, count in often]
        further = len(counts) - len(kinds)
        head = f"warnings while measuring: {self.total()} of {_plural(len(counts), 'kind')}"
        return [head, *kinds, *([f"  and {_plural(further, 'more kind')}"] if further else [])]

    def _count(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = printable(" ".join(str(message).split()), _LONGEST)
        self[f"{category.__name__} at {Path(filename).name}:{lineno}: {text}"] += 1


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _pattern(matcher: Any) -> str:
    """Return a filter's regular expression as text; filters hold it compiled, as text or as None."""
    return "" if matcher is None else str(getattr(matcher, "pattern", matcher))
