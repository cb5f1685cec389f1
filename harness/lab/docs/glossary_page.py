"""The terms of docs/glossary.md, made from the glossary of the report.

`python -m harness.lab.docs.glossary_page docs/glossary.md` writes them between the markers `<!-- terms: begin -->` and
`<!-- terms: end -->` of the page; without a page they are printed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from harness.lab.docs.pages import compact_table, rewrite_block
from harness.report.glossary import GLOSSARY, Term

BLOCK = "terms"
_PROGRAM = "python -m harness.lab.docs.glossary_page"


def glossary_tables() -> str:
    """Return a section with a table of terms for each chapter."""
    sections = [f"## {chapter}\n\n{_table(terms)}" for chapter, terms in GLOSSARY.items()]
    return "\n\n".join(sections)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables into a page, or print them; return 0, or 2 if the page lacks the markers."""
    return rewrite_block(_PROGRAM, BLOCK, glossary_tables(), arguments)


def _table(terms: Sequence[Term]) -> str:
    rows = [[f"**{term.name}**", term.meaning, term.former] for term in terms]
    if any(term.former for term in terms):
        return compact_table(rows, ["term", "meaning", "formerly"])
    return compact_table([row[:2] for row in rows], ["term", "meaning"])


if __name__ == "__main__":
    sys.exit(main())
