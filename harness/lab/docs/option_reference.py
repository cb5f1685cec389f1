"""The tables of docs/options.md, generated from `OPTIONS`: each option with its ini value, default and meaning.

`python -m harness.lab.docs.option_reference docs/options.md` writes them between the markers `<!-- options: begin -->`
and `<!-- options: end -->` of the page. Without a page, the tables are printed.
"""

from __future__ import annotations

import re
import sys

from harness.lab.docs.pages import compact_table, rewrite_block
from harness.run.option_row import Option
from harness.run.options import OPTIONS
from harness.storage.templates import render

BLOCK = "options"
#: The fields of `Options` by the title of their table, in the order of the page.
GROUPS = {
    "Models and data": (
        "models",
        "against",
        "datasets",
        "data",
        "samples",
        "seed",
        "controls",
        "control_samples",
        "download",
    ),
    "Checkpoints": ("trust_code", "allow_unused_weights"),
    "Computation": ("device", "dtype", "batch_size", "cache", "no_cache", "process_timeout"),
    "Baselines": ("baselines", "update", "update_new", "reason", "summary", "calibrate", "accept_claims"),
    "Verdicts": ("knockout", "knockout_window", "rephrase", "strict_claims", "strict_evidence"),
    "Output": ("report", "draw", "json", "markdown"),
}
_PROGRAM = "python -m harness.lab.docs.option_reference"
_NOTHING = "-"
# Words to format as code, some of which Markdown would take for mark-up.
_CODE = re.compile(r"(\$?\w*_\w+|--phase-[\w-]+|NAME=DIR|DIR/[\w.]+|ORG/NAME|fixture:NAME)")


def option_tables() -> str:
    """Return a Markdown section with a table for each group of options."""
    groups = [
        {"title": title, "rows": [_cells(OPTIONS[name]) for name in names if name in OPTIONS]}
        for title, names in GROUPS.items()
    ]
    return render("harness.lab.docs", "options.md.jinja", {"groups": groups, "table": compact_table}).strip()


def main(arguments: list[str] | None = None) -> int:
    """Write the tables into a page or print them; return 0, or 2 if the page lacks the markers."""
    return rewrite_block(_PROGRAM, BLOCK, option_tables(), arguments)


def _cells(option: Option) -> list[str]:
    return [
        f"`{option.argument} {option.metavar}".rstrip() + "`",
        _NOTHING if option.ini is None else f"`{option.ini_name}`",
        _default(option),
        _CODE.sub(r"`\1`", option.text),
    ]


def _default(option: Option) -> str:
    if not option.metavar:
        return "off"
    return (isinstance(option.ini, str) and option.ini and f"`{option.ini}`") or option.default or _NOTHING


if __name__ == "__main__":
    sys.exit(main())
