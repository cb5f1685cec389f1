"""The reference of the `--phase-` options as a Markdown table, generated from `OPTIONS`.

`python -m harness.lab.docs.option_reference README.md` writes it between the markers `<!-- options: begin -->` and
`<!-- options: end -->` of a page. Without a page, the table is printed.
"""

from __future__ import annotations

import re
import sys

from harness.lab.docs.pages import compact_table, rewrite_block
from harness.run.option_row import Option
from harness.run.options import OPTIONS
from harness.storage.templates import render

BLOCK = "options"
_PROGRAM = "python -m harness.lab.docs.option_reference"
_NOTHING = "-"
# Words to format as code, some of which Markdown would take for mark-up.
_CODE = re.compile(r"(\$?\w*_\w+|--phase-[\w-]+|NAME=DIR|DIR/[\w.]+|ORG/NAME|fixture:NAME)")


def option_table() -> str:
    """Return a Markdown table of the `--phase-` options: name, ini value, default and meaning."""
    rows = [
        [
            f"`{option.argument} {option.metavar}".rstrip() + "`",
            _NOTHING if option.ini is None else f"`{option.ini_name}`",
            _default(option),
            _CODE.sub(r"`\1`", option.text),
        ]
        for option in OPTIONS.values()
    ]
    return render("harness.lab.docs", "options.md.jinja", {"rows": rows, "table": compact_table}).strip()


def main(arguments: list[str] | None = None) -> int:
    """Write the table into a page or print it; return 0, or 2 if the page lacks the markers."""
    return rewrite_block(_PROGRAM, BLOCK, option_table(), arguments)


def _default(option: Option) -> str:
    if not option.metavar:
        return "off"
    return (isinstance(option.ini, str) and option.ini and f"`{option.ini}`") or option.default or _NOTHING


if __name__ == "__main__":
    sys.exit(main())
