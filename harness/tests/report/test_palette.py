"""Contrast of the colours on light and dark pages, and for readers with any colour vision."""

from __future__ import annotations

import itertools
from typing import Any

import colorspacious
import matplotlib.colors
import numpy as np
import pytest

from harness.report.palette import BLUE, COLOURS, FAINT, GREY, INK, PAPER, PHASES, SERIES, SHADE, Colour, curve_style

_COLOUR_VISION = {
    "normal": None,
    "protanopia": "protanomaly",
    "deuteranopia": "deuteranomaly",
    "tritanopia": "tritanomaly",
}
_FIGURES = (
    ("inter", "inter_instruction", "inter_adjusted"),
    ("image", "text", "instruction"),
    ("norm_image", "norm_instruction", "norm_other", "norm_self"),
    ("recall_5", "recall_1", "recall_chance_5"),
)


def linear(colour: str) -> np.ndarray:
    values = np.array(matplotlib.colors.to_rgb(colour))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(first: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2."""
    light = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) + 0.05 for colour in (first, other))
    return light[1] / light[0]


@pytest.mark.parametrize("side", ["light", "dark"])
def test_text_and_lines_have_contrast_to_the_background(side: str) -> None:
    backgrounds = [getattr(colour, side) for colour in (PAPER, SHADE)]
    for background in backgrounds:
        assert contrast(getattr(INK, side), background) >= 7.0
        assert contrast(getattr(FAINT, side), background) >= 4.5
        for style in (*map(curve_style, itertools.chain(*_FIGURES)), *SERIES):
            assert contrast(getattr(style.colour, side), background) >= 3.0, style
    for phase in PHASES:
        assert contrast(getattr(INK, side), getattr(phase.tint, side)) >= 4.5


@pytest.mark.parametrize("names", _FIGURES)
def test_curves_of_one_figure_differ_by_line_style_and_label(names: tuple[str, ...]) -> None:
    assert len({str(curve_style(name).line) for name in names}) == len(names)
    assert len({curve_style(name).label for name in names}) == len(names)


def test_phases_differ_by_pattern_and_number() -> None:
    assert len({phase.hatch for phase in PHASES}) == len({phase.number for phase in PHASES}) == 4


@pytest.mark.parametrize("side", ["light", "dark"])
@pytest.mark.parametrize("vision", list(_COLOUR_VISION))
@pytest.mark.parametrize("names", _FIGURES)
def test_curves_of_one_figure_are_distinct_for_any_colour_vision(
    side: str, vision: str, names: tuple[str, ...]
) -> None:
    def seen(colour: Colour) -> Any:
        values = np.array(matplotlib.colors.to_rgb(getattr(colour, side)))
        if _COLOUR_VISION[vision] is None:
            return values
        space = {"name": "sRGB1+CVD", "cvd_type": _COLOUR_VISION[vision], "severity": 100}
        return np.clip(colorspacious.cspace_convert(values, space, "sRGB1"), 0.0, 1.0)

    # Differences to two controls have the first two styles of a series; the map of words fills cells in blue and grey.
    groups = [{curve_style(name).colour for name in names}, {style.colour for style in SERIES[:2]}, {BLUE, GREY, PAPER}]
    for first, other in (pair for group in groups for pair in itertools.combinations(group, 2)):
        # Distance in CAM02-UCS, in which a visible difference is about 1.
        assert colorspacious.deltaE(seen(first), seen(other), input_space="sRGB1") > 9.0, (first, other)


def test_names_and_light_values_of_colours_are_unique() -> None:
    assert len({colour.name for colour in COLOURS}) == len(COLOURS)
    # Inline SVG replaces colours by their light value, so the values must be unique.
    assert len({colour.light for colour in COLOURS}) == len(COLOURS)
