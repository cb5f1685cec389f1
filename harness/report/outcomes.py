"""The results of each pair, prepared for the table, the blocks of a narrow terminal, the page and the Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from harness.analysis.agreement import Agreement
from harness.analysis.claims import PHASES
from harness.analysis.mean_difference import Verdict
from harness.analysis.phase_reading import PhaseReading
from harness.analysis.timing import TimingRatio
from harness.analysis.turning_points import BoundaryInterval
from harness.baselines.store import Baseline
from harness.data.sample import left_out_lines
from harness.judgement.known_differences import known_differences
from harness.judgement.phases import CLAIM_NAMES, CLAIM_RECALL, segment_counts
from harness.judgement.regression import Finding
from harness.judgement.rephrasing import Rephrasing
from harness.judgement.results import NotCompared, Result
from harness.judgement.side_by_side import reading_traces
from harness.models.registry import MODELS
from harness.profile.measures import chance_measure
from harness.profile.pair import Pair
from harness.profile.profile import Profile
from harness.report.against import trace_line
from harness.report.layout import unbroken
from harness.report.verdict_words import BAD, GOOD, OPEN, QUESTIONS, VERDICTS
from harness.run.session_results import SessionResults
from harness.storage.file_names import short_name

#: The marks of claims and their meanings; `x` is pytest's letter for an expected failure.
CLAIM_MARKS: Mapping[str, str] = MappingProxyType(
    {"+": "holds", "x": "fails as expected", "f": "finding", "?": "inconclusive", "!": "unexpected"}
)
_VERBS = {
    "reproduces": "reproduces {}",
    "equivalent": "equivalent to {}",
    "inconclusive": "inconclusive against {}",
    "differs": "differs from {}",
}


class QuestionGroup(NamedTuple):
    """Questions with the same verdict; `colour` is empty if the verdict is neither good nor bad."""

    label: str
    colour: str
    questions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PairOutcome:
    """The outcome of a pair: its phases, and every verdict by question, in the order of the output.

    `known` maps claims that are known to fail to the reasons. `findings` are the failing claims that fail no test.
    `opposite` are the claims whose verdict is the opposite of the --phase-against model's. `ratio` is hooked over plain
    time with its interval. `notes` are sentences that explain regression verdicts. If something changed, they name the
    last position up to which each kind of reading is the same. They also list measures that reproduce with some changed
    samples, and measures that could not be compared. `rephrasing` holds the results under a second instruction, and
    `not_rephrased` the reason why there are none; both are empty without --phase-rephrase.
    """

    pair: Pair
    profile: Profile
    reading: PhaseReading
    claims: Mapping[str, Result]
    regressions: Mapping[str, Result]
    known: Mapping[str, str]
    baseline: Baseline | None
    ratio: TimingRatio | None
    notes: tuple[str, ...]
    findings: tuple[Result, ...] = ()
    opposite: tuple[str, ...] = ()
    rephrasing: Rephrasing | None = None
    not_rephrased: str = ""

    @property
    def name(self) -> str:
        """The shortened name for tables and headings."""
        return short_name(str(self.pair))

    @property
    def ends(self) -> tuple[BoundaryInterval, ...]:
        """The ends of phases I, II and III, in residual points 0..depth."""
        return tuple(self.reading.boundaries.turning_points)

    @property
    def segment_counts(self) -> list[int]:
        """The number of monotone segments of the mean curve at each prominence in `phases.SHARES`."""
        return [*segment_counts(self.reading.summary.mean).values()]

    @property
    def recall(self) -> tuple[float, float] | None:
        """Top 5 recall and its chance level at the last residual point; None if recall is left out."""
        if self.profile.no_recall:
            return None
        real, chance = (float(self.profile[name].mean(0)[-1]) for name in (CLAIM_RECALL, chance_measure(CLAIM_RECALL)))
        return real, chance

    @property
    def recall_text(self) -> str:
        """Recall with chance in brackets, or `left out`."""
        return "left out" if self.recall is None else "{:.2f} ({:.2f})".format(*self.recall)

    @property
    def ratio_text(self) -> str:
        """Hooked over plain time with its interval; empty if it was not measured."""
        return "" if self.ratio is None else "{:.2f} ({:.2f} to {:.2f})".format(self.ratio.ratio, *self.ratio.interval)

    def claim_groups(self) -> list[QuestionGroup]:
        """Return the claims by verdict; known failures are a group of their own."""
        return _groups({name: self._claim(result) for name, result in self.claims.items()})

    def regression_groups(self) -> list[QuestionGroup]:
        """Return families, boundaries and intervals by verdict; changes within the margin are a group of their own."""
        return _groups({name: _regression(result) for name, result in self.regressions.items()})

    def claim_marks(self) -> dict[str, str]:
        """Return the mark of each claim, a key of `CLAIM_MARKS`."""
        return {name: self._claim_mark(result) for name, result in self.claims.items()}

    def _claim_mark(self, result: Result) -> str:
        if self._claim(result)[1] == BAD:
            return "!"
        if result in self.findings:
            return "f"
        return "x" if result.verdict == "fails" else VERDICTS[result.verdict].mark

    def verdict_text(self) -> str:
        """Return the verdict against the baseline, or the other model; the worst verdict comes first."""
        other = self.compared_with
        # A question that could not be compared is not a verdict; the notes have its reason.
        groups = [group for group in self.regression_groups()[::-1] if group.label != Verdict.NOT_COMPARED]
        if not groups:
            return "no baseline compared"
        if len(groups) == 1:
            return _VERBS.get(groups[0].label, groups[0].label).format(other)
        return "; ".join(f"{unbroken(group.label)}: {', '.join(group.questions)}" for group in groups)

    @property
    def compared_with(self) -> str:
        """The other model, or `its baseline`."""
        return self.baseline.label if self.baseline is not None and self.baseline.by_id else "its baseline"

    def unexpected(self) -> list[Result]:
        """Return the verdicts that fail a test: changes, and claims whose verdict is not the known one."""
        claims = [result for result in self.claims.values() if self._claim(result)[1] == BAD]
        return claims + [result for result in self.regressions.values() if result.changed]

    def inconclusive(self) -> list[Result]:
        """Return the inconclusive verdicts."""
        results = [*self.claims.values(), *self.regressions.values()]
        return [result for result in results if result.verdict == "inconclusive" and not result.changed]

    def colour(self) -> str:
        """Return the colour of the worst verdict; empty if nothing was judged."""
        if self.unexpected():
            return BAD
        if self.inconclusive():
            return OPEN
        return GOOD if self.claims or self.regressions else ""

    def _claim(self, result: Result) -> tuple[str, str]:
        known = result.question in self.known
        if result.question in self.opposite:
            return f"{result.verdict}, unlike the other model", BAD
        if result in self.findings:
            return "fails (a finding)", ""
        if known and result.verdict == "fails":
            return "fails as known", ""
        if known and result.verdict == "holds":
            return "holds, but known to fail", BAD
        return result.verdict, VERDICTS[result.verdict].colour


def pair_outcomes(findings: SessionResults) -> list[PairOutcome]:
    """Return the outcome of each pair, in the order of the run.

    Raises:
        KnownDifferencesError: the list of known differences cannot be read.
    """
    known = (
        findings.known_differences
        if findings.known_differences is not None
        else known_differences(findings.options.baselines)
    )
    return [_outcome(findings, pair, profile, known.get(str(pair), {})) for pair, profile in findings.profiles.items()]


def exclusion_lines(profile: Profile, *, recall: bool = True) -> list[str]:
    """Return a line per reason why samples were excluded, and with `recall` the reason why it is missing."""
    lines = [line.removeprefix(f"{profile.dataset}: ") for line in left_out_lines(profile.dataset, profile.left_out)]
    return [*lines, f"recall is left out: {profile.no_recall}"] if recall and profile.no_recall else lines


def shows_relative_depth(profiles: Mapping[str, Profile]) -> bool:
    """Return True if boundaries are also shown as shares of the depth.

    Models of different depth are comparable only by relative depth, and readers do not know the depth of an
    unregistered model. For models of one depth the shares would repeat the layers.
    """
    known = all(profile.model in MODELS for profile in profiles.values())
    return not known or len({profile.depth for profile in profiles.values()}) > 1


def phase_ranges(outcome: PairOutcome) -> list[str]:
    """Return the layers of each phase, with the 99 % interval of its end unless that is a single layer."""
    edges = [0.0, *(end.estimate for end in outcome.ends), float(outcome.profile.depth)]
    ranges = []
    for phase, (name, first, last) in enumerate(zip(PHASES, edges, edges[1:], strict=False)):
        end = outcome.ends[phase] if phase < len(outcome.ends) else None
        within = "" if end is None or end.low == end.high else f" (its end within {end.low:g}-{end.high:g})"
        ranges.append(f"{name} {first:g}-{last:g}{within}")
    return ranges


def note_lines(result: Result) -> list[str]:
    """Return a line for each measure that reproduces with some changed samples, and each reason for no comparison."""
    lines: list[str] = []
    not_compared: dict[str, list[str]] = {}
    for part in result.parts:
        match part.source:
            case Finding(agreement=agreement) if part.verdict == "reproduces" and agreement.beyond_tolerance:
                lines.append(f"{part.title}: {changed_samples_text(agreement)}")
            case NotCompared(reason=reason):
                not_compared.setdefault(reason, []).append(part.title)
    return lines + [f"{', '.join(titles)}: not compared, {reason}" for reason, titles in not_compared.items()]


def changed_samples_text(agreement: Agreement) -> str:
    """Return how many samples changed in a measure that reproduces, and how many may change."""
    allowed = 100 * (1.0 - agreement.tolerance.share)
    return f"{agreement.beyond_tolerance} of {agreement.compared} samples changed; up to {allowed:.3g} % may change"


def _outcome(findings: SessionResults, pair: Pair, profile: Profile, known: Mapping[str, str]) -> PairOutcome:
    claims, regressions = (findings.verdicts_by_question(pair, kind) for kind in ("replication", "regression"))
    regressions = {name: regressions[name] for name in QUESTIONS if name in regressions}
    known = known if findings.options.against is None else {}
    failing = [result for result in claims.values() if result.verdict == "fails" and result.question not in known]
    baseline, notes = (
        findings.baselines.get(pair),
        [note for result in regressions.values() for note in note_lines(result)],
    )
    # With --phase-against the comparison of the models shows these lines.
    if (
        baseline is not None
        and findings.options.against is None
        and any(result.changed for result in regressions.values())
    ):
        notes = [*map(trace_line, reading_traces(profile, baseline)), *notes]
    return PairOutcome(
        pair=pair,
        profile=profile,
        reading=findings.reading(pair),
        claims={name: claims[name] for name in CLAIM_NAMES if name in claims},
        regressions=regressions,
        known=known,
        baseline=baseline,
        ratio=findings.ratios.get(pair),
        notes=tuple(notes),
        findings=tuple(result for result in failing if findings.fails_no_test(pair, result.question)),
        opposite=tuple(name for name in claims if findings.opposite_claim(pair, name) is not None),
        rephrasing=findings.rephrasings.get(pair),
        not_rephrased=findings.not_rephrased.get(pair, ""),
    )


def _regression(result: Result) -> tuple[str, str]:
    if result.changed and result.verdict != "differs":
        return f"{result.verdict}, but changed", BAD
    return result.verdict, VERDICTS[result.verdict].colour


def _groups(answers: Mapping[str, tuple[str, str]]) -> list[QuestionGroup]:
    """Group questions by verdict, good verdicts first."""
    order = (GOOD, "", OPEN, BAD)
    distinct = sorted(dict.fromkeys(answers.values()), key=lambda answer: order.index(answer[1]))
    return [
        QuestionGroup(*answer, tuple(question for question, value in answers.items() if value == answer))
        for answer in distinct
    ]
