"""The HTML page of a run: figures, verdicts and provenance of every pair in one self-contained file.

The page runs no script and loads no other file; all texts are escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness.analysis.claims import CLAIMS
from harness.data.sample import left_out_lines
from harness.errors import printable, shorten, shorten_texts
from harness.judgement.landmarks import landmark_text
from harness.judgement.paper import paper_claims
from harness.judgement.phases import CLAIM_NAMES
from harness.profile.profile import Drawing
from harness.report.against import ModelComparison, comparison_rows
from harness.report.descriptions import PAPER_FIGURES, DecodedLayer
from harness.report.glossary import GLOSSARY
from harness.report.headline import BASELINE, PairAnswer, headline, pair_answer
from harness.report.image_flow import flow_sentences
from harness.report.meanings import (
    ExplainedVerdict,
    boundary_sentence,
    certainty_sentence,
    explain_verdict,
    verdict_meaning,
)
from harness.report.outcomes import PairOutcome
from harness.report.palette import COLOURS
from harness.report.record import without_directories
from harness.report.rephrased import rephrasing_text
from harness.report.svg import inline
from harness.report.verdict_words import VERDICTS
from harness.run.session_results import SessionResults
from harness.storage.file_names import short_name

#: The ids of elements in the template.
PAGE_IDS = ("main", "overview", "reading", "theme-auto", "theme-dark", "theme-light")
#: The endings of the files of every figure, in the order of the links.
FORMATS = ("csv", "svg", "png", "pdf")


class PageFigure(NamedTuple):
    """A figure on the page: a unique name, a description for screen readers, the caption, and its kind.

    The kind is a key of `descriptions.CAPTIONS`, and of `PAPER_FIGURES` if the paper has the figure.
    """

    name: str
    alternative: str
    caption: str
    kind: str = ""


class SampleSection(NamedTuple):
    """A sample that the page shows in full."""

    drawing: Drawing
    figures: tuple[PageFigure, ...]
    layers: Sequence[DecodedLayer]


class PairPage(NamedTuple):
    """The content of the page for one pair; `anchor` is the id of its section."""

    outcome: PairOutcome
    anchor: str
    record: Mapping[str, Any]
    figures: tuple[PageFigure, ...]
    samples: tuple[SampleSection, ...]


class PairSection(NamedTuple):
    """A pair with its answer and its verdicts in sentences.

    `unfolded` is True if the page opens with its details. With --phase-rephrase, `rephrasing` is the sentence on the
    second instruction, and `boundaries` is the verdict on its boundaries.
    """

    page: PairPage
    answer: PairAnswer
    claims: list[ExplainedVerdict]
    regressions: list[ExplainedVerdict]
    unfolded: bool
    rephrasing: str
    boundaries: ExplainedVerdict | None


def render_page(
    findings: SessionResults,
    pairs: Sequence[PairPage],
    figures: Sequence[PageFigure],
    drawings: Mapping[str, str],
    record: Mapping[str, Any],
    comparisons: Sequence[ModelComparison],
) -> str:
    """Return the page as HTML.

    Args:
        findings: the findings of the run.
        pairs: the pairs, in the order of the page.
        figures: the figures that show all pairs, the phase diagram first.
        drawings: every figure as an SVG document, by name.
        record: the record of the run.
        comparisons: the comparisons with the model of --phase-against.
    """
    environment = Environment(
        loader=PackageLoader("harness.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters |= {"short_name": short_name, "shorten_texts": shorten_texts}
    references = {
        pair: {name: str(claim.verdict) for name, claim in findings.claims(pair).items()}
        for pair in findings.compared_pairs().values()
    }
    answers = [pair_answer(page.outcome, page.record, references.get(page.outcome.pair, {})) for page in pairs]
    variables = "\n".join(f"  {colour.variable}: light-dark({colour.light}, {colour.dark});" for colour in COLOURS)
    styles = files("harness.report").joinpath("page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html.jinja").render(
        sections=_sections(pairs, answers),
        headline=headline(answers, findings.inconclusive_reason()) if answers else None,
        figures=figures,
        drawings=drawings,
        inline=inline,
        numbers=figure_numbers(pairs, figures),
        formats=FORMATS,
        paper_figures=PAPER_FIGURES,
        record=record,
        created=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        comparisons=comparisons,
        others=dict.fromkeys(answer.other for answer in answers if answer.other) or [BASELINE],
        written=[f"{'/'.join(path.parts[-2:])} ({how})" for path, how in findings.written.items()],
        styles=Markup(f":root {{\n{variables}\n}}\n{styles}"),  # noqa: S704 - our own file
        claims=paper_claims(),
        claim_columns=[name for name in CLAIM_NAMES if name in CLAIMS or _is_judged(name, pairs)],
        verdicts=VERDICTS,
        glossary=GLOSSARY,
        left_out_lines=left_out_lines,
        boundary_sentence=boundary_sentence,
        landmarks=landmark_text,
        certainty_sentence=certainty_sentence,
        flow_sentences=flow_sentences,
        comparison_rows=comparison_rows,
        verdict_meaning=verdict_meaning,
    )


def _is_judged(claim: str, pairs: Sequence[PairPage]) -> bool:
    return any(claim in pair.outcome.claims for pair in pairs)


def figure_numbers(pairs: Iterable[PairPage], figures: Iterable[PageFigure]) -> dict[str, int]:
    """Return the number of each figure by its name, in reading order: those of all pairs, then pair by pair."""
    names = [figure.name for figure in figures]
    for pair in pairs:
        names += [figure.name for figure in pair.figures]
        names += [figure.name for sample in pair.samples for figure in sample.figures]
    return {name: number for number, name in enumerate(names, 1)}


def _sections(pairs: Sequence[PairPage], answers: Sequence[PairAnswer]) -> list[PairSection]:
    """Return the pairs; those that changed or fail unexpectedly are unfolded, or the first if there are none."""
    unfolded = [answer.noteworthy for answer in answers]
    if not any(unfolded):
        unfolded[:1] = [True]
    return [
        PairSection(
            page,
            answer,
            list(map(explain_verdict, page.outcome.claims.values())),
            [explain_verdict(result, answer.other) for result in page.outcome.regressions.values()],
            is_open,
            without_directories(rephrasing_text(page.outcome)),
            _rephrased_boundaries(page.outcome),
        )
        for page, answer, is_open in zip(pairs, answers, unfolded, strict=True)
    ]


def _rephrased_boundaries(outcome: PairOutcome) -> ExplainedVerdict | None:
    rephrasing = outcome.rephrasing
    return None if rephrasing is None else explain_verdict(rephrasing.boundaries, "the original prompt")


def _printable(value: Any) -> Any:
    """Return a value for the template; strings are shortened, with control characters escaped."""
    return printable(shorten(value)) if isinstance(value, str) and not isinstance(value, Markup) else value
