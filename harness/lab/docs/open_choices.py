"""The table of docs/limits.md: what the paper leaves open and how the harness reads it, from `paper.json`.

`python -m harness.lab.docs.open_choices docs/limits.md` writes it between the markers `<!-- choices: begin -->` and
`<!-- choices: end -->` of the page. Without a page, the table is printed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from harness.lab.docs.pages import compact_table, rewrite_block
from harness.storage.project_files import bundled_baselines

BLOCK = "choices"
_PROGRAM = "python -m harness.lab.docs.open_choices"


def choice_table() -> str:
    """Return a Markdown table with a row for each declared choice of the paper's file."""
    declared = json.loads((bundled_baselines() / "paper.json").read_text(encoding="utf-8"))["declared"]
    return compact_table(list(map(list, declared.items())), ["subject", "how it is read here"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table into a page or print it; return 0, or 2 if the page lacks the markers."""
    return rewrite_block(_PROGRAM, BLOCK, choice_table(), arguments)


if __name__ == "__main__":
    sys.exit(main())
