"""The HTML page of a run: figures, verdicts and provenance of every pair in one self-contained file.

The page runs no script and loads no other file; all texts are escaped.
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

#: The ids of elements in the template.
PAGE_IDS = ("main", "overview", "overview-table", "reading", "glossary", "theme-auto", "theme-dark", "theme-light")


class PageFigure(NamedTuple):
    """A figure on the page: a name that is unique on the page, the SVG, the caption, and its kind.

    The kind is a key of `descriptions.CAPTIONS`, and of `PAPER_FIGURES` if the paper has the figure.
    """

    name: str
    svg: Markup
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
        pairs: the pairs, in the order of the page.
        figures: the figures that show all pairs.
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
    environment.filters |= {"short_name": short_name, "shorten_texts": shorten_texts, "grouped": _grouped}
    environment.filters |= {"explained": explain_verdict}
    variables = "\n".join(f"  {colour.variable}: light-dark({colour.light}, {colour.dark});" for colour in COLOURS)
    styles = files("harness.report").joinpath("page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html.jinja").render(
        pairs=pairs,
        figures=figures,
        record=record,
        created=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
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
    """Group titles of questions by verdict, the worst first.

    Returns:
        For each group: the verdict, True if it is an expected failure, and the titles. Expected failures follow others
        with the same verdict.
    """
    titles: dict[tuple[str, bool], list[str]] = {}
    for answer in verdicts:
        known = answer.verdict == "fails" and answer.question in expected
        titles.setdefault((answer.verdict, known), []).append(answer.title)
    order = sorted(titles, key=lambda key: (WORST_FIRST.index(key[0]), key[1]))
    return [(*key, titles[key]) for key in order]


def _printable(value: Any) -> Any:
    """Return a value for the template; strings are shortened, with control characters escaped."""
    return printable(shorten(value)) if isinstance(value, str) and not isinstance(value, Markup) else value
