"""What one test session knows: options, loaded model, measured profiles, stored baselines, and the verdicts given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.data.datasets import find_dataset
from harness.errors import PhaseError, bounded, shown, without_frames
from harness.measurement.ranks import Processes, processes
from harness.profile.pair import Pair
from harness.run.loaded_model import LoadedModel
from harness.run.options import Options
from harness.run.pair_errors import PairErrors
from harness.run.stored_baselines import StoredBaselines
from harness.run.verdict_line import VerdictLine as VerdictLine
from harness.run.verdict_line import changed_questions
from harness.run.warning_counts import WarningCounts

if TYPE_CHECKING:
    from pathlib import Path

    from harness.analysis.claims import Claim
    from harness.analysis.phase_reading import PhaseReading
    from harness.analysis.timing import TimingRatio
    from harness.baselines.reference import Reference
    from harness.baselines.store import Baseline
    from harness.data.sample import Sample
    from harness.judgement.weights import WeightParts
    from harness.models.vlm import Vlm
    from harness.profile.profile import Profile

MOST_INCONCLUSIVE = 0.25
PRIMARY = "inter"


@dataclass(frozen=True, slots=True)
class Findings:
    """What one session has found, to be added to another's; the fields are those of `PhaseSession`."""

    profiles: Mapping[Pair, Profile]
    verdicts: Sequence[VerdictLine]
    claims: Mapping[Pair, dict[str, Claim]]
    parts: Mapping[str, WeightParts]
    matched: frozenset[Path]
    written: Mapping[Path, str]
    said: Sequence[str]
    unmeasured: Mapping[Pair, str] = field(default_factory=dict)
    warnings: WarningCounts = field(default_factory=WarningCounts)


@dataclass
class PhaseSession:
    """Measures each pair once, keeps one model loaded at a time, and collects what the summary and the JSON tell.

    `parametrized` is True if a test asks for a pair, selected or not; `collected` are the pairs of the selected tests,
    `said` what other sessions had to say, `asked` the answers that the running test was given.
    """

    options: Options
    say: Callable[[str], None]
    loaded: LoadedModel = field(init=False)
    collected: tuple[Pair, ...] = ()
    parametrized: bool = False
    profiles: dict[Pair, Profile] = field(default_factory=dict)
    verdicts: list[VerdictLine] = field(default_factory=list)
    claims: dict[Pair, dict[str, Claim]] = field(default_factory=dict)
    ratios: dict[Pair, tuple[float, float, float]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    asked: list[VerdictLine] = field(default_factory=list)
    processes: Processes = field(default_factory=processes)
    stored: StoredBaselines = field(init=False)
    warnings: WarningCounts = field(default_factory=WarningCounts)
    errors: PairErrors = field(init=False)
    _failed: dict[Pair, BaseException] = field(default_factory=dict)
    _missing: dict[Pair, str] = field(default_factory=dict)
    _unmeasured_elsewhere: dict[Pair, str] = field(default_factory=dict)
    _references: dict[Pair, Reference] = field(default_factory=dict)
    _readings: dict[Pair, PhaseReading] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.loaded = LoadedModel(self.options, self.say, self.processes)
        self.stored = StoredBaselines(self.options, self.say, self.loaded, self.processes)
        self.errors = PairErrors(self.processes)

    def missing(self, pair: Pair) -> str:
        """Why this machine cannot measure a pair, with the remedy; empty where it can."""
        if pair not in self._missing:
            self._missing[pair] = (self.options.unavailable(pair) or ("", False))[0]
        return self._missing[pair]

    def not_measured(self) -> dict[Pair, str]:
        """Why pairs that were to be measured have no profile: what failed, or what this machine has not got."""
        reasons = dict.fromkeys(self.collected, "no test that ran asked for it") | self._reasons()
        return {pair: reason for pair, reason in reasons.items() if pair not in self.profiles}

    def _reasons(self) -> dict[Pair, str]:
        """What is in the way of profiles, here and in sessions whose findings were added, in one line each."""
        missing = {pair: reason for pair in self.collected if (reason := self.missing(pair))}
        failed = {
            pair: str(error) if isinstance(error, PhaseError) else shown(bounded(f"{type(error).__name__}: {error}"))
            for pair, error in self._failed.items()
        }
        return self._unmeasured_elsewhere | missing | failed

    def samples(self, pair: Pair, n: int) -> Sequence[Sample]:
        """The first `n` samples of a pair, without those that its measurement left out."""
        left_out = self.profiles[pair].left_out if pair in self.profiles else {}
        source, most = self.options.source(pair.dataset), n + len(left_out)
        drawn = find_dataset(pair.dataset).draw(most, self.options.seed, source)
        return [sample for sample in drawn if sample.id not in left_out][:n]

    def vlm(self, model: str) -> Vlm:
        """The loaded model; the one loaded before is let go."""
        return self.loaded.vlm(model)

    def release(self) -> None:
        """Let go of the loaded model and its memory."""
        self.loaded.release()

    def profile(self, pair: Pair) -> Profile:
        """The profile of a pair, measured at the first call; that of what it is held against is measured before it."""
        other = self.other_of(pair)
        if pair not in self.profiles and other is not None and other != pair:
            self._measure_first(other)
        if pair in self._failed:
            raise self._failed[pair]
        if pair not in self.profiles:
            try:
                self.profiles[pair] = self.processes.agreed(f"the profile of {pair}", lambda: self._measured(pair))
            except Exception as error:
                self._failed[pair] = without_frames(error)
                raise
        return self.profiles[pair]

    def reading(self, pair: Pair) -> PhaseReading:
        """The phases of a measured pair, read once for all who show them."""
        from harness.judgement.phases import phase_reading

        if pair not in self._readings:
            self._readings[pair] = phase_reading(self.profiles[pair])
        return self._readings[pair]

    def _measured(self, pair: Pair) -> Profile:
        from harness.measurement.measure import measure

        return measure(
            self.vlm(pair.model),
            pair.dataset,
            samples=self.options.samples_of(pair),
            seed=self.options.seed,
            batch_size=self.options.batch_size,
            controls=self.options.controls_of(pair),
            draw=self.options.draw,
            cache=None if self.options.no_cache else self.options.cache,
            source=self.options.source(pair.dataset),
            progress=None if self.processes.first else False,
            say=self.say,
        )

    def other_of(self, pair: Pair) -> Pair | None:
        """The pair that a pair is held against with --phase-against; None where it is held against what is stored."""
        against = self.options.against
        return None if against is None else Pair(against.name, pair.dataset)

    def _measure_first(self, other: Pair) -> None:
        """Measures a model on all datasets of the run while it is loaded; what fails is said where it is asked for."""
        for dataset in dict.fromkeys((other.dataset, *(pair.dataset for pair in self.collected))):
            with suppress(Exception):
                self.profile(Pair(other.model, dataset))

    def reference(self, pair: Pair) -> Reference:
        """What a pair is held against with --phase-against, measured in this run.

        Raises:
            PhaseError: it cannot be measured.
        """
        from harness.baselines.reference import reference_of, stored_calibration

        other = self.other_of(pair)
        assert other is not None
        if other not in self._references:
            profile = self.profile(other)
            self._references[other] = reference_of(profile, stored_calibration(self.options.baselines, profile))
        return self._references[other]

    def baseline(self, pair: Pair) -> Baseline:
        """The stored baseline of a pair; with an update option, written first where it is due.

        With --phase-against it is the other model instead, measured in this run.

        Raises:
            BaselineError: missing (without an update option), damaged, not comparable, or not to be written.
        """
        profile = self.profile(pair)
        if self.options.against is not None:
            return self.reference(pair)
        return self.stored.baseline(pair, profile)

    def held_against(self, pair: Pair) -> Baseline | None:
        """What a pair was held against in this run, for those who show it; None where no regression was judged."""
        from harness.baselines.store import find_baseline

        if not any(line.pair == pair and line.kind == "regression" for line in self.verdicts):
            return None
        try:
            if self.options.against is not None:
                return self.reference(pair)
            # With xdist it was a worker that had it, and this process has none yet.
            return self.stored.known(pair) or find_baseline(self.options.baselines, self.profiles[pair])
        except PhaseError:
            return None

    def timing_baseline(self, pair: Pair, timing: TimingRatio) -> float | None:
        """The stored hooked/plain ratio of this device, dtype and attention, or None; with --phase-against always None.

        With an update option the ratio measured now is stored first where it is due.
        """
        if self.options.against is not None:
            return None
        return self.stored.timing(pair, self.profile(pair), timing)

    def muteness(self) -> str:
        """Why the suite decides too little to be green; empty where it decides enough."""
        undecided = [line for line in self.verdicts if line.verdict == "inconclusive"]
        if len(undecided) > MOST_INCONCLUSIVE * len(self.verdicts):
            return (
                f"{len(undecided)} of {len(self.verdicts)} verdicts are inconclusive, more than a quarter: the suite "
                "says too little; raise --phase-samples"
            )
        for line in undecided:
            primary = (line.kind, line.question) == ("regression", PRIMARY)
            if primary and self.profiles[line.pair].n >= line.numbers["n"]:
                own = "; raise --phase-samples" if self.options.against else " at the baseline's own n"
                return f"the primary verdict of {line.pair} ({PRIMARY}) is inconclusive{own}"
        return ""

    def problem(self) -> str:
        """Why the run as a whole fails although its tests may pass, what differs first; empty where it does not."""
        muteness, changes = self.muteness(), changed_questions(self.verdicts)
        return f"{changes}. Besides, {muteness}" if muteness and changes else muteness

    def record(self, line: VerdictLine) -> None:
        """Keep a verdict for the summary and the JSON, the first time that it is given, and for the running test."""
        self.asked.append(line)
        question = (line.pair, line.kind, line.question)
        if question not in ((one.pair, one.kind, one.question) for one in self.verdicts):
            self.verdicts.append(line)

    def findings(self) -> Findings:
        """What this session has found so far."""
        matched, written = frozenset(self.stored.matched), self.stored.written
        return Findings(
            profiles=self.profiles,
            verdicts=self.verdicts,
            claims=self.claims,
            parts=self.loaded.parts,
            matched=matched,
            written=written,
            said=self.said,
            unmeasured=self._reasons(),
            warnings=self.warnings,
        )

    def add(self, found: Findings) -> None:
        """Take in what another session has found, in the order of the pairs whoever comes first."""
        order = {pair: place for place, pair in enumerate(self.options.pairs())}

        def placed(pair: Pair) -> int:
            return order.get(pair, len(order))

        merged = {**found.profiles, **self.profiles}
        self.profiles = {pair: merged[pair] for pair in sorted(merged, key=placed)}
        claims = {**found.claims, **self.claims}
        self.claims = {pair: claims[pair] for pair in sorted(claims, key=placed)}
        self.verdicts = sorted([*self.verdicts, *found.verdicts], key=lambda line: placed(line.pair))
        self.loaded.parts |= found.parts
        self.stored.matched |= found.matched
        self.stored.written = dict(sorted((self.stored.written | dict(found.written)).items()))
        self.said += [line for line in found.said if line not in self.said]
        self._unmeasured_elsewhere |= found.unmeasured
        self.warnings.update(found.warnings)
