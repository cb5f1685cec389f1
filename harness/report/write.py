"""The report of a run as a folder: the page, its figures as SVG and PNG, and its numbers as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from harness.analysis.phase_reading import PhaseReading
from harness.judgement.phases import phase_reading
from harness.profile.profile import Drawing, Profile
from harness.report.against import ModelComparison
from harness.report.descriptions import (
    CAPTIONS,
    caption,
    decoded_layers,
    described,
    described_diagram,
    described_picture,
    described_recalls,
    described_tokens,
)
from harness.report.figures import PANELS, overlay_figure, panel_figure
from harness.report.heat_maps import picture_figure, token_figure
from harness.report.outcomes import PairOutcome, outcomes_of
from harness.report.page import PAGE_IDS, DrawnSample, PageFigure, PairPage, page
from harness.report.panels import Held, marks_of
from harness.report.phase_diagram import Band, phase_diagram, recall_by_model
from harness.report.record import report_record
from harness.report.svg import drawn_alike, inline, png_of, svg_of
from harness.run.findings import Findings
from harness.storage.file_names import FileNames, short_name
from harness.storage.files import write_atomically
from harness.storage.json_text import dump


class _Report:
    """The parts of the page, made one by one; every figure is put as SVG and PNG into a folder beside it."""

    def __init__(self, found: Findings, record: Mapping[str, Any], folder: Path) -> None:
        self._found, self._record, self._folder = found, record, folder
        self._names = FileNames(set(PAGE_IDS))

    def pair(self, outcome: PairOutcome) -> PairPage:
        """Return a pair with its figures and its samples in full."""
        pair, profile, reading = outcome.pair, outcome.profile, outcome.reading
        anchor = self._names.add(f"pair-{pair}")
        held, beside = outcome.baseline, None
        # Curves of another depth have no layers in common with this one's.
        if held is not None and held.profile.depth == profile.depth:
            beside = Held(held.profile, held.label, marks_of(outcome.regressions.values()))
        figures = tuple(
            self._figure(
                str(pair),
                name,
                partial(panel_figure, profile, name, reading, beside),
                caption(name, held=beside is not None),
                described(name, profile, reading),
            )
            for name in PANELS
        )
        return PairPage(
            outcome=outcome,
            anchor=anchor,
            record=self._record["pairs"][str(pair)],
            figures=figures,
            samples=tuple(self._sample(profile, drawing, reading) for drawing in profile.drawings),
        )

    def common_figures(self, outcomes: Sequence[PairOutcome]) -> Iterator[PageFigure]:
        """The figures of all pairs together, and one of each two models that were held against each other."""
        bands, profiles = list(map(_band, outcomes)), self._found.profiles
        draw, text = partial(phase_diagram, bands), described_diagram(bands)
        yield self._figure("phase", "diagram", draw, CAPTIONS["diagram"], text)
        recalled = [profile for profile in profiles.values() if not profile.no_recall]
        if recalled:
            draw, text = partial(recall_by_model, recalled), described_recalls(recalled)
            yield self._figure("recall", "by-model", draw, CAPTIONS["recalls"], text)
        for pair, other in self._found.beside().items():
            both = profiles[pair], profiles[other]
            names = " and ".join(short_name(profile.model) for profile in both)
            yield self._figure(
                f"{pair}-against-{other.model}",
                "",
                partial(overlay_figure, *both),
                f"{names} on {pair.dataset}. {CAPTIONS['against']}",
                " ".join(described("inter", profile, phase_reading(profile)) for profile in both),
            )

    def _figure(self, of: str, kind: str, draw: Callable[[], Figure], text: str, alternative: str) -> PageFigure:
        """A figure of the page; its files carry its name, made of what it shows and which kind of figure it is."""
        name = self._names.add(of, kind)
        with drawn_alike():
            figure = draw()
        svg = svg_of(figure)
        write_atomically(self._folder / f"{name}.svg", svg.encode(), durable=False)
        write_atomically(self._folder / f"{name}.png", png_of(figure), durable=False)
        return PageFigure(name, inline(svg, name, alternative), text)

    def _sample(self, profile: Profile, drawing: Drawing, reading: PhaseReading) -> DrawnSample:
        kinds = [("tokens", token_figure, described_tokens)]
        if drawing.grid is not None:
            kinds.insert(0, ("picture", picture_figure, described_picture))
        name = f"{profile.pair}-{drawing.sample_id}"
        figures = (
            self._figure(name, kind, partial(draw, drawing, reading), CAPTIONS[kind], describe(drawing, reading))
            for kind, draw, describe in kinds
        )
        return DrawnSample(drawing, tuple(figures), decoded_layers(drawing))


def _band(outcome: PairOutcome) -> Band:
    band = Band(outcome.name, outcome.profile.depth, outcome.ends)
    if outcome.baseline is None:
        return band
    then = outcome.baseline.profile
    before = phase_reading(then).boundaries.turning_points
    return band._replace(before=tuple(point.estimate for point in before), before_depth=then.depth)


def write_report(found: Findings, compared: Sequence[ModelComparison], place: Path) -> Path:
    """Write the report of a run into a folder, which is made; returns the page.

    `index.html` needs no other file. `phase.json` holds its numbers, `figures/` its figures.

    Raises:
        OSError: the folder cannot be written to; what is in it is whole, and a page of before is untouched.
    """
    record = report_record(found, compared)
    write_atomically(place / "phase.json", dump(record), durable=False)
    report = _Report(found, record, place / "figures")
    outcomes = outcomes_of(found)
    pairs = list(map(report.pair, outcomes))
    content = page(found, pairs, list(report.common_figures(outcomes)), record, compared)
    index = place / "index.html"
    write_atomically(index, content.encode(), durable=False)
    return index
