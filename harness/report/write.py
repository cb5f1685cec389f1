"""The report of a run as a folder: the page, its figures as SVG and PNG, and its numbers as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from harness.analysis.phase_reading import PhaseReading
from harness.errors import bounded_texts
from harness.judgement.known_differences import known_differences
from harness.judgement.phases import phase_reading
from harness.profile.pair import Pair
from harness.profile.profile import Drawing, Profile
from harness.report.against import ModelComparison
from harness.report.decoded import decoded_layers
from harness.report.descriptions import (
    CAPTIONS,
    caption,
    described,
    described_diagram,
    described_picture,
    described_recalls,
    described_tokens,
)
from harness.report.figures import PANELS, overlay_figure, panel_figure
from harness.report.heat_maps import picture_figure, token_figure
from harness.report.held import Held, marks_of
from harness.report.page import PAGE_IDS, DrawnSample, PageFigure, PairPage, page
from harness.report.phase_diagram import Band, phase_diagram, recall_by_model
from harness.report.record import report_record
from harness.report.svg import drawn_alike, inline, png_of, svg_of
from harness.run.findings import Findings
from harness.storage.file_names import FileNames, short_name
from harness.storage.files import write_atomically
from harness.storage.json_text import dump


@dataclass
class _Gallery:
    """Draws figures, puts each as SVG and PNG into a folder, and gives it back as a part of the page."""

    folder: Path
    names: FileNames

    def add(self, of: str, kind: str, draw: Callable[[], Figure], text: str, alternative: str) -> PageFigure:
        """A figure of the page; its files carry its name, made of what it shows and which kind of figure it is."""
        name = self.names.add(of, kind)
        with drawn_alike():
            figure = draw()
        svg = svg_of(figure)
        write_atomically(self.folder / f"{name}.svg", svg.encode(), durable=False)
        write_atomically(self.folder / f"{name}.png", png_of(figure), durable=False)
        return PageFigure(name, inline(svg, name, alternative), text)


def write_report(found: Findings, compared: Sequence[ModelComparison], place: Path) -> Path:
    """Writes the report of a run into a folder, which is made; returns the page.

    `index.html` needs no other file. `phase.json` holds its numbers, `figures/` its figures.

    Raises:
        OSError: the folder cannot be written to; what is in it is whole, and a page of before is untouched.
    """
    record = report_record(found, compared)
    write_atomically(place / "phase.json", dump(record), durable=False)
    gallery = _Gallery(place / "figures", FileNames(set(PAGE_IDS)))
    readings = {pair: found.reading(pair) for pair in found.profiles}
    held = {pair: _held(found, pair) for pair in readings}
    pairs = [_pair_page(gallery, found, pair, readings[pair], held[pair], record) for pair in readings]
    content = page(
        pairs,
        [*_common_figures(gallery, found, readings, held), *_comparisons(gallery, found)],
        record,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        problem=found.problem(),
        comparisons=[comparison.lines() for comparison in compared],
        written=[f"{'/'.join(path.parts[-2:])} ({how})" for path, how in found.written.items()],
    )
    index = place / "index.html"
    write_atomically(index, content.encode(), durable=False)
    return index


def _held(found: Findings, pair: Pair) -> Held | None:
    baseline = found.held.get(pair)
    if baseline is None:
        return None
    return Held(baseline.profile, baseline.label, marks_of(found.of_pair(pair, "regression").values()))


def _pair_page(
    gallery: _Gallery,
    found: Findings,
    pair: Pair,
    reading: PhaseReading,
    held: Held | None,
    record: Mapping[str, Any],
) -> PairPage:
    profile, anchor = found.profiles[pair], gallery.names.add(f"pair-{pair}")
    # Curves of another depth have no layers in common with this one's.
    beside = held if held is not None and held.profile.depth == profile.depth else None
    figures = tuple(
        gallery.add(
            str(pair),
            name,
            partial(panel_figure, profile, name, reading, beside),
            caption(name, held=beside is not None),
            described(name, profile, reading),
        )
        for name in PANELS
    )
    return PairPage(
        name=str(pair),
        anchor=anchor,
        record=record["pairs"][str(pair)],
        results=[result for result in found.results if result.pair == pair],
        figures=figures,
        samples=tuple(_sample(gallery, profile, drawing, reading) for drawing in profile.drawings),
        expected=known_differences(found.options.baselines).get(str(pair), {}),
    )


def _sample(gallery: _Gallery, profile: Profile, drawing: Drawing, reading: PhaseReading) -> DrawnSample:
    name = f"{profile.pair}-{drawing.sample_id}"
    figures = []
    if drawing.grid is not None:
        figures.append(
            gallery.add(
                name,
                "picture",
                partial(picture_figure, drawing, reading),
                CAPTIONS["picture"],
                described_picture(drawing, reading),
            )
        )
    figures.append(
        gallery.add(
            name,
            "tokens",
            partial(token_figure, drawing, reading),
            CAPTIONS["tokens"],
            described_tokens(drawing, reading),
        )
    )
    return DrawnSample(
        short_name(drawing.sample_id),
        drawing.instruction,
        bounded_texts(drawing.captions),
        tuple(figures),
        decoded_layers(drawing),
        drawing.no_grid,
    )


def _common_figures(
    gallery: _Gallery,
    found: Findings,
    readings: Mapping[Pair, PhaseReading],
    held: Mapping[Pair, Held | None],
) -> Iterator[PageFigure]:
    bands = [_band(pair, reading, held[pair]) for pair, reading in readings.items()]
    profiles = list(found.profiles.values())
    yield gallery.add("phase", "diagram", partial(phase_diagram, bands), CAPTIONS["diagram"], described_diagram(bands))
    recalled = [profile for profile in profiles if not profile.no_recall]
    if recalled:
        yield gallery.add(
            "recall",
            "by-model",
            partial(recall_by_model, recalled),
            CAPTIONS["recalls"],
            described_recalls(recalled),
        )


def _band(pair: Pair, reading: PhaseReading, held: Held | None) -> Band:
    name, points = short_name(str(pair)), reading.boundaries.turning_points
    if held is None:
        return Band(name, reading.last, points)
    before = phase_reading(held.profile).boundaries.turning_points
    return Band(name, reading.last, points, tuple(point.estimate for point in before), held.profile.depth)


def _comparisons(gallery: _Gallery, found: Findings) -> Iterator[PageFigure]:
    for pair, other in found.beside().items():
        profile, against = found.profiles[pair], found.profiles[other]
        yield gallery.add(
            f"{pair}-against-{other.model}",
            "",
            partial(overlay_figure, profile, against),
            f"{short_name(profile.model)} and {short_name(against.model)} on {profile.dataset}. {CAPTIONS['against']}",
            " ".join(described("inter", one, phase_reading(one)) for one in (profile, against)),
        )
