"""What one test session knows: options, loaded model, measured profiles, baselines written, and the verdicts given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.registry import DATASETS, find_dataset
from harness.loaded_model import LoadedModel
from harness.models.registry import MODELS
from harness.options import Options, Pair

if TYPE_CHECKING:
    from harness.analysis.calibration import Calibration
    from harness.analysis.claims import Claim
    from harness.analysis.timing import TimingRatio
    from harness.baselines import Baseline
    from harness.data.sample import Sample
    from harness.models.vlm import Vlm
    from harness.profile import Profile
    from harness.reference import Reference

MOST_INCONCLUSIVE = 0.25
PRIMARY = "inter"


@dataclass(frozen=True, slots=True)
class VerdictLine:
    """One verdict as the summary shows it: of `pair`, in answer to `question` (a claim's or a family's name)."""

    pair: Pair
    kind: str
    question: str
    verdict: str
    numbers: Mapping[str, Any]


@dataclass
class PhaseSession:
    """Measures each pair once, keeps one model loaded at a time, and collects what the summary and the JSON tell.

    `collected` are the pairs of the tests that were collected.
    """

    options: Options
    say: Callable[[str], None]
    loaded: LoadedModel = field(init=False)
    collected: tuple[Pair, ...] = ()
    profiles: dict[Pair, Profile] = field(default_factory=dict)
    verdicts: list[VerdictLine] = field(default_factory=list)
    claims: dict[Pair, dict[str, Claim]] = field(default_factory=dict)
    ratios: dict[Pair, tuple[float, float, float]] = field(default_factory=dict)
    matched: set[Path] = field(default_factory=set)
    written: dict[Path, str] = field(default_factory=dict)
    _failed: dict[Pair, BaseException] = field(default_factory=dict)
    _missing: dict[Pair, str] = field(default_factory=dict)
    _references: dict[Pair, Reference] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.loaded = LoadedModel(self.options, self.say)

    def missing(self, pair: Pair) -> str:
        """Why this machine cannot measure a pair, with the remedy; empty where it can."""
        if pair not in self._missing:
            self._missing[pair] = (self.options.unavailable(pair) or ("", False))[0]
        return self._missing[pair]

    def samples(self, pair: Pair, n: int) -> Sequence[Sample]:
        """The first `n` samples of a pair."""
        options = self.options
        return find_dataset(pair.dataset).draw(n, options.seed, options.source(pair.dataset))

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
            from harness.measurement import measure

            vlm = self.vlm(pair.model)
            try:
                self.profiles[pair] = measure(
                    vlm,
                    pair.dataset,
                    samples=self.options.samples_of(pair),
                    seed=self.options.seed,
                    batch_size=self.options.batch_size,
                    controls=self.options.controls,
                    cache=None if self.options.no_cache else self.options.cache,
                    source=self.options.source(pair.dataset),
                    say=self.say,
                )
            except Exception as error:
                self._failed[pair] = error
                raise
        return self.profiles[pair]

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
        from harness.reference import reference_of, stored_calibration

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
        from harness.baselines import BaselineError, MissingBaselineError, find_baseline, read_baseline

        profile = self.profile(pair)
        if self.options.against is not None:
            return self.reference(pair)
        try:
            stored = find_baseline(self.options.baselines, profile)
        except BaselineError as error:
            missing = isinstance(error, MissingBaselineError)
            if missing and not (self.options.update or self.options.update_new):
                raise MissingBaselineError(
                    f"no baseline for {pair} in {self.options.baselines}; record one with: pytest cases/ --phase-model "
                    f"{self.options.argument(pair.model)} --phase-dataset {pair.dataset} --phase-update-new"
                ) from None
            if not (self.options.update or missing):
                raise
            return read_baseline(self._write(profile, "new" if missing else "changed", {}, None))
        depths = (stored.profile.depth, profile.depth)
        if depths[0] != depths[1] and not self.options.update:
            raise BaselineError(
                f"{stored.path} is of a model of {depths[0]} layers, and this one has {depths[1]}: they compare by "
                "relative depth only; hold the models against each other with --phase-against, or record this one "
                "with --phase-update"
            )
        if stored.path not in self.written:
            changed = self._changed(profile, stored)
            if changed and self.options.calibrate and not self.options.update:
                raise BaselineError(
                    f"{stored.path} is not what this run measures, so it cannot be calibrated by it: accept the change "
                    "with --phase-update, together with --phase-calibrate"
                )
            if self.options.calibrate or (changed and self.options.update):
                kept = stored.calibration if stored.profile.weights == profile.weights else None
                how = "changed" if changed else "calibrated"
                return read_baseline(self._write(profile, how, stored.timing, kept))
        if stored.path not in self.written:
            self.matched.add(stored.path)
        return stored

    def timing_baseline(self, pair: Pair, timing: TimingRatio) -> float | None:
        """The stored hooked/plain ratio of this device, dtype and attention, or None; with --phase-against always None.

        With an update option the ratio measured now is stored first where there is none; with --phase-update also
        where the stored one lies outside of its interval by more than the factor that would be an alarm.
        """
        from harness.analysis.timing import SLOWDOWN_FACTOR
        from harness.baselines import timing_key, write_timing

        if self.options.against is not None:
            return None
        baseline, key = self.baseline(pair), timing_key(self.profile(pair).environment)
        stored = baseline.timing.get(key)
        if stored is not None:
            low, high = timing.interval
            kept = low <= SLOWDOWN_FACTOR * stored and high >= stored / SLOWDOWN_FACTOR
            if kept or not self.options.update:
                return stored
        elif not (self.options.update or self.options.update_new):
            return None
        write_timing(baseline, key, timing.ratio)
        self.matched.discard(baseline.path)
        self.written.setdefault(baseline.path, "changed")
        return timing.ratio

    def _changed(self, profile: Profile, stored: Baseline) -> bool:
        import numpy as np

        from harness.baselines import is_summary_of

        if stored.summary_of is not None:
            return not is_summary_of(stored, profile)
        if self.options.summary and self.options.update:
            return True
        then = stored.profile
        if (profile.sample_ids, profile.environment, profile.weights) != (
            then.sample_ids,
            then.environment,
            then.weights,
        ):
            return True
        for control, curves in profile.controls.items():
            held = then.controls.get(control, {})
            if held.keys() != curves.keys() or any(not np.array_equal(curves[name], held[name]) for name in curves):
                return True
        names = set(profile.arrays)
        return names != set(then.arrays) or any(
            not np.array_equal(profile.arrays[name], then.arrays[name], equal_nan=True) for name in names
        )

    def _write(self, profile: Profile, how: str, timing: Mapping[str, float], calibration: Calibration | None) -> Path:
        from harness.baselines import BaselineError, write_baseline
        from harness.phases import phases_of

        power: Mapping[str, Any] = {}
        if self.options.calibrate:
            from harness.calibration import calibrate
            from harness.power_gate import power_problem, power_record, simulations

            measured = calibrate(
                self.vlm(profile.model),
                profile,
                lambda dtype, device: self.loaded.load(profile.model, device, dtype),
                seed=self.options.seed,
                batch_size=self.options.batch_size,
                cache=None if self.options.no_cache else self.options.cache,
                source=self.options.source(profile.dataset),
                say=self.say,
            )
            calibration = measured.calibration
            simulated = simulations(profile, measured)
            powers = tuple(simulate(1.0) for simulate in simulated)
            if problem := power_problem(simulated, powers):
                raise BaselineError(f"no baseline of {profile.pair} was written: {problem}")
            power = power_record(powers)
        path = write_baseline(
            self.options.baselines,
            profile,
            timing,
            phases_of(profile),
            calibration,
            power,
            summary=self.options.summary,
        )
        self.matched.discard(path)
        self.written[path] = how
        return path

    def unused(self) -> list[Path]:
        """Baselines of pairs that this version no longer knows."""
        models = {*MODELS, *(pair.model for pair in self.options.pairs())}
        known = {f"{model}/{dataset}" for model in models for dataset in DATASETS}
        return [
            path
            for path in sorted(self.options.baselines.glob("*/*.json"))
            if f"{path.parent.name}/{path.name.split('.')[0]}" not in known
        ]

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

    def record(self, pair: Pair, kind: str, question: str, verdict: str, numbers: Mapping[str, Any]) -> None:
        """Keep a verdict for the summary and the JSON."""
        self.verdicts.append(VerdictLine(pair, kind, question, verdict, numbers))
