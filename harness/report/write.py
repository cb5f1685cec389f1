"""The report of a run as a directory: the page, its figures for page, print and plotting, and its numbers as JSON."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness.analysis.phase_reading import PhaseReading
from harness.baselines.store import Baseline
from harness.judgement.phases import phase_reading
from harness.profile.measures import plotted_measures
from harness.profile.profile import Drawing, Profile
from harness.report.against import ModelComparison
from harness.report.descriptions import (
    CAPTIONS,
    decoded_layers,
    describe_attention_map,
    describe_decoded,
    describe_diagram,
    describe_difference,
    describe_panel,
    describe_recalls,
    describe_token_shares,
    figure_caption,
)
from harness.report.difference_panels import model_difference
from harness.report.drawn_figures import (
    drawn_attention_map,
    drawn_decoded,
    drawn_diagram,
    drawn_difference,
    drawn_overlay,
    drawn_panel,
    drawn_recalls,
    drawn_tokens,
)
from harness.report.figure_files import Draw, FigureFiles
from harness.report.figures import PANELS
from harness.report.outcomes import PairOutcome, pair_outcomes
from harness.report.page import PAGE_IDS, PageFigure, PairPage, SampleSection, render_page
from harness.report.panels import OverlaidCurves, marks_by_measure
from harness.report.phase_diagram import Band
from harness.report.record import report_record
from harness.run.session_results import SessionResults
from harness.storage.file_names import FileNames, short_name
from harness.storage.files import write_atomically
from harness.storage.json_text import dump

_MANY_PAIRS = 3


class _ReportWriter:
    """Builds the sections of the page, and adds each figure to those that are drawn."""

    def __init__(self, findings: SessionResults, record: Mapping[str, Any], drawn: FigureFiles) -> None:
        self._findings, self._record, self._drawn = findings, record, drawn
        self._names = FileNames(set(PAGE_IDS))

    def pair(self, outcome: PairOutcome) -> PairPage:
        """Return the content of the page for a pair."""
        pair, profile, reading = outcome.pair, outcome.profile, outcome.reading
        anchor = self._names.add(f"pair-{pair}")
        baseline, overlaid = outcome.baseline, _overlaid(outcome)
        compared = "" if baseline is None or overlaid is None else _compared_name(baseline)
        figures = tuple(
            self._figure(
                str(pair),
                name,
                partial(drawn_panel, profile, name, reading, overlaid),
                figure_caption(name, compared),
                describe_panel(name, profile, reading),
            )
            for name in PANELS
            if _is_measured(name, profile, reading)
        )
        return PairPage(
            outcome=outcome,
            anchor=anchor,
            record=self._record["pairs"][str(pair)],
            figures=figures,
            samples=tuple(self._sample(profile, drawing, reading) for drawing in profile.drawings),
        )

    def common_figures(self, outcomes: Sequence[PairOutcome]) -> Iterator[PageFigure]:
        """Yield the figures of all pairs together, and two per comparison of two models of the same depth."""
        bands, profiles = list(map(_band, outcomes)), self._findings.profiles
        draw, text = partial(drawn_diagram, bands), describe_diagram(bands)
        yield self._figure("phase", "diagram", draw, CAPTIONS["diagram"], text)
        recalled = [profile for profile in profiles.values() if not profile.no_recall]
        if recalled:
            draw, text = partial(drawn_recalls, recalled), describe_recalls(recalled)
            yield self._figure("recall", "by-model", draw, CAPTIONS["recalls"], text, "recalls")
        by_pair = {outcome.pair: outcome for outcome in outcomes}
        for pair, other in self._findings.compared_pairs().items():
            yield from self._comparison(by_pair[pair], profiles[other])

    def _comparison(self, outcome: PairOutcome, other: Profile) -> Iterator[PageFigure]:
        """Yield both curves over the relative depth, and their difference unless the depths differ."""
        profile, reference, reading = outcome.profile, outcome.baseline, outcome.reading
        names = f"{short_name(profile.model)} and {short_name(other.model)} on {profile.dataset}"
        band = None if reference is None else model_difference(profile, reference)
        depths = f" No difference by layer: {profile.depth} and {other.depth} layers." if band is None else ""
        yield self._figure(
            f"{profile.pair}-against-{other.model}",
            "",
            partial(drawn_overlay, profile, other),
            f"{names}. {CAPTIONS['against']}{depths}",
            " ".join(describe_panel("inter", each, phase_reading(each)) for each in (profile, other)),
            "against",
        )
        if reference is not None and band is not None:
            margin = reference.margins["inter"]
            yield self._figure(
                f"{profile.pair}-against-{other.model}",
                "difference",
                partial(drawn_difference, band, reading, other.model, margin),
                f"{names}. {CAPTIONS['difference']}",
                f"{names}. {describe_difference(band, margin)}",
            )

    def _figure(
        self, subject: str, suffix: str, draw: Draw, caption: str, alternative: str, kind: str = ""
    ) -> PageFigure:
        """Add a figure to those that are drawn, and return it for the page.

        Its name consists of subject and suffix; `kind` is the suffix if it is not stated.
        """
        name = self._names.add(subject, suffix)
        self._drawn.add(name, draw)
        return PageFigure(name, alternative, caption, kind or suffix)

    def _sample(self, profile: Profile, drawing: Drawing, reading: PhaseReading) -> SampleSection:
        kinds = [("lens", drawn_decoded, describe_decoded), ("tokens", drawn_tokens, describe_token_shares)]
        if drawing.grid is not None:
            kinds.insert(0, ("picture", drawn_attention_map, describe_attention_map))
        name = f"{profile.pair}-{drawing.sample_id}"
        figures = (
            self._figure(name, kind, partial(draw, drawing, reading), CAPTIONS[kind], describe(drawing, reading))
            for kind, draw, describe in kinds
        )
        return SampleSection(drawing, tuple(figures), decoded_layers(drawing))


def _is_measured(figure: str, profile: Profile, reading: PhaseReading) -> bool:
    """Return True unless the profile lacks all measures of a figure, all controls, or the losses of samples."""
    if figure in ("controls", "flow"):
        return bool(profile.controls) if figure == "controls" else reading.knockout is not None
    measures = plotted_measures(figure)
    return not measures or bool(profile.measured(measures))


def _compared_name(baseline: Baseline) -> str:
    return baseline.label if baseline.same_run else "the baseline"


def _overlaid(outcome: PairOutcome) -> OverlaidCurves | None:
    """Return the baseline's curves; None without a baseline, or if its layers do not correspond to the profile's."""
    baseline = outcome.baseline
    if baseline is None or baseline.profile.depth != outcome.profile.depth:
        return None
    name = f"against {baseline.label}" if baseline.same_run else baseline.label
    return OverlaidCurves(baseline.profile, name, marks_by_measure(outcome.regressions.values()))


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

    `index.html` is self-contained. `phase.json` contains its numbers. `figures/` contains each figure as SVG, PDF
    and PNG at 300 dpi, and its numbers as CSV.

    Args:
        findings: the results of the run.
        comparisons: the comparisons of models.
        directory: where to write.
        record: the numbers; None computes them from the results.

    Raises:
        OSError: the directory is not writable. Files that were written are complete, and an earlier page is unchanged.
    """
    # To start a process takes longer than to draw the figures of a pair or two.
    processes = 0 if len(findings.profiles) < _MANY_PAIRS else (os.cpu_count() or 1) - 1
    drawings = {}
    with FigureFiles(processes) as drawn:
        record = report_record(findings, comparisons) if record is None else record
        write_atomically(directory / "phase.json", dump(record), durable=False)
        outcomes = pair_outcomes(findings)
        report = _ReportWriter(findings, record, drawn)
        pairs = list(map(report.pair, outcomes))
        figures = list(report.common_figures(outcomes))
        for name, files in drawn.files():
            drawings[name] = files["svg"].decode()
            for ending, content in files.items():
                write_atomically(directory / "figures" / f"{name}.{ending}", content, durable=False)
    index = directory / "index.html"
    page = render_page(findings, pairs, figures, drawings, record, comparisons)
    write_atomically(index, page.encode(), durable=False)
    return index
