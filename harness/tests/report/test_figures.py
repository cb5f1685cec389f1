"""The figures show the values of the profile and of its baseline."""

from __future__ import annotations

import dataclasses
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import harness
from harness.analysis.turning_points import turning_points
from harness.judgement.phases import judge_claims, phase_reading
from harness.judgement.regression import compare, compare_boundaries
from harness.judgement.results import boundary_result, claim_result, family_result
from harness.lab.simulation.populations import to_baseline
from harness.profile.measures import FAMILIES
from harness.profile.pair import Pair
from harness.profile.profile import Profile
from harness.report.descriptions import describe_diagram
from harness.report.figures import PANELS, main, panel_figure, phase_figure, plot
from harness.report.palette import curve_style
from harness.report.panels import Mark, OverlaidCurves, marks_by_measure
from harness.report.phase_diagram import Band, phase_diagram, recall_by_model
from harness.report.svg import figure_settings, inline, to_png, to_svg
from harness.tests.support.drawings import synthetic_drawing
from harness.tests.support.saved_checkpoints import save_tiny_checkpoint
from harness.tests.support.synthetic_profiles import L, replace_arrays, synthetic_profile


@pytest.fixture(scope="module")
def profile() -> Profile:
    return synthetic_profile()


def curves(axes: Axes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return x and y of every line by its label."""
    return {str(line.get_label()): (line.get_xdata(), line.get_ydata()) for line in axes.get_lines()}


def test_four_panels_show_the_mean_curves(profile: Profile) -> None:
    figure = phase_figure(profile)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title.split()[0] for title in titles] == ["Inter-modal", "Intra-modal", "Norm-based", "LogitLens"]
    lines_by_label = curves(figure.axes[0])
    np.testing.assert_allclose(lines_by_label["image and text tokens"][1], profile["inter"].mean(0), rtol=1e-6)
    assert list(lines_by_label["after the final norm"][0]) == [L]
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("panel", "names", "first"),
    [
        ("inter", ("inter", "inter_instruction", "inter_adjusted"), 0),
        ("intra", ("image", "text", "instruction"), 0),
        ("attention", ("norm_image", "norm_instruction", "norm_other", "norm_self"), 1),
        ("recall", ("recall_5", "recall_1", "recall_chance_5"), 0),
    ],
)
def test_each_panel_draws_its_measures_over_their_own_layers(
    profile: Profile, panel: str, names: tuple[str, ...], first: int
) -> None:
    (axes,) = panel_figure(profile, panel, phase_reading(profile)).axes
    lines_by_label = curves(axes)
    for name in names:
        x, y = lines_by_label[curve_style(name).label]
        np.testing.assert_array_equal(x, np.arange(first, L + 1))
        np.testing.assert_allclose(y, profile[name].mean(0), rtol=1e-6, atol=1e-12)
    assert [text.get_text() for text in axes.texts] == ["I", "II", "III", "IV"]


def test_the_band_of_figure_1_is_the_middle_of_the_samples(profile: Profile) -> None:
    (axes,) = panel_figure(profile, "inter", phase_reading(profile)).axes
    band = axes.collections[0].get_paths()[0].vertices
    for layer in (0, 5, L):
        low, high = np.quantile(profile["inter"][:, layer], [0.1, 0.9])
        values = band[band[:, 0] == layer][:, 1]
        assert (values.min(), values.max()) == pytest.approx((low, high))


def test_a_baseline_is_drawn_and_changed_layers_are_marked(profile: Profile) -> None:
    shifted = replace_arrays(profile, inter=profile["inter"] + np.float32(0.05))
    marks = {
        "inter": Mark("differs", (3, 4)),
        "inter_adjusted": Mark("equivalent", (7,)),
        "image": Mark("differs", (9,)),
    }
    (axes,) = panel_figure(shifted, "inter", phase_reading(shifted), OverlaidCurves(profile, "baseline", marks)).axes
    lines_by_label = curves(axes)
    np.testing.assert_allclose(lines_by_label["baseline"][1], profile["inter"].mean(0), rtol=1e-6)
    assert list(lines_by_label["differs here"][0]) == [3, 4]
    assert list(lines_by_label["changed within margin"][0]) == [7]


def test_marks_of_attention_count_layers_from_one(profile: Profile) -> None:
    baseline = OverlaidCurves(profile, "baseline", {"norm_image": Mark("differs", (0, 11))})
    (axes,) = panel_figure(profile, "attention", phase_reading(profile), baseline).axes
    assert list(curves(axes)["differs here"][0]) == [1, 12]
    assert list(curves(axes)["baseline"][0]) == list(range(1, L + 1))


def test_marks_are_the_positions_of_the_verdicts(profile: Profile) -> None:
    pair, baseline = Pair("made", "curves"), to_baseline(profile)
    points = np.arange(L + 1)
    changes = {
        "inter": profile["inter"] + np.where((points == 2) | (points == 3), 0.09, 0.0).astype(np.float32),
        "text": profile["text"] + np.where(points == 5, 0.005, 0.0).astype(np.float32),
    }
    measured = replace_arrays(profile, **changes)
    results = [
        family_result(pair, compare(measured, baseline, FAMILIES[name]), baseline)
        for name in ("inter", "intra", "lens")
    ]
    results += [claim_result(pair, claim) for claim in judge_claims(phase_reading(measured)).values()]
    results.append(boundary_result(pair, compare_boundaries(measured, baseline)))
    marks = marks_by_measure(results)
    assert (marks["inter"], marks["text"]) == (Mark("differs", (2, 3)), Mark("equivalent", (5,)))
    assert marks.keys() == {"inter", "text"}


def test_the_number_of_segments_falls_with_the_prominence(profile: Profile) -> None:
    (axes,) = panel_figure(profile, "segments", phase_reading(profile)).axes
    share, segments = curves(axes)["inter-modal similarity"]
    assert (np.diff(segments) <= 0).all()
    assert segments[np.searchsorted(share, 0.1)] == 4


def test_the_phase_diagram_has_a_band_per_pair_over_relative_depth(profile: Profile) -> None:
    points = phase_reading(profile).boundaries.turning_points
    bands = [Band("first", L, points, (3.0, 6.0, 10.0), L), Band("second", 2 * L, points)]
    (axes,) = phase_diagram(bands).axes
    widths = [patch.get_width() for patch in axes.patches]
    edges = [0.0, *(point.estimate for point in points)]
    np.testing.assert_allclose(widths[:4], np.diff([*edges, L]) / L)
    np.testing.assert_allclose(widths[4:], np.diff([*edges, 2 * L]) / (2 * L))
    assert len({patch.get_hatch() for patch in axes.patches}) == 4
    labels = [text.get_text() for text in axes.texts]
    assert f"first, {L} layers" in labels
    assert f"second, {2 * L} layers" in labels
    marks = [line.get_xdata() for line in axes.get_lines() if line.get_marker() == "v"]
    np.testing.assert_allclose(marks, [[3 / L, 6 / L, 10 / L]])


def test_phases_that_are_not_confirmed_are_hollow(profile: Profile) -> None:
    flat = replace_arrays(profile, inter=profile["inter"] * np.float32(0.0) + profile["inter"][:, :1])
    reading = phase_reading(flat)
    assert reading.confirmed == (False, False, False, False)
    (axes,) = panel_figure(flat, "inter", reading).axes
    assert [text.get_text() for text in axes.texts] == ["(I)", "(II)", "(III)", "(IV)"]
    points = phase_reading(profile).boundaries.turning_points
    band = Band("first", L, points, confirmed=(True, False, True, True))
    (axes,) = phase_diagram([band]).axes
    assert [not patch.get_hatch() for patch in axes.patches] == [False, True, False, False]
    assert [patch.get_linestyle() for patch in axes.patches][1] == (0, (3, 2))
    assert describe_diagram([band]).endswith("Not confirmed: II.")


def test_recall_is_averaged_over_the_datasets_of_a_model(profile: Profile) -> None:
    no_hits = replace_arrays(profile, hits=np.zeros_like(profile["hits"]))
    other = dataclasses.replace(no_hits, dataset="others")
    alone = dataclasses.replace(no_hits, model="alone")
    (axes,) = recall_by_model([profile, other, alone]).axes
    lines_by_label = curves(axes)
    np.testing.assert_allclose(lines_by_label["made"][1], profile["recall_5"].mean(0) / 2)
    assert (lines_by_label["alone"][1] == 0.0).all()
    np.testing.assert_allclose(lines_by_label["made"][0], np.linspace(0.0, 1.0, L + 1))


def test_plot_returns_new_axes_or_draws_on_existing_axes(profile: Profile) -> None:
    axes_before = Figure().subplots()
    assert plot(profile, "recall", axes_before) is axes_before
    assert axes_before.get_title(loc="left") == "LogitLens recall at the image tokens, made-curves"
    new_axes = plot(profile)
    assert isinstance(new_axes, Axes)
    np.testing.assert_allclose(curves(new_axes)["image and text tokens"][1], profile["inter"].mean(0), rtol=1e-6)
    with pytest.raises(LookupError, match=f"no figure 'xyz'; the figures of a profile are {', '.join(PANELS)}, lens"):
        plot(profile, "xyz")
    with pytest.raises(LookupError, match=r"did you mean 'controls'\?"):
        plot(profile, "control")
    with pytest.raises(ValueError, match="has no drawn sample"):
        plot(profile, "lens")
    drawn = dataclasses.replace(profile, drawings=(synthetic_drawing(),))
    assert plot(drawn, "lens", Figure().subplots()).get_title(loc="left") == "LogitLens of sample sample-0, made-curves"


def test_two_models_are_drawn_over_relative_depth(profile: Profile) -> None:
    every_other = {
        name: array[:, ::2] for name, array in profile.arrays.items() if array.ndim > 1 and array.shape[1] == L + 1
    }
    half = dataclasses.replace(replace_arrays(profile, **every_other), model="half")
    figure = harness.phase_figure(profile, against=half)
    (axes,) = figure.axes
    lines_by_label = {line.get_label(): line for line in axes.get_lines()}
    for each, label in ((profile, f"made, {L} layers"), (half, f"half, {L // 2} layers")):
        np.testing.assert_allclose(lines_by_label[label].get_xdata(), np.linspace(0.0, 1.0, each.depth + 1))
        np.testing.assert_allclose(lines_by_label[label].get_ydata(), each["inter"].mean(0), rtol=1e-6)
    # Each model has a band, and marks at its turning points.
    assert len(axes.collections) == 2
    marks = [line.get_xdata() for line in axes.get_lines() if line.get_marker() == "o"]
    turns = [np.array(turning_points(each["inter"].mean(0), 4)) / each.depth for each in (profile, half)]
    for marked, expected in zip(marks, turns, strict=True):
        np.testing.assert_allclose(marked, expected)
    assert len({line.get_color() for line in lines_by_label.values()}) >= 2
    assert figure.get_suptitle() == "made against half on curves: 64 samples"


def test_files_do_not_depend_on_the_users_matplotlib_settings(profile: Profile) -> None:
    import matplotlib as mpl

    def drawn() -> tuple[str, bytes]:
        with figure_settings():
            figure = panel_figure(profile, "inter", phase_reading(profile))
        return to_svg(figure), to_png(figure)

    first = drawn()
    with mpl.rc_context({"lines.linewidth": 9.0, "font.size": 30.0, "axes.facecolor": "black", "text.usetex": False}):
        assert drawn() == first
    assert "image and text tokens" in first[0]


def test_inline_svg_uses_colour_variables_and_unique_ids(profile: Profile) -> None:
    with figure_settings():
        svg = to_svg(panel_figure(profile, "inter", phase_reading(profile)))
    part = str(inline(svg, "one-figure", 'rises <to> "0.5" & falls'))
    assert part.startswith("<svg ")
    assert "<?xml" not in part
    assert "<style" not in part
    assert 'role="img"' in part
    assert 'aria-label="rises &lt;to&gt; &#34;0.5&#34; &amp; falls"' in part
    assert "var(--blue,#0072b2)" in part
    ids = [piece.split('"')[0] for piece in part.split('id="')[1:]]
    assert len(ids) == len(set(ids))
    assert all(name.startswith("one-figure:") for name in ids)
    for piece in part.split('href="#')[1:] + part.split("url(#")[1:]:
        assert piece.replace(")", '"').split('"')[0] in ids


@pytest.mark.parametrize("name", ["$x^2$", "<b>&", "名前", "a\x07b", "_hidden"])
def test_names_are_not_parsed_as_formulas_or_markup(profile: Profile, name: str) -> None:
    points = phase_reading(profile).boundaries.turning_points
    with figure_settings():
        svg = to_svg(phase_diagram([Band(name, L, points)]))
        recall_svg = to_svg(recall_by_model([dataclasses.replace(profile, model=name)]))
    for document in (svg, recall_svg):
        assert "<b>" not in document
        assert "\x07" not in document
        assert "another sample" in recall_svg
    assert {"$x^2$": "$x^2$, 12", "<b>&": "&lt;b&gt;&amp;, 12"}.get(name, "12 layers") in svg


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_data")
def test_the_command_draws_two_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        save_tiny_checkpoint(tmp_path / name)
    monkeypatch.setenv("VLM_PHASE_CACHE", str(tmp_path / "cache"))
    image_path = tmp_path / "both.png"
    arguments = [str(tmp_path / "one"), "tiny", str(image_path), "--samples", "4", "--against", str(tmp_path / "two")]
    monkeypatch.setattr(sys, "argv", ["figures", *arguments])
    main()
    assert image_path.read_bytes().startswith(b"\x89PNG")
