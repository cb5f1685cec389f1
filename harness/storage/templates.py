"""Jinja2 templates of pages in plain text and Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def render(package: str, template: str, data: Mapping[str, Any]) -> str:
    """Return the text of a rendered template in the directory of a package.

    Nothing is escaped: the text is Markdown, not HTML.

    Args:
        package: dotted name, such as "harness.releases.sweep".
        template: file name within it, such as "types.md.jinja".
        data: the template's variables by name.

    Raises:
        jinja2.UndefinedError: the template uses a name that `data` lacks.
    """
    # Imported here because most runs write no page.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package, "."),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - Markdown
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(data)
