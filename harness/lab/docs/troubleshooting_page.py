"""The tables of docs/troubleshooting.md: each kind of error with its meaning and its remedy.

The meanings come from the docstrings of the error classes, the remedies from `harness.lab.docs.remedies`.
`python -m harness.lab.docs.troubleshooting_page docs/troubleshooting.md` writes them between the markers
`<!-- errors: begin -->` and `<!-- errors: end -->` of the page. Without a page, they are printed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from harness.lab.docs.error_classes import error_classes
from harness.lab.docs.pages import compact_table, rewrite_block
from harness.lab.docs.remedies import REMEDIES

BLOCK = "errors"
_PROGRAM = "python -m harness.lab.docs.troubleshooting_page"


def error_tables() -> str:
    """Return a section with a table of errors for each chapter of the remedies."""
    classes = error_classes()
    sections = []
    for chapter, remedies in REMEDIES.items():
        rows = [[f"`{name}`", classes[name].meaning, remedy] for name, remedy in remedies.items() if name in classes]
        sections.append(f"### {chapter}\n\n{compact_table(rows, ['error', 'meaning', 'remedy'])}")
    return "\n\n".join(sections)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables into a page, or print them; return 0, or 2 if the page lacks the markers."""
    return rewrite_block(_PROGRAM, BLOCK, error_tables(), arguments)


if __name__ == "__main__":
    sys.exit(main())
