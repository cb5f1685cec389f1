"""The page of a run: figures, verdicts and provenance of every pair in one file that needs no other.

It runs no script and loads nothing; every text in it is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness.data.sample import left_out_lines
from harness.errors import bounded, bounded_texts, shown
from harness.judgement.evidence import WORST_FIRST
from harness.report.answers import how_sure, layers_of_ends, what_changed, where_phases_end
from harness.report.decoded import DecodedLayer
from harness.report.meanings import VERDICTS, Answer, claim_answers, regression_answers
from harness.report.palette import COLOURS
from harness.storage.file_names import short_name

#: Beside each verdict, so that it is not told by colour alone.
SIGNS: Mapping[str, str] = {
    "holds": "+",
    "fails": "\N{MINUS SIGN}",
    "inconclusive": "?",
    "reproduces": "=",
    "equivalent": "\N{ALMOST EQUAL TO}",
    "differs": "!",
}

#: The ids that the page itself has.
PAGE_IDS = ("main", "overview", "overview-table", "reading", "theme-auto", "theme-dark", "theme-light")


@dataclass(frozen=True, slots=True)
class PageFigure:
    """A figure on the page: its name, unique there; the SVG; the words below it."""

    name: str
    svg: Markup
    caption: str


@dataclass(frozen=True, slots=True)
class DrawnSample:
    """A sample that is shown in full."""

    sample_id: str
    instruction: str
    captions: Sequence[str]
    figures: tuple[PageFigure, ...]
    layers: Sequence[DecodedLayer]
    no_grid: str


@dataclass(frozen=True, slots=True)
class Group:
    """Questions of one verdict; `known` says that it was expected of all of them."""

    verdict: str
    known: bool
    titles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PairPage:
    """What the page tells of one pair: its name in the record, its id in the page, its record, and its figures."""

    name: str
    anchor: str
    record: Mapping[str, Any]
    verdicts: Sequence[Mapping[str, Any]]
    figures: tuple[PageFigure, ...]
    samples: tuple[DrawnSample, ...]
    expected: Mapping[str, str]

    @property
    def title(self) -> str:
        """Its name as a heading has it."""
        return short_name(self.name)

    @property
    def left_out(self) -> list[str]:
        """The samples that were left out, a line for each reason; of many the first."""
        return left_out_lines(self.record["dataset"], self.record["left_out"])

    @property
    def differences(self) -> list[str]:
        """What is not as where the baseline was recorded; of many settings the first."""
        return bounded_texts(self.record["baseline"]["changes"])

    @property
    def bounds(self) -> str:
        """Which layers bound its phases."""
        return where_phases_end(self.record)

    @property
    def ends(self) -> list[str]:
        """The layers at which phases I, II and III end, with their intervals."""
        return layers_of_ends(self.record)

    @property
    def certainty(self) -> list[str]:
        """How sure that is."""
        return how_sure(self.record, self.verdicts)

    @property
    def changes(self) -> list[str]:
        """What changed since the baseline."""
        return what_changed(self.record, self.verdicts)

    @property
    def claims(self) -> list[Answer]:
        """The paper's claims."""
        return claim_answers(self.verdicts)

    @property
    def groups(self) -> tuple[list[Group], list[Group]]:
        """The paper's claims, and the regression questions, by their verdicts."""
        return _grouped(self.claims, self.expected), _grouped(self.regressions, {})

    @property
    def regressions(self) -> list[Answer]:
        """The regression questions."""
        return regression_answers(self.verdicts)


def page(
    pairs: Sequence[PairPage],
    figures: Sequence[PageFigure],
    record: Mapping[str, Any],
    *,
    made: str,
    problem: str = "",
    comparisons: Sequence[Sequence[str]] = (),
    written: Sequence[str] = (),
) -> str:
    """The page as HTML.

    Args:
        pairs: in the order of the page.
        figures: those of all pairs together.
        record: the record of the run.
        made: when.
        problem: why the run as a whole failed, empty where it decides enough.
        comparisons: lines on each two models held against each other.
        written: lines on the baselines that were written.
    """
    environment = Environment(
        loader=PackageLoader("harness.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_legible,
    )
    environment.filters["short_name"] = short_name
    styles = files("harness.report").joinpath("page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html.jinja").render(
        pairs=pairs,
        figures=figures,
        record=record,
        made=made,
        problem=problem,
        comparisons=comparisons,
        written=written,
        styles=Markup(f"{_variables()}\n{styles}"),  # noqa: S704 - our own file
        signs=SIGNS,
        verdicts=VERDICTS,
    )


def _grouped(answers: Sequence[Answer], expected: Mapping[str, str]) -> list[Group]:
    """The questions by verdict, the worst verdict first, what was not expected before what was."""
    titles: dict[tuple[str, bool], list[str]] = {}
    for answer in answers:
        known = answer.verdict == "fails" and answer.question in expected
        titles.setdefault((answer.verdict, known), []).append(answer.title)
    order = sorted(titles, key=lambda one: (WORST_FIRST.index(one[0]), one[1]))
    return [Group(verdict, known, tuple(titles[verdict, known])) for verdict, known in order]


def _legible(value: Any) -> Any:
    """What is put into the page, of bounded length: signs that nobody sees, or that turn a line, are spelled out."""
    return shown(bounded(value)) if isinstance(value, str) and not isinstance(value, Markup) else value


def _variables() -> str:
    """The palette as variables, each in its light and its dark value."""
    lines = [f"  {colour.variable}: light-dark({colour.light}, {colour.dark});" for colour in COLOURS]
    return ":root {\n" + "\n".join(lines) + "\n}"
