"""The report of a run as a directory: the page, its figures as SVG and PNG, and its numbers as JSON."""

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
    decoded_layers,
    describe_attention_map,
    describe_diagram,
    describe_panel,
    describe_recalls,
    describe_token_shares,
    figure_caption,
)
from harness.report.figures import PANELS, overlay_figure, panel_figure
from harness.report.heat_maps import attention_map_figure, token_figure
from harness.report.outcomes import PairOutcome, pair_outcomes
from harness.report.page import PAGE_IDS, PageFigure, PairPage, SampleSection, render_page
from harness.report.panels import OverlaidCurves, marks_by_measure
from harness.report.phase_diagram import Band, phase_diagram, recall_by_model
from harness.report.record import report_record
from harness.report.svg import figure_settings, inline, to_png, to_svg
from harness.run.session_results import SessionResults
from harness.storage.file_names import FileNames, short_name
from harness.storage.files import write_atomically
from harness.storage.json_text import dump


class _ReportWriter:
    """Builds the sections of the page and writes each figure as SVG and PNG."""

    def __init__(self, findings: SessionResults, record: Mapping[str, Any], directory: Path) -> None:
        self._findings, self._record, self._directory = findings, record, directory
        self._names = FileNames(set(PAGE_IDS))

    def pair(self, outcome: PairOutcome) -> PairPage:
        """Return the content of the page for a pair; its figures are written."""
        pair, profile, reading = outcome.pair, outcome.profile, outcome.reading
        anchor = self._names.add(f"pair-{pair}")
        baseline, overlaid = outcome.baseline, None
        # Curves of models of different depth have no common layers.
        if baseline is not None and baseline.profile.depth == profile.depth:
            overlaid = OverlaidCurves(baseline.profile, baseline.label, marks_by_measure(outcome.regressions.values()))
        figures = tuple(
            self._figure(
                str(pair),
                name,
                partial(panel_figure, profile, name, reading, overlaid),
                figure_caption(name, with_baseline=overlaid is not None),
                describe_panel(name, profile, reading),
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
        """Yield the figures of all pairs together, and one per comparison of two models."""
        bands, profiles = list(map(_band, outcomes)), self._findings.profiles
        draw, text = partial(phase_diagram, bands), describe_diagram(bands)
        yield self._figure("phase", "diagram", draw, CAPTIONS["diagram"], text)
        recalled = [profile for profile in profiles.values() if not profile.no_recall]
        if recalled:
            draw, text = partial(recall_by_model, recalled), describe_recalls(recalled)
            yield self._figure("recall", "by-model", draw, CAPTIONS["recalls"], text, "recalls")
        for pair, other in self._findings.compared_pairs().items():
            both = profiles[pair], profiles[other]
            names = " and ".join(short_name(profile.model) for profile in both)
            yield self._figure(
                f"{pair}-against-{other.model}",
                "",
                partial(overlay_figure, *both),
                f"{names} on {pair.dataset}. {CAPTIONS['against']}",
                " ".join(describe_panel("inter", profile, phase_reading(profile)) for profile in both),
                "against",
            )

    def _figure(
        self, subject: str, suffix: str, draw: Callable[[], Figure], caption: str, alternative: str, kind: str = ""
    ) -> PageFigure:
        """Draw a figure, write its files, and return it for the page.

        Its name consists of subject and suffix; `kind` is the suffix if it is not stated.
        """
        name = self._names.add(subject, suffix)
        with figure_settings():
            figure = draw()
        svg = to_svg(figure)
        write_atomically(self._directory / f"{name}.svg", svg.encode(), durable=False)
        write_atomically(self._directory / f"{name}.png", to_png(figure), durable=False)
        return PageFigure(name, inline(svg, name, alternative), caption, kind or suffix)

    def _sample(self, profile: Profile, drawing: Drawing, reading: PhaseReading) -> SampleSection:
        kinds = [("tokens", token_figure, describe_token_shares)]
        if drawing.grid is not None:
            kinds.insert(0, ("picture", attention_map_figure, describe_attention_map))
        name = f"{profile.pair}-{drawing.sample_id}"
        figures = (
            self._figure(name, kind, partial(draw, drawing, reading), CAPTIONS[kind], describe(drawing, reading))
            for kind, draw, describe in kinds
        )
        return SampleSection(drawing, tuple(figures), decoded_layers(drawing))


def _band(outcome: PairOutcome) -> Band:
    band = Band(outcome.name, outcome.profile.depth, outcome.ends, confirmed=outcome.reading.confirmed)
    if outcome.baseline is None:
        return band
    stored = outcome.baseline.profile
    before = phase_reading(stored).boundaries.turning_points
    return band._replace(baseline_turning_points=tuple(point.estimate for point in before), baseline_depth=stored.depth)


def write_report(
    findings: SessionResults,
    comparisons: Sequence[ModelComparison],
    directory: Path,
    record: Mapping[str, Any] | None = None,
) -> Path:
    """Write the report of a run to a directory, which is created, and return the path of the page.

    `index.html` is self-contained. `phase.json` contains its numbers, `figures/` its figures.

    Args:
        findings: the results of the run.
        comparisons: the comparisons of models.
        directory: where to write.
        record: the numbers; None computes them from the results.

    Raises:
        OSError: the directory is not writable. Files that were written are complete, and an earlier page is unchanged.
    """
    record = report_record(findings, comparisons) if record is None else record
    write_atomically(directory / "phase.json", dump(record), durable=False)
    report = _ReportWriter(findings, record, directory / "figures")
    outcomes = pair_outcomes(findings)
    pairs = list(map(report.pair, outcomes))
    content = render_page(findings, pairs, list(report.common_figures(outcomes)), record, comparisons)
    index = directory / "index.html"
    write_atomically(index, content.encode(), durable=False)
    return index
