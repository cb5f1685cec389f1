"""Maps of the last token's attention, compared with shares that are computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from harness.judgement.phases import phase_reading
from harness.report.descriptions import describe_attention_map, describe_token_shares
from harness.report.heat_maps import attention_map_figure, phase_layers, phase_maps, token_figure, token_shares
from harness.tests.support.drawings import COLUMNS, ROWS, synthetic_drawing
from harness.tests.support.synthetic_profiles import L, synthetic_profile

READING = phase_reading(synthetic_profile())


def test_every_layer_is_in_one_phase() -> None:
    layers = [layer for phase in phase_layers(READING) for layer in phase]
    assert layers == list(range(L))
    turns = [int(point.estimate) for point in READING.boundaries.turning_points]
    assert [phase.stop for phase in phase_layers(READING)] == [*turns, L]


def test_shares_of_a_layer_sum_to_one_or_are_zero_without_attention() -> None:
    drawing = synthetic_drawing()
    np.testing.assert_allclose(token_shares(drawing).sum(1), 1.0)
    drawing.norm_rows[3] = 0.0
    assert (token_shares(drawing)[3] == 0.0).all()


def test_the_map_of_a_phase_is_the_mean_share_of_each_patch_over_its_layers() -> None:
    drawing = synthetic_drawing()
    for patch_map, layers in zip(phase_maps(drawing, READING), phase_layers(READING), strict=True):
        assert patch_map.shape == (ROWS, COLUMNS)
        for row in range(ROWS):
            for column in range(COLUMNS):
                token = 1 + row * COLUMNS + column
                shares = [
                    float(drawing.norm_rows[layer, token]) / float(drawing.norm_rows[layer].sum(dtype=np.float64))
                    for layer in layers
                ]
                assert patch_map[row, column] == pytest.approx(sum(shares) / len(shares))


def test_without_a_grid_there_is_no_map_over_the_image() -> None:
    with pytest.raises(ValueError, match="the image tokens of sample-0 do not form a grid"):
        attention_map_figure(synthetic_drawing(grid=False), READING)


def test_the_image_and_four_maps_of_one_scale_are_drawn() -> None:
    drawing = synthetic_drawing()
    figure = attention_map_figure(drawing, READING)
    overlays = [axes.images[1] for axes in figure.axes if len(axes.images) == 2]
    assert len(overlays) == 4
    for image, expected in zip(overlays, phase_maps(drawing, READING), strict=True):
        np.testing.assert_allclose(image.get_array(), expected)
        assert list(image.get_extent()) == [-0.5, 29.5, 19.5, -0.5]
    assert len({image.get_clim() for image in overlays}) == 1
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), drawing.image)


def test_the_token_figure_shows_all_shares_and_groups() -> None:
    drawing = synthetic_drawing()
    figure = token_figure(drawing, READING)
    drawn = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(10.0**drawn, np.maximum(token_shares(drawing), 1e-4))
    assert [text.get_text() for text in figure.axes[1].get_yticklabels()] == ["0.01%", "0.1%", "1%", "10%", "100%"]
    labels = {text.get_text() for text in figure.axes[0].get_legend().get_texts()}
    assert labels == {"image tokens", "instruction tokens", "other tokens"}


def test_the_description_names_the_patch_with_the_largest_share() -> None:
    drawing = synthetic_drawing()
    drawing.norm_rows[:, 5] += 100.0
    text = describe_attention_map(drawing, READING)
    # Token 5 is the fifth image token: row 2, column 2.
    assert text.count("most in row 2, column 2 of 2 by 3 patches") == 4
    assert "Phase IV: image " in describe_token_shares(drawing, READING)
