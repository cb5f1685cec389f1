"""The CSV file and the texts under the pointer hold the numbers that a figure shows."""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from harness.analysis.control_difference import curve_difference
from harness.baselines.reference import reference_from_profile
from harness.judgement.phases import phase_reading
from harness.judgement.regression import compare
from harness.profile.measures import CURVES, FAMILIES
from harness.profile.profile import Profile
from harness.report.decoded_map import decoded_areas, decodes_reference
from harness.report.descriptions import describe_decoded, describe_difference
from harness.report.difference_panels import model_difference
from harness.report.drawn_figures import (
    DrawnFigure,
    drawn_attention_map,
    drawn_decoded,
    drawn_diagram,
    drawn_difference,
    drawn_overlay,
    drawn_panel,
    drawn_recalls,
    drawn_tokens,
)
from harness.report.figures import PANELS
from harness.report.hover import with_hover
from harness.report.panels import OverlaidCurves
from harness.report.phase_diagram import Band
from harness.report.svg import figure_settings, to_pdf, to_svg
from harness.tests.support.drawings import COLUMNS, HOSTILE, ROWS, synthetic_drawing
from harness.tests.support.synthetic_profiles import L, replace_arrays, synthetic_profile, with_knockout

DRAWING = synthetic_drawing()


@pytest.fixture(scope="module")
def profile() -> Profile:
    """A profile with one control, whose curve is lower by 0.1 up to point 5 and equal after it."""
    made = with_knockout(synthetic_profile())
    lower = np.where(np.arange(L + 1) <= 5, 0.1, 0.0).astype(np.float32)
    return dataclasses.replace(made, controls={"noise": {name: made[name] - lower for name in CURVES}})


def rows(drawn: DrawnFigure) -> list[dict[str, str]]:
    """Return the rows of the CSV file."""
    return list(csv.DictReader(io.StringIO(drawn.table.to_csv())))


def numbers(drawn: DrawnFigure, name: str) -> Any:
    """Return a column of the CSV file as numbers."""
    return np.array([float(row[name]) for row in rows(drawn)])


@pytest.mark.parametrize("panel", [name for name in PANELS if name != "segments"])
def test_the_csv_holds_every_curve_of_a_panel(profile: Profile, panel: str) -> None:
    drawn = drawn_panel(profile, panel, phase_reading(profile), OverlaidCurves(profile))
    columns = {name: [row[name] for row in rows(drawn)] for name in rows(drawn)[0]}
    for line in drawn.figure.axes[0].get_lines():
        y = np.asarray(line.get_ydata(), dtype=float)
        if len(y) == len(rows(drawn)):
            same = [
                name
                for name, column in columns.items()
                if "" not in column and np.allclose(y, [float(cell) for cell in column], rtol=1e-5, atol=1e-9)
            ]
            assert same, line.get_label()
    assert [title for _, title in drawn.table.titles()] == [area.title for area in drawn.areas]
    assert len(drawn.areas) == len(rows(drawn))


def test_a_text_under_the_pointer_names_layer_and_values(profile: Profile) -> None:
    drawn = drawn_panel(profile, "inter", phase_reading(profile))
    image = profile["inter"].mean(0)[5]
    assert drawn.areas[5].title.startswith(f"layer 5: image and text tokens {image:.3g}, ")
    assert "after the final norm" in drawn.areas[-1].title
    assert "after the final norm" not in drawn.areas[-2].title
    assert drawn.areas[5].x == (4.5, 5.5)


def test_the_areas_cover_the_panel_of_the_svg(profile: Profile) -> None:
    with figure_settings():
        drawn = drawn_panel(profile, "intra", phase_reading(profile))
    root = ElementTree.fromstring(with_hover(to_svg(drawn.figure), drawn.figure, drawn.areas))  # noqa: S314 - ours
    space = "{http://www.w3.org/2000/svg}"
    (group,) = [each for each in root.iter(f"{space}g") if each.get("class") == "hover"]
    rectangles = group.findall(f"{space}rect")
    assert [each.findtext(f"{space}title") for each in rectangles] == [area.title for area in drawn.areas]
    box = drawn.figure.axes[0].get_position()
    width = drawn.figure.get_size_inches()[0] * 72
    assert float(rectangles[0].get("x", "")) == pytest.approx(box.x0 * width, abs=0.1)
    last = float(rectangles[-1].get("x", "")) + float(rectangles[-1].get("width", ""))
    assert last == pytest.approx(box.x1 * width, abs=0.2)


def test_hostile_words_are_escaped_under_the_pointer() -> None:
    drawing = synthetic_drawing(text=HOSTILE)
    with figure_settings():
        drawn = drawn_decoded(drawing, phase_reading(synthetic_profile()))
    svg = with_hover(to_svg(drawn.figure), drawn.figure, drawn.areas)
    assert "<script" not in svg
    assert "\u202e" not in svg
    ElementTree.fromstring(svg)  # noqa: S314 - our own file


def test_real_minus_control_has_the_band_of_its_claim(profile: Profile) -> None:
    reading = phase_reading(profile)
    drawn = drawn_panel(profile, "controls", reading)
    np.testing.assert_allclose(numbers(drawn, "inter_minus_noise_cosine")[[0, 5, 6]], [0.1, 0.1, 0.0], atol=1e-6)
    above = np.flatnonzero(numbers(drawn, "inter_minus_noise_low_cosine") > 0.01)
    claim = curve_difference(reading.control_differences["noise"]["inter"], "noise", reading.alpha)
    assert tuple(above) == claim.above == tuple(range(6))
    labels = {text.get_text() for text in drawn.figure.axes[0].get_legend().get_texts()}
    assert labels == {"real minus noise", "margin 0.01"}


def test_without_controls_the_panel_says_so() -> None:
    alone = synthetic_profile()
    drawn = drawn_panel(alone, "controls", phase_reading(alone))
    assert "no control was measured" in [text.get_text() for text in drawn.figure.axes[0].texts]


def test_the_difference_of_two_models_leaves_the_margin_where_the_verdict_differs(profile: Profile) -> None:
    shift = np.where(np.arange(L + 1) == 7, 0.2, 0.0).astype(np.float32)
    other = dataclasses.replace(replace_arrays(profile, inter=profile["inter"] + shift), model="other")
    reference = reference_from_profile(other)
    band, margin = model_difference(profile, reference), reference.margins["inter"]
    assert band is not None
    drawn = drawn_difference(band, phase_reading(profile), "other", margin)
    high = numbers(drawn, "inter_difference_high_cosine")
    findings = {each.measure.name: each for each in compare(profile, reference, FAMILIES["inter"]).findings}
    assert tuple(np.flatnonzero(high < -margin)) == findings["inter"].agreement.layers == (7,)
    assert (numbers(drawn, "margin_cosine") == pytest.approx(margin, rel=1e-5)) is True
    assert "against other" in {text.get_text() for text in drawn.figure.axes[0].get_legend().get_texts()}
    assert "at residual points 7; the largest difference is -0.20 at 7" in describe_difference(band, margin)


def test_models_of_different_depth_have_no_difference_by_layer(profile: Profile) -> None:
    every_other = {
        name: array[:, ::2] for name, array in profile.arrays.items() if array.ndim > 1 and array.shape[1] == L + 1
    }
    half = dataclasses.replace(replace_arrays(profile, **every_other), model="half", controls={})
    assert model_difference(profile, reference_from_profile(half)) is None
    drawn = drawn_overlay(profile, half)
    assert [row["model"] for row in rows(drawn)] == ["made"] * (L + 1) + ["half"] * (L // 2 + 1)
    assert drawn.areas[6].title.startswith("depth 0.50: made layer 6 ")
    assert "half layer 3 " in drawn.areas[6].title


def test_the_map_of_words_marks_the_words_of_the_captions() -> None:
    reading = phase_reading(synthetic_profile())
    reference = decodes_reference(DRAWING)
    assert reference.shape == (L + 1, ROWS * COLUMNS)
    assert reference[:, :-1].all()
    assert not reference[:, -1].any()
    drawn = drawn_decoded(DRAWING, reading)
    (axes,) = drawn.figure.axes
    other, named = axes.patches
    assert len(named.get_path().vertices) == len(other.get_path().vertices) == 5 * (L + 1)
    assert named.get_path().get_extents().bounds == (-0.5, -0.5, ROWS * COLUMNS - 1, L + 1)
    texts = [text.get_text() for text in axes.texts]
    assert texts.count("word") == L + 1
    assert texts[-4:] == ["I", "II", "III", "IV"]
    words = rows(drawn)[3]
    assert {name: words[name] for name in ("image_token_5", "last_token_top_2")} == {
        "image_token_5": "other",
        "last_token_top_2": "a",
    }
    assert f"83% at residual point {L}" in describe_decoded(DRAWING, reading)


def test_words_under_the_pointer_are_runs_or_rows_of_patches_if_there_are_many() -> None:
    (axes,) = drawn_decoded(DRAWING, phase_reading(synthetic_profile())).figure.axes
    areas = decoded_areas(axes, DRAWING)
    assert [area.title for area in areas[:2]] == [
        "residual point 0, image tokens 0 to 4: word",
        "residual point 0, image token 5: other",
    ]
    many = dataclasses.replace(DRAWING, grid=(12, 12), image_tokens=(tuple(f"w{i}" for i in range(144)),) * (L + 1))
    areas = decoded_areas(axes, many)
    assert len(areas) == 12 * (L + 1)
    assert areas[1].title == "residual point 0, image tokens 12 to 23: " + " ".join(f"w{i}" for i in range(12, 24))


def test_the_other_figures_have_their_numbers(profile: Profile) -> None:
    reading = phase_reading(profile)
    patches = rows(drawn_attention_map(DRAWING, reading))
    assert [row["patch_row"] + row["patch_column"] for row in patches] == ["11", "12", "13", "21", "22", "23"]
    tokens = drawn_tokens(DRAWING, reading)
    total = sum(numbers(tokens, f"{name}_share_of_norms") for name in DRAWING.groups)
    np.testing.assert_allclose(total, 1.0, atol=1e-5)
    assert tokens.areas[2].title.startswith("layer 3: image 0.")
    assert tokens.areas[2].y == (2.5, 3.5)
    bands = [Band("pair", L, reading.boundaries.turning_points, confirmed=(True, True, False, True))]
    diagram = drawn_diagram(bands)
    assert [row["confirmed"] for row in rows(diagram)] == ["yes", "yes", "no", "yes"]
    assert diagram.areas[2].title.endswith(", not confirmed")
    recalls = drawn_recalls([profile])
    np.testing.assert_allclose(numbers(recalls, "recall_5_share_of_words"), profile["recall_5"].mean(0), rtol=1e-5)
    segments = drawn_panel(profile, "segments", reading)
    assert (len(rows(segments)), len(segments.areas)) == (301, 31)


@pytest.mark.slow
def test_a_pdf_embeds_truetype_fonts_and_has_the_same_bytes_again(profile: Profile) -> None:
    def pdf() -> bytes:
        with figure_settings():
            figure = drawn_panel(profile, "controls", phase_reading(profile)).figure
        return to_pdf(figure)

    document = pdf()
    assert document.startswith(b"%PDF")
    assert b"/Subtype /TrueType" in document or b"/CIDFontType2" in document
    assert b"/FontFile2" in document
    assert b"/Type3" not in document
    assert b"CreationDate" not in document
    assert document == pdf()
