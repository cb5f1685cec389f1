"""Texts under the pointer: invisible rectangles over a figure's SVG, each with a title that browsers show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import escape

from harness.errors import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Points per inch, the unit of matplotlib's SVG files.
_POINTS = 72.0


class HoverArea(NamedTuple):
    """A rectangle in the data coordinates of axes, and the text that appears over it."""

    axes: Axes
    x: tuple[float, float]
    y: tuple[float, float]
    title: str


def hover_strips(axes: Axes, titles: Sequence[tuple[float, str]], *, across: bool = False) -> list[HoverArea]:
    """Return one strip per position, which ends half way to its neighbours.

    Args:
        axes: the axes with the curves.
        titles: positions in rising order, with their texts.
        across: True for positions on the y axis.
    """
    low, high = sorted(axes.get_ylim() if across else axes.get_xlim())
    other = sorted(axes.get_xlim() if across else axes.get_ylim())
    positions = [position for position, _ in titles]
    cuts = [low, *((a + b) / 2 for a, b in pairwise(positions)), high]
    strips = []
    for (_, title), first, last in zip(titles, cuts[:-1], cuts[1:], strict=True):
        along, full = (max(first, low), min(last, high)), (other[0], other[1])
        strips.append(HoverArea(axes, full, along, title) if across else HoverArea(axes, along, full, title))
    return strips


def with_hover(svg: str, figure: Figure, areas: Iterable[HoverArea]) -> str:
    """Return an SVG document of `to_svg` with the areas on top of the figure, from which it was saved."""
    width, height = (size * _POINTS for size in figure.get_size_inches())
    rectangles = []
    for area in areas:
        corners = [(area.x[0], area.y[0]), (area.x[1], area.y[1])]
        shares = figure.transFigure.inverted().transform(area.axes.transData.transform(corners))
        (left, right), (bottom, top) = sorted(shares[:, 0] * width), sorted(shares[:, 1] * height)
        rectangles.append(
            f'<rect x="{left:.1f}" y="{height - top:.1f}" width="{right - left:.1f}" height="{top - bottom:.1f}">'
            f"<title>{escape(printable(area.title))}</title></rect>"
        )
    if not rectangles:
        return svg
    body, end, rest = svg.rpartition("</svg>")
    group = "\n".join(['<g class="hover" fill="none" pointer-events="all">', *rectangles, "</g>"])
    return f"{body}{group}\n{end}{rest}"
