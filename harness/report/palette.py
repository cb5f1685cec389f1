"""Colours, line styles and patterns of all figures, for light and dark pages.

Figures are drawn in the light colours. On the page each colour is a CSS variable, to which a dark page assigns the dark
value. Lines have a contrast of at least 3 to the background, text of at least 4.5. The curves of a figure also differ
by line style, so that readers with any colour vision can distinguish them.
"""

from __future__ import annotations

from typing import NamedTuple

from harness.profile.measures import MEASURES

#: A line style of matplotlib: a name, or an offset with lengths on and off.
LineStyle = str | tuple[float, tuple[float, ...]]


class Colour(NamedTuple):
    """A colour for light and for dark pages, both hexadecimal."""

    name: str
    light: str
    dark: str

    @property
    def variable(self) -> str:
        """The name of the CSS variable."""
        return f"--{self.name}"


class Style(NamedTuple):
    """Colour, line style and legend label of a curve."""

    colour: Colour
    line: LineStyle
    label: str


class PhaseLook(NamedTuple):
    """Number, fill, hatch pattern, outline and text colour of a phase's band, as matplotlib takes them."""

    number: str
    fill: str
    hatch: str
    outline: LineStyle
    ink: str


class Phase(NamedTuple):
    """A phase in figures: number, name, and the tint and hatch pattern of its band."""

    number: str
    name: str
    tint: Colour
    hatch: str

    def look(self, confirmed: bool) -> PhaseLook:
        """Return the look of its band: filled if the phase is confirmed, else hollow with its number in brackets."""
        if confirmed:
            return PhaseLook(self.number, self.tint.light, self.hatch, "-", INK.light)
        return PhaseLook(f"({self.number})", PAPER.light, "", (0, (3, 2)), FAINT.light)


INK = Colour("ink", "#1b1f24", "#eceff3")
FAINT = Colour("faint", "#59616c", "#a4adb9")
GRID = Colour("grid", "#e3e6ea", "#343b45")
PAPER = Colour("paper", "#ffffff", "#14181d")
SHADE = Colour("shade", "#f3f5f8", "#1d232a")
BLUE = Colour("blue", "#0072b2", "#58b4e8")
GREEN = Colour("green", "#007a5a", "#2fbf91")
ORANGE = Colour("orange", "#b06c00", "#f0b840")
RED = Colour("red", "#a31621", "#ff7f6b")
PURPLE = Colour("purple", "#7b3294", "#c79be8")
GREY = Colour("grey", "#767d87", "#8d96a2")

PHASES: tuple[Phase, ...] = (
    Phase("I", "alignment", Colour("phase-1", "#cfe4f3", "#1d405a"), "///"),
    Phase("II", "intra-modal encoding", Colour("phase-2", "#f7e3bb", "#57420f"), "---"),
    Phase("III", "inter-modal encoding", Colour("phase-3", "#cdeadd", "#164a39"), "\\\\\\"),
    Phase("IV", "output preparation", Colour("phase-4", "#eed7e6", "#522a46"), "xxx"),
)
COLOURS: tuple[Colour, ...] = (
    *(INK, FAINT, GRID, PAPER, SHADE, BLUE, GREEN, ORANGE, RED, PURPLE, GREY),
    *(phase.tint for phase in PHASES),
)
#: Styles of controls, in the order in which they were measured.
CONTROL_LINES: tuple[LineStyle, ...] = ((0, (5, 2)), (0, (1, 1.5)))
#: Styles for the models in a figure with several models.
SERIES = (Style(BLUE, "-", ""), Style(RED, "--", ""), Style(GREEN, "-.", ""), Style(PURPLE, ":", ""))
_BY_NAME = {colour.name: colour for colour in COLOURS}
_CHANCE = Style(GREY, ":", "another sample's words, top 5")


def curve_style(curve: str) -> Style:
    """Return the style of a plotted measure or of `recall_chance_5`."""
    if curve == "recall_chance_5":
        return _CHANCE
    line = MEASURES[curve].line
    assert line is not None
    return Style(_BY_NAME[line.colour], line.style, line.label)
