"""A figure as files and as a part of a page: SVG whose colours are the page's variables, and PNG."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from harness.errors import printable
from harness.report.palette import COLOURS

PNG_DPI = 160
# Letters stay letters, so that they are found, read aloud and edited; names inside are the same in every run.
# A name with dollar signs is a name and no formula.
_SETTINGS: dict[str, Any] = {"svg.fonttype": "none", "svg.hashsalt": "vlm-phase-harness", "text.parse_math": False}


@contextmanager
def figure_settings() -> Iterator[None]:
    """Draw inside the block as every figure is drawn, whatever a user has set for matplotlib."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # A letter that the font has not is a letter of somebody's name: a box in a picture is no reason to stop.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)  # type: ignore[arg-type]
        yield


def to_svg(figure: Figure) -> str:
    """Return the figure as an SVG document, the same bytes in every run."""
    buffer = io.StringIO()
    with figure_settings():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def to_png(figure: Figure) -> bytes:
    """Return the figure as a PNG of 160 dots an inch."""
    buffer = io.BytesIO()
    with figure_settings():
        figure.savefig(buffer, format="png", dpi=PNG_DPI, metadata={"Software": None}, pil_kwargs={"compress_level": 4})
    return buffer.getvalue()


def inline(svg: str, name: str, alternative: str) -> Markup:
    """Return the SVG as a part of a page: named, described for those who do not see it, in the page's colours.

    Args:
        svg: a document of `to_svg`.
        name: of the figure, an id that no other element of the page has. Ids inside begin with it and a colon, which
            no other id has.
        alternative: what the figure shows, in words.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}:\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{name}:\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}:\1)", body)
    for colour in COLOURS:
        body = re.sub(rf"{colour.light}\b", f"var({colour.variable},{colour.light})", body, flags=re.IGNORECASE)
    # The page sizes it; what is left is its shape.
    head, rest = body.split(">", 1)
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    return Markup(  # noqa: S704 - matplotlib's own markup, in which every text is escaped
        f'{head} role="img" aria-label="{escape(printable(alternative))}" class="figure">{rest}'
    )
