"""Conversion of figures to PNG, PDF and SVG files, and to inline SVG whose colours are variables of the page."""

from __future__ import annotations

import io
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from fontTools import subset
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from harness.errors import printable
from harness.report.palette import COLOURS

#: Resolution of the PNG files, which papers accept for print.
PNG_DPI = 300
# Text stays text, which readers can search and edit. The fixed salt makes ids reproducible.
# Names with dollar signs are not formulas.
# PDF files embed TrueType fonts, because many publishers refuse Type 3.
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vlm-phase-harness",
    "pdf.fonttype": 42,
    "text.parse_math": False,
}
# Tables by which a program lays out text. A PDF states the position of every glyph.
_LAYOUT_TABLES = ("GDEF", "GPOS", "GSUB", "MATH", "kern")


@contextmanager
def figure_settings() -> Iterator[None]:
    """Use the same matplotlib settings for every figure, independent of the user's settings."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # The font may lack a character of a name; matplotlib then draws a box.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)  # type: ignore[arg-type]
        yield


def to_svg(figure: Figure) -> str:
    """Return the figure as an SVG document with the same bytes in every run."""
    buffer = io.StringIO()
    with figure_settings():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def to_png(figure: Figure) -> bytes:
    """Return the figure as a PNG at 300 dpi, compressed by runs, which suits drawings and is twice as fast."""
    buffer = io.BytesIO()
    with figure_settings():
        figure.savefig(
            buffer, format="png", dpi=PNG_DPI, metadata={"Software": None}, pil_kwargs={"compress_type": zlib.Z_RLE}
        )
    return buffer.getvalue()


def to_pdf(figure: Figure) -> bytes:
    """Return the figure as a PDF with embedded fonts and the same bytes in every run."""
    buffer = io.BytesIO()
    with figure_settings(), _fonts_without_layout():
        metadata = {"CreationDate": None, "Creator": None, "Producer": None}
        figure.savefig(buffer, format="pdf", metadata=metadata)
    return buffer.getvalue()


@contextmanager
def _fonts_without_layout() -> Iterator[None]:
    """Let matplotlib embed fonts without layout tables, whose reduction takes most of the time of a PDF."""
    load = subset.load_font

    def load_font(*args: Any, **options: Any) -> Any:
        font = load(*args, **options)
        for table in _LAYOUT_TABLES:
            if table in font:
                del font[table]
        return font

    subset.load_font = load_font
    try:
        yield
    finally:
        subset.load_font = load


def inline(svg: str, name: str, alternative: str) -> Markup:
    """Return the SVG as markup for the page, with unique ids, an `aria-label`, and the page's colour variables.

    Args:
        svg: a document of `to_svg`.
        name: of the figure, a unique id on the page. Ids inside the figure begin with the name and a colon, and no
            other id contains a colon.
        alternative: a description of the figure for screen readers.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}:\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{name}:\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}:\1)", body)
    for colour in COLOURS:
        body = re.sub(rf"{colour.light}\b", f"var({colour.variable},{colour.light})", body, flags=re.IGNORECASE)
    # The page sets the size; the `viewBox` keeps the aspect ratio.
    head, rest = body.split(">", 1)
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    return Markup(  # noqa: S704 - matplotlib escapes all texts in its markup
        f'{head} role="img" aria-label="{escape(printable(alternative))}" class="figure">{rest}'
    )
