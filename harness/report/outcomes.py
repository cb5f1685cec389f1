"""What a run found of each pair, once for all who show it: the table, the blocks of a narrow terminal, the Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from harness.analysis.claims import CLAIMS, PHASES
from harness.analysis.moves import persistence
from harness.analysis.timing import TimingRatio
from harness.analysis.turning_points import BoundaryInterval
from harness.data.sample import left_out_lines
from harness.judgement.known_differences import known_differences
from harness.judgement.phases import CLAIM_RECALL, SHARES, relative_depth
from harness.judgement.results import Result
from harness.judgement.side_by_side import traces_of
from harness.models.registry import MODELS
from harness.profile.pair import Pair
from harness.profile.profile import Profile
from harness.report.against import trace_line
from harness.report.meanings import note_lines
from harness.report.verdict_words import BAD, GOOD, OPEN, QUESTIONS, VERDICTS
from harness.run.findings import Findings
from harness.storage.file_names import short_name


class QuestionGroup(NamedTuple):
    """Questions with one answer: the answer in words, its colour (empty where it is neither good nor bad), and they."""

    words: str
    colour: str
    questions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PairOutcome:
    """One pair: where its phases end (residual points 0..depth), its certified moves, and every verdict by question.

    `moves_at` counts the moves of the mean at each of `phases.SHARES` of its range; `recall` and `chance` are top 5 at
    the last point, None where recall is left out, and `no_recall` says why. `known` gives the reasons of the claims
    that are known not to hold, `ratio` hooked over plain time with its interval. Where something is not as in the
    baseline, `same_until` says up to where each kind of reading is. `beside` names the measures that reproduce although
    some samples changed, or that could not be compared.
    """

    pair: Pair
    n: int
    depth: int
    ends: tuple[BoundaryInterval, ...]
    moves: int
    moves_at: tuple[int, ...]
    recall: float | None
    chance: float | None
    claims: Mapping[str, Result]
    regressions: Mapping[str, Result]
    known: Mapping[str, str]
    ratio: TimingRatio | None
    same_until: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    no_recall: str = ""

    @property
    def name(self) -> str:
        """The pair's name as tables and headings have it."""
        return short_name(str(self.pair))

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that a reader needs beside the regression verdicts."""
        return (*self.same_until, *self.beside)

    @property
    def recall_words(self) -> str:
        """Recall with that of another sample's words in brackets, or that it is left out."""
        if self.recall is None or self.chance is None:
            return "left out"
        return f"{self.recall:.2f} ({self.chance:.2f})"

    @property
    def ratio_words(self) -> str:
        """Hooked over plain time with its interval; empty where it was not measured."""
        if self.ratio is None:
            return ""
        low, high = self.ratio.interval
        return f"{self.ratio.ratio:.2f} ({low:.2f} to {high:.2f})"

    @property
    def shares(self) -> tuple[BoundaryInterval, ...]:
        """Where the phases end, as shares of the depth."""
        return tuple(relative_depth(end, self.depth) for end in self.ends)

    def claim_groups(self) -> list[QuestionGroup]:
        """The claims by verdict; what is known to fail is told apart."""
        return _groups({name: self._claim(line) for name, line in self.claims.items()})

    def regression_groups(self) -> list[QuestionGroup]:
        """The families, boundaries and intervals by verdict; what is no longer the same is told apart."""
        return _groups({name: _regression(line) for name, line in self.regressions.items()})

    def unexpected(self) -> list[Result]:
        """The verdicts that a case fails by: what changed, and claims that are not as known."""
        claims = [line for line in self.claims.values() if self._claim(line)[1] == BAD]
        return claims + [line for line in self.regressions.values() if line.changed]

    def undecided(self) -> list[Result]:
        """The verdicts that the evidence does not decide."""
        lines = [*self.claims.values(), *self.regressions.values()]
        return [line for line in lines if line.word == "inconclusive" and not line.changed]

    def colour(self) -> str:
        """The colour of the worst verdict; empty where nothing was judged."""
        if self.unexpected():
            return BAD
        if self.undecided():
            return OPEN
        return GOOD if self.claims or self.regressions else ""

    def _claim(self, line: Result) -> tuple[str, str]:
        known = line.question in self.known
        if known and line.word == "fails":
            return "fails as known", ""
        if known and line.word == "holds":
            return "holds, known to fail", BAD
        return line.word, VERDICTS[line.word].colour


def outcomes_of(found: Findings) -> list[PairOutcome]:
    """What the run found, a pair each, in the order of the run.

    Raises:
        KnownDifferencesError: the list of known differences cannot be read.
    """
    known = known_differences(found.options.baselines)
    return [_outcome(found, pair, profile, known.get(str(pair), {})) for pair, profile in found.profiles.items()]


def left_out_of(profile: Profile, *, recall: bool = True) -> list[str]:
    """What was not measured of a pair: samples by reason, a line each, and with `recall` why there is none."""
    lines = [line.removeprefix(f"{profile.dataset}: ") for line in left_out_lines(profile.dataset, profile.left_out)]
    return [*lines, f"recall is left out: {profile.no_recall}"] if recall and profile.no_recall else lines


def tells_depth(profiles: Mapping[str, Profile]) -> bool:
    """Whether boundaries are told as shares of the depth too.

    Models of different depth compare by nothing else, and of a model that nobody registered a reader has no other
    depth in mind. For one depth alone it would only say the layers again.
    """
    known = all(profile.model in MODELS for profile in profiles.values())
    return not known or len({profile.depth for profile in profiles.values()}) > 1


def phase_ranges(outcome: PairOutcome) -> list[str]:
    """The layers of each phase, with the 99 % interval of its end where that is not one layer."""
    edges = [0.0, *(end.estimate for end in outcome.ends), float(outcome.depth)]
    told = []
    for phase, (name, first, last) in enumerate(zip(PHASES, edges, edges[1:], strict=False)):
        end = outcome.ends[phase] if phase < len(outcome.ends) else None
        within = "" if end is None or end.low == end.high else f" (its end within {end.low:g}-{end.high:g})"
        told.append(f"{name} {first:g}-{last:g}{within}")
    return told


def _outcome(found: Findings, pair: Pair, profile: Profile, known: Mapping[str, str]) -> PairOutcome:
    reading = found.reading(pair)
    mean = reading.summary.mean
    persistent, spread = persistence(mean), float(mean.max() - mean.min())
    claims, regressions = (found.of_pair(pair, kind) for kind in ("replication", "regression"))
    # Two models are told apart by their comparison.
    changed = any(result.changed for result in regressions.values())
    held = found.held.get(pair) if changed and found.options.against is None else None
    return PairOutcome(
        pair=pair,
        n=profile.n,
        depth=profile.depth,
        ends=tuple(reading.boundaries.turning_points),
        moves=reading.any_moves.count,
        moves_at=tuple(persistent.moves_at(share * spread) for share in SHARES),
        recall=None if profile.no_recall else float(profile[CLAIM_RECALL].mean(0)[-1]),
        chance=None if profile.no_recall else float(profile["recall_chance_5"].mean(0)[-1]),
        no_recall=profile.no_recall,
        claims={name: claims[name] for name in CLAIMS if name in claims},
        regressions={name: regressions[name] for name in QUESTIONS if name in regressions},
        known=known,
        ratio=found.ratios.get(pair),
        same_until=() if held is None else tuple(map(trace_line, traces_of(profile, held))),
        beside=tuple(note for result in regressions.values() for note in note_lines(result)),
    )


def _regression(line: Result) -> tuple[str, str]:
    if line.changed and line.word != "differs":
        return f"{line.word}, not the same", BAD
    return line.word, VERDICTS[line.word].colour


def _groups(answers: Mapping[str, tuple[str, str]]) -> list[QuestionGroup]:
    """The questions by their answers, the good ones first."""
    order = (GOOD, "", OPEN, BAD)
    found = sorted(dict.fromkeys(answers.values()), key=lambda answer: order.index(answer[1]))
    return [
        QuestionGroup(*answer, tuple(question for question, given in answers.items() if given == answer))
        for answer in found
    ]
