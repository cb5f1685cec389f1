"""The sections of docs/api.md, generated from the signatures and docstrings of the public names.

`python -m harness.lab.docs.api_reference docs/api.md` writes them between the markers `<!-- api: begin -->` and
`<!-- api: end -->` of the page. Without a page, they are printed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from harness.lab.docs.pages import rewrite_block
from harness.lab.docs.public_names import check_names, fixture_names, hook_names, python_names
from harness.storage.templates import render

BLOCK = "api"
_PROGRAM = "python -m harness.lab.docs.api_reference"


def api_sections() -> str:
    """Return the reference as Markdown: the names of `harness`, of `harness.checks`, the fixtures and the hooks."""
    chapters = {
        "Python": ("Names of the package `harness`.", python_names()),
        "Checks": ("Assertions for test cases, in `harness.checks`.", check_names()),
        "Fixtures": ("Fixtures of the pytest plugin. Their scope is the session.", fixture_names()),
        "Hooks": ("Hooks that a `conftest.py` or a plugin can implement.", hook_names()),
    }
    return render("harness.lab.docs", "api.md.jinja", {"chapters": chapters}).strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the sections into a page or print them; return 0, or 2 if the page lacks the markers."""
    return rewrite_block(_PROGRAM, BLOCK, api_sections(), arguments)


if __name__ == "__main__":
    sys.exit(main())
