"""The numbers of a figure as a table: the CSV file beside it, and the texts that appear under the pointer."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from harness.analysis.phase_reading import PhaseReading
from harness.errors import printable
from harness.profile.measures import MEASURES, POINTS, plotted_measures
from harness.profile.profile import Array, Profile, as_floats
from harness.report.difference_panels import control_bands
from harness.report.image_flow import CONTROL_LABELS, PATH_LABELS
from harness.report.palette import curve_style
from harness.report.panels import OverlaidCurves, attention_layers, segment_steps

#: Every tenth prominence has a text under the pointer.
_PROMINENCE_STEP = 10


class FigureColumn(NamedTuple):
    """A column: its name in the CSV file, its values, and its label under the pointer, empty to leave it out there."""

    name: str
    values: Sequence[Any] | Array
    label: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class FigureTable:
    """The numbers that a figure shows, one row per position. The first column holds the positions.

    `unit` stands before a position under the pointer, and every `step`-th row has a text there.
    """

    columns: tuple[FigureColumn, ...]
    unit: str = "layer"
    step: int = 1

    def to_csv(self) -> str:
        """Return the table as CSV with a header. Numbers have six significant digits, NaN is an empty cell."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(column.name for column in self.columns)
        writer.writerows(map(_cell, row) for row in zip(*(column.values for column in self.columns), strict=True))
        return text.getvalue()

    def titles(self) -> list[tuple[float, str]]:
        """Return positions with their texts under the pointer: (16.0, 'layer 16: image 0.52, text 0.61')."""
        positions, *columns = self.columns
        titles = []
        for row, position in list(enumerate(positions.values))[:: self.step]:
            values = [
                f"{column.label} {column.values[row]:.3g}"
                for column in columns
                if column.label and not math.isnan(column.values[row])
            ]
            titles.append((float(position), f"{self.unit} {_cell(position)}: {', '.join(values)}"))
        return titles


def panel_table(name: str, profile: Profile, reading: PhaseReading, overlaid: OverlaidCurves | None) -> FigureTable:
    """Return the numbers of a panel of `PANELS`: the mean curves, the ends of their bands, controls and a baseline."""
    special = {"segments": _segment_columns, "controls": _control_columns, "flow": _flow_columns}
    if name in special:
        columns = tuple(special[name](profile, reading))
        return FigureTable(columns, "prominence", _PROMINENCE_STEP) if name == "segments" else FigureTable(columns)
    names = plotted_measures("lens" if name == "recall" else name)
    return FigureTable(tuple(_family_columns(name, names, profile, overlaid)))


def _family_columns(
    panel: str, names: tuple[str, ...], profile: Profile, overlaid: OverlaidCurves | None
) -> Iterator[FigureColumn]:
    unit, axis = _UNITS.get(panel, "cosine"), MEASURES[names[0]].axis
    with_attention = panel in ("attention", "image_attention")
    indices = attention_layers(profile) if with_attention else np.arange(profile.depth + 1 - axis.first)
    yield FigureColumn("residual_point" if axis is POINTS else "layer", indices + axis.first)
    curves = {
        name: (profile[name], curve_style(name).label) for name in profile.measured((*names, *_CHANCE.get(panel, ())))
    }
    if panel == "inter":
        curves |= {f"control_{name}": (each["inter"], f"control {name}") for name, each in profile.controls.items()}
    for name, (rows, label) in curves.items():
        values = as_floats(rows[:, indices])
        yield FigureColumn(f"{name}_mean_{unit}", values.mean(0), label)
        if panel not in ("inter", "recall") or name == "inter":
            for share, row in zip((10, 90), np.quantile(values, [0.1, 0.9], axis=0), strict=True):
                yield FigureColumn(f"{name}_quantile_{share}_{unit}", row)
    if panel == "inter":
        after = np.where(indices == profile.depth, profile["post_norm_inter"].mean(), np.nan)
        yield FigureColumn(f"inter_after_final_norm_{unit}", after, "after the final norm")
    if overlaid is not None:
        for name in overlaid.profile.measured(names):
            mean = as_floats(overlaid.profile[name][:, indices]).mean(0)
            yield FigureColumn(f"{name}_compared_{unit}", mean, f"{curve_style(name).label}, {overlaid.name}")


_CHANCE = {"recall": ("recall_chance_5",)}
_UNITS = {
    "attention": "share_of_norms", "recall": "share_of_words", "norms": "ratio", "integration": "distance",
    "image_attention": "share_of_weights",
}  # fmt: skip


def _segment_columns(profile: Profile, reading: PhaseReading) -> Iterator[FigureColumn]:
    shares, counts = segment_steps(reading.summary.mean)
    yield FigureColumn("prominence_share_of_range", shares)
    yield FigureColumn("segments", counts, "segments")
    for control, curves in profile.controls.items():
        counts = segment_steps(as_floats(curves["inter"]).mean(0))[1]
        yield FigureColumn(f"control_{control}_segments", counts, f"control {control}")


def _control_columns(_: Profile, reading: PhaseReading) -> Iterator[FigureColumn]:
    yield FigureColumn("residual_point", np.arange(reading.last + 1))
    for control, band in control_bands(reading).items():
        yield from band_columns(f"inter_minus_{control}", band.mean, band.half_width, f"real minus {control}")


def _flow_columns(_: Profile, reading: PhaseReading) -> Iterator[FigureColumn]:
    knockout = reading.knockout
    if knockout is None:
        yield FigureColumn("layer", ())
        return
    yield FigureColumn("layer", [loss.layers[0] for loss in knockout.paths["later"]])
    yield FigureColumn("last_layer", [loss.layers[1] for loss in knockout.paths["later"]])
    for path, losses in knockout.paths.items():
        yield FigureColumn(f"{path}_nats", [loss.effect for loss in losses], PATH_LABELS[path])
        for end, name in enumerate(("low", "high")):
            yield FigureColumn(f"{path}_{name}_nats", [loss.interval[end] for loss in losses])
    for control, losses in knockout.controls.items():
        label = f"control {CONTROL_LABELS.get(control, control)}"
        yield FigureColumn(f"control_{control}_nats", [loss.effect for loss in losses], label)


def band_columns(name: str, mean: Array, half_width: Array, label: str) -> Iterator[FigureColumn]:
    """Yield a mean difference of cosines and the ends of its band."""
    yield FigureColumn(f"{name}_cosine", mean, label)
    yield FigureColumn(f"{name}_low_cosine", mean - half_width)
    yield FigureColumn(f"{name}_high_cosine", mean + half_width)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if math.isnan(value) else f"{value:.6g}"
