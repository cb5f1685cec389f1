"""Every figure of the report with its numbers and the texts under the pointer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from harness.analysis.control_difference import DifferenceBand
from harness.analysis.phase_reading import PhaseReading
from harness.profile.profile import Array, Drawing, Profile
from harness.report.decoded_map import decoded_areas, decodes_reference, visible_token
from harness.report.difference_panels import difference_panel
from harness.report.figure_table import FigureColumn, FigureTable, band_columns, panel_table
from harness.report.figures import fit_height, overlay_figure, panel_axes, panel_figure
from harness.report.heat_maps import attention_map_figure, decoded_figure, phase_maps, token_figure, token_shares
from harness.report.hover import HoverArea, hover_strips
from harness.report.palette import PHASES
from harness.report.panels import OverlaidCurves
from harness.report.phase_diagram import Band, band_areas, mean_recalls, phase_diagram, recall_by_model
from harness.storage.file_names import short_name


class DrawnFigure(NamedTuple):
    """A figure with its numbers and the areas whose texts appear under the pointer."""

    figure: Figure
    table: FigureTable
    areas: tuple[HoverArea, ...] = ()


def drawn_panel(
    profile: Profile, name: str, reading: PhaseReading, overlaid: OverlaidCurves | None = None
) -> DrawnFigure:
    """Draw a panel of `PANELS`."""
    return _with_strips(panel_figure(profile, name, reading, overlaid), panel_table(name, profile, reading, overlaid))


def drawn_difference(band: DifferenceBand, reading: PhaseReading, name: str, margin: float) -> DrawnFigure:
    """Draw the inter-modal similarity of a model minus that of the model `name`, layer by layer."""
    figure, axes = panel_axes()
    difference_panel(axes, band, reading, name, margin)
    fit_height(figure)
    columns = (
        FigureColumn("residual_point", np.arange(len(band.mean))),
        *band_columns("inter_difference", band.mean, band.half_width, "difference"),
        FigureColumn("margin_cosine", np.full(len(band.mean), margin), "margin"),
    )
    return _with_strips(figure, FigureTable(columns))


def drawn_overlay(profile: Profile, other: Profile) -> DrawnFigure:
    """Draw the inter-modal similarity of two models over the relative depth; each row is a layer of a model."""
    rows = [
        (short_name(each.model), layer, layer / each.depth, value)
        for each in (profile, other)
        for layer, value in enumerate(each["inter"].mean(0, dtype=np.float64))
    ]
    names = ("model", "residual_point", "relative_depth", "inter_mean_cosine")
    table = FigureTable(tuple(map(FigureColumn, names, zip(*rows, strict=True))))
    figure = overlay_figure(profile, other)
    return DrawnFigure(figure, table, tuple(hover_strips(figure.axes[0], _overlay_titles(profile, other))))


def drawn_diagram(bands: Sequence[Band]) -> DrawnFigure:
    """Draw the phase diagram; each row is a phase of a pair."""
    rows = [
        (band.name, band.depth, phase.number, confirmed, first, last)
        for band in bands
        for phase, confirmed, first, last in zip(PHASES, band.confirmed, band.edges, band.edges[1:], strict=False)
    ]
    names = ("pair", "layers", "phase", "confirmed", "first_layer", "last_layer")
    columns = tuple(map(FigureColumn, names, zip(*rows, strict=True)))
    figure = phase_diagram(bands)
    return DrawnFigure(figure, FigureTable(columns), tuple(band_areas(figure.axes[0], bands)))


def drawn_recalls(profiles: Sequence[Profile]) -> DrawnFigure:
    """Draw recall averaged over the datasets of each model; each row is a residual point of a model."""
    rows = [
        (short_name(model), point, point / (len(mean) - 1), mean[point], chance[point])
        for model, (mean, chance) in mean_recalls(profiles).items()
        for point in range(len(mean))
    ]
    names = ("model", "residual_point", "relative_depth", "recall_5_share_of_words", "recall_chance_5_share_of_words")
    columns = tuple(map(FigureColumn, names, zip(*rows, strict=True)))
    return DrawnFigure(recall_by_model(profiles), FigureTable(columns))


def drawn_attention_map(drawing: Drawing, reading: PhaseReading) -> DrawnFigure:
    """Draw the attention on the image by phase; each row is a patch."""
    maps = phase_maps(drawing, reading)
    rows, columns = np.indices(maps[0].shape)
    shares = [
        FigureColumn(f"phase_{phase.number}_share_of_norms", patches.ravel())
        for phase, patches in zip(PHASES, maps, strict=True)
    ]
    patches = (FigureColumn("patch_row", rows.ravel() + 1), FigureColumn("patch_column", columns.ravel() + 1))
    return DrawnFigure(attention_map_figure(drawing, reading), FigureTable((*patches, *shares)))


def drawn_tokens(drawing: Drawing, reading: PhaseReading) -> DrawnFigure:
    """Draw the attention on every token; each row is a layer, each column a group or a token."""
    shares = token_shares(drawing)
    groups = {name: np.flatnonzero(member) for name, member in drawing.groups.items()}
    of_token = {int(token): name for name, tokens in groups.items() for token in tokens}
    columns = [FigureColumn("layer", np.arange(1, len(shares) + 1))]
    columns += [
        FigureColumn(f"{name}_share_of_norms", shares[:, tokens].sum(1), name) for name, tokens in groups.items()
    ]
    columns += [
        FigureColumn(f"token_{token}_{of_token.get(token, 'bos')}_share_of_norms", shares[:, token])
        for token in range(shares.shape[1])
    ]
    return _with_strips(token_figure(drawing, reading), FigureTable(tuple(columns)), across=True)


def drawn_decoded(drawing: Drawing, reading: PhaseReading) -> DrawnFigure:
    """Draw the map of decoded words; each row is a residual point, each column the word of a token."""
    figure = decoded_figure(drawing, reading)
    return DrawnFigure(
        figure, FigureTable(tuple(_word_columns(drawing))), tuple(decoded_areas(figure.axes[0], drawing))
    )


def _word_columns(drawing: Drawing) -> Iterator[FigureColumn]:
    yield FigureColumn("residual_point", np.arange(len(drawing.image_tokens)))
    yield FigureColumn("reference_words_share_of_image_tokens", decodes_reference(drawing).mean(1))
    for name, layers in (("last_token_top", drawing.last_token), ("image_token", drawing.image_tokens)):
        for number, words in enumerate(zip(*layers, strict=True), start=1 if name == "last_token_top" else 0):
            yield FigureColumn(f"{name}_{number}", [visible_token(word) for word in words])


def _overlay_titles(profile: Profile, other: Profile) -> list[tuple[float, str]]:
    """Return the texts at the depths of the deeper model, with the nearest layer of the other one."""
    deeper = max(profile.depth, other.depth)
    means = [(short_name(each.model), each["inter"].mean(0)) for each in (profile, other)]

    def value(mean: Array, depth: float) -> str:
        layer = round(depth * (len(mean) - 1))
        return f"layer {layer} {mean[layer]:.3g}"

    depths = [point / deeper for point in range(deeper + 1)]
    return [
        (depth, f"depth {depth:.2f}: " + ", ".join(f"{name} {value(mean, depth)}" for name, mean in means))
        for depth in depths
    ]


def _with_strips(figure: Figure, table: FigureTable, *, across: bool = False) -> DrawnFigure:
    return DrawnFigure(figure, table, tuple(hover_strips(figure.axes[0], table.titles(), across=across)))
