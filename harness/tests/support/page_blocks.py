"""Blocks of a Markdown page between two markers."""

from __future__ import annotations


def read_block(text: str, name: str) -> str:
    """Return the content between the only markers `<!-- NAME: begin -->` and `<!-- NAME: end -->` of a page."""
    _, rest = text.split(f"<!-- {name}: begin -->")
    content, _ = rest.split(f"<!-- {name}: end -->")
    return content.strip()
