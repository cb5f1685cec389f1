"""The page of a run: figures, verdicts and provenance of every pair in one file that needs no other.

It runs no script and loads nothing; every text in it is escaped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness.data.sample import left_out_lines
from harness.errors import printable, shorten, shorten_texts
from harness.judgement.results import WORST_FIRST
from harness.profile.profile import Drawing
from harness.report.against import ModelComparison
from harness.report.descriptions import DecodedLayer
from harness.report.glossary import GLOSSARY
from harness.report.meanings import (
    ExplainedVerdict,
    boundary_sentence,
    certainty_sentences,
    change_sentences,
    explain_verdict,
)
from harness.report.outcomes import PairOutcome
from harness.report.palette import COLOURS
from harness.report.verdict_words import VERDICTS
from harness.run.session_results import SessionResults
from harness.storage.file_names import short_name

#: The ids that the page itself has.
PAGE_IDS = ("main", "overview", "overview-table", "reading", "theme-auto", "theme-dark", "theme-light")


class PageFigure(NamedTuple):
    """A figure on the page: its name, unique there; the SVG; the words below it."""

    name: str
    svg: Markup
    caption: str


class SampleSection(NamedTuple):
    """A sample that is shown in full."""

    drawing: Drawing
    figures: tuple[PageFigure, ...]
    layers: Sequence[DecodedLayer]


class PairPage(NamedTuple):
    """What the page tells of one pair: its phases and verdicts, its id in the page, its record, and its figures."""

    outcome: PairOutcome
    anchor: str
    record: Mapping[str, Any]
    figures: tuple[PageFigure, ...]
    samples: tuple[SampleSection, ...]


def render_page(
    findings: SessionResults,
    pairs: Sequence[PairPage],
    figures: Sequence[PageFigure],
    record: Mapping[str, Any],
    comparisons: Sequence[ModelComparison],
) -> str:
    """Return the page as HTML.

    Args:
        findings: the findings of the run.
        pairs: in the order of the page.
        figures: those of all pairs together.
        record: the record of the run.
        comparisons: the models held against each other.
    """
    environment = Environment(
        loader=PackageLoader("harness.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_legible,
    )
    environment.filters |= {"short_name": short_name, "shorten_texts": shorten_texts, "grouped": _grouped}
    environment.filters |= {"answer": explain_verdict}
    variables = "\n".join(f"  {colour.variable}: light-dark({colour.light}, {colour.dark});" for colour in COLOURS)
    styles = files("harness.report").joinpath("page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html.jinja").render(
        pairs=pairs,
        figures=figures,
        record=record,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        problem=findings.problem(),
        comparisons=[comparison.lines() for comparison in comparisons],
        written=[f"{'/'.join(path.parts[-2:])} ({how})" for path, how in findings.written.items()],
        styles=Markup(f":root {{\n{variables}\n}}\n{styles}"),  # noqa: S704 - our own file
        verdicts=VERDICTS,
        glossary=GLOSSARY,
        left_out_lines=left_out_lines,
        boundary_sentence=boundary_sentence,
        certainty_sentences=certainty_sentences,
        change_sentences=change_sentences,
    )


def _grouped(verdicts: Iterable[ExplainedVerdict], expected: Collection[str]) -> list[tuple[str, bool, list[str]]]:
    """The titles of questions by verdict, the worst first, and by True for what was expected, which comes last."""
    titles: dict[tuple[str, bool], list[str]] = {}
    for answer in verdicts:
        known = answer.verdict == "fails" and answer.question in expected
        titles.setdefault((answer.verdict, known), []).append(answer.title)
    order = sorted(titles, key=lambda key: (WORST_FIRST.index(key[0]), key[1]))
    return [(*key, titles[key]) for key in order]


def _legible(value: Any) -> Any:
    """What is put into the page, of bounded length: signs that nobody sees, or that turn a line, are spelled out."""
    return printable(shorten(value)) if isinstance(value, str) and not isinstance(value, Markup) else value
