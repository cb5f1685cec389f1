"""LogitLens of one sample as a map: residual points over image tokens, coloured by what they decode."""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from harness.analysis.curves import BoolArray
from harness.analysis.phase_reading import PhaseReading
from harness.data.words import content_words, stem
from harness.errors import LONGEST_TOKEN, printable, shorten, shorten_texts
from harness.profile.profile import Drawing
from harness.report.hover import HoverArea
from harness.report.palette import BLUE, FAINT, GREY, GRID, INK, PHASES, Colour
from harness.report.panels import dress

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The sign for a space at the ends of a token.
_SPACE = "\N{OPEN BOX}"
# Above this number of areas each residual point has one text per row of patches instead of one per word.
_MOST_AREAS = 700
# Most rows of text beside the map, and most characters of a word there.
_MOST_ROWS, _LONGEST_WORD = 42, 12


def visible_token(text: str) -> str:
    """Return a token on one line: spaces at its ends become visible signs, control characters are escaped."""
    text = shorten(text, LONGEST_TOKEN)
    inner = text.strip(" ")
    before, after = len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" "))
    if not inner:
        return _SPACE * len(text) or "(empty)"
    return _SPACE * before + printable(inner) + _SPACE * after


def reference_stems(drawing: Drawing) -> frozenset[str]:
    """Return the stems of the reference words: the content words of the sample's captions."""
    return frozenset(stem(word) for word in content_words(shorten_texts(drawing.captions)))


def decodes_reference(drawing: Drawing) -> BoolArray:
    """Return True where the top 1 token of an image token is a reference word, (points, image tokens)."""
    stems = reference_stems(drawing)
    return _cells(drawing, {text: stem(shorten(text, LONGEST_TOKEN)) in stems for text in _words(drawing)})


def decodes_word(drawing: Drawing) -> BoolArray:
    """Return True where the top 1 token of an image token holds at least two letters, (points, image tokens)."""
    return _cells(drawing, {text: sum(map(str.isalpha, text)) > 1 for text in _words(drawing)})


def draw_decoded(axes: Axes, drawing: Drawing, reading: PhaseReading) -> None:
    """Draw what each image token decodes at each residual point, and beside it the last token's top 1 token.

    Cells are filled if the token is a reference word, and grey if it is another word. Dotted lines are the boundaries
    of the phases.
    """
    points, tokens = len(drawing.image_tokens), len(drawing.image_tokens[0])
    reference = decodes_reference(drawing)
    _fill(axes, decodes_word(drawing) & ~reference, GREY, "another word or part of one", 0.35)
    _fill(axes, reference, BLUE, "a word of the captions", 1.0)
    dress(axes, "residual point", x_label="image token" if drawing.grid is None else "image token, row by row")
    axes.grid(visible=False)
    axes.set_xlim(-0.5, tokens - 0.5)
    axes.set_ylim(-0.5, points - 0.5)
    if drawing.grid is not None:
        rows, columns = drawing.grid
        for row in range(1, rows):
            axes.axvline(columns * row - 0.5, color=GRID.light, lw=0.6, zorder=3)
        axes.set_xticks([columns * row - 0.5 for row in range(rows)], [str(columns * row) for row in range(rows)])
    beside = axes.get_yaxis_transform()
    stems, step = reference_stems(drawing), math.ceil(points / _MOST_ROWS)
    axes.text(1.02, 1.015, "last token", transform=axes.transAxes, fontsize=7.5, color=FAINT.light, va="bottom")
    for point in range(0, points, step):
        text = drawing.last_token[point][0]
        word = shorten(visible_token(text), _LONGEST_WORD)
        colour = BLUE if stem(shorten(text, LONGEST_TOKEN)) in stems else INK
        axes.text(1.02, point, word, transform=beside, fontsize=6.5, color=colour.light, va="center", parse_math=False)
    for phase, confirmed, first, last in zip(
        PHASES, reading.confirmed, reading.phase_ends, reading.phase_ends[1:], strict=False
    ):
        look = phase.look(confirmed)
        axes.text(1.27, (first + last) / 2, look.number, transform=beside, fontsize=8, color=look.ink, va="center",
                  ha="center", weight="bold")  # fmt: skip
        if first:
            axes.plot([0.0, 1.3], [first, first], transform=beside, color=FAINT.light, lw=0.8, ls=(0, (2, 2)),
                      clip_on=False)  # fmt: skip
    axes.legend(
        fontsize=7.5, frameon=False, labelcolor=INK.light, ncols=2, loc="upper left", borderaxespad=0.0,
        bbox_to_anchor=(-0.02, -0.115), handlelength=1.2,
    )  # fmt: skip


def decoded_areas(axes: Axes, drawing: Drawing) -> list[HoverArea]:
    """Return the decoded words under the pointer: one text per run of equal words, or per row of patches if many."""
    runs = [
        (point, list(run))
        for point, words in enumerate(drawing.image_tokens)
        for _, run in groupby(enumerate(words), key=lambda item: item[1])
    ]
    if len(runs) > _MOST_AREAS:
        width = len(drawing.image_tokens[0]) // 8 + 1 if drawing.grid is None else drawing.grid[1]
        runs = [
            (point, list(enumerate(words))[start : start + width])
            for point, words in enumerate(drawing.image_tokens)
            for start in range(0, len(words), width)
        ]
    areas = []
    for point, run in runs:
        (first, _), (last, _) = run[0], run[-1]
        tokens = f"image token {first}" if first == last else f"image tokens {first} to {last}"
        words = " ".join(visible_token(word) for word in dict.fromkeys(word for _, word in run))
        title = f"residual point {point}, {tokens}: {words}"
        areas.append(HoverArea(axes, (first - 0.5, last + 0.5), (point - 0.5, point + 0.5), title))
    return areas


def _fill(axes: Axes, cells: BoolArray, colour: Colour, label: str, alpha: float) -> None:
    """Fill cells as one vector path, whose colour the page can change."""
    paths = []
    for point, row in enumerate(cells):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]]).astype(np.int8)))
        for first, last in edges.reshape(-1, 2):
            x, y = (first - 0.5, last - 0.5), (point - 0.5, point + 0.5)
            corners = [(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1]), (x[0], y[0])]
            paths.append(Path(corners, [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]))
    path = Path.make_compound_path(*paths) if paths else Path(np.zeros((1, 2)))
    axes.add_patch(PathPatch(path, fc=colour.light, ec="none", lw=0, alpha=alpha, label=label))


def _words(drawing: Drawing) -> set[str]:
    return {text for row in drawing.image_tokens for text in row}


def _cells(drawing: Drawing, is_true: dict[str, bool]) -> BoolArray:
    return np.array([[is_true[text] for text in row] for row in drawing.image_tokens], dtype=np.bool_)
