"""The stored baselines of a session: found, written where an update option says so, and counted for the summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.datasets import DATASETS
from harness.measurement.ranks import Processes
from harness.models.registry import MODELS
from harness.profile.pair import Pair
from harness.run.loaded_model import LoadedModel
from harness.run.options import Options
from harness.storage.file_names import file_name

if TYPE_CHECKING:
    from harness.analysis.calibration import Calibration
    from harness.analysis.timing import TimingRatio
    from harness.baselines.store import Baseline
    from harness.profile.profile import Profile


@dataclass
class StoredBaselines:
    """Finds and writes the baselines of pairs; `matched` are the files found, `written` those written, and how.

    Of several processes the first alone reads and writes files, and tells the others.
    """

    options: Options
    say: Callable[[str], None]
    loaded: LoadedModel
    processes: Processes
    matched: set[Path] = field(default_factory=set)
    written: dict[Path, str] = field(default_factory=dict)
    _known: dict[Pair, Baseline] = field(default_factory=dict)

    def baseline(self, pair: Pair, profile: Profile) -> Baseline:
        """The stored baseline of a pair; with an update option, written first where it is due.

        Raises:
            BaselineError: missing (without an update option), damaged, not comparable, or not to be written.
        """
        if pair not in self._known:
            self._known[pair] = self._found(pair, profile)
        return self._known[pair]

    def _found(self, pair: Pair, profile: Profile) -> Baseline:
        from harness.baselines.store import BaselineError, BaselineExistsError, MissingBaselineError, find_baseline
        from harness.baselines.stored_files import remove_leftovers

        root = self.options.baselines
        try:
            stored = self.processes.of_first(f"the baseline of {pair}", lambda: find_baseline(root, profile))
        except BaselineError as error:
            missing = isinstance(error, MissingBaselineError)
            if missing and not (self.options.update or self.options.update_new):
                raise MissingBaselineError(
                    f"no baseline for {pair} in {root}; record one with: pytest cases/ --phase-model "
                    f"{self.options.argument(pair.model)} --phase-dataset {pair.dataset} --phase-update-new"
                ) from None
            if not (self.options.update or missing):
                raise
            try:
                return self._write(profile, "new" if missing else "changed", None)
            except BaselineExistsError:
                return self._found(pair, profile)
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
                return self._write(profile, "changed" if changed else "calibrated", stored)
            if self.options.update and dict(stored.profile.configuration) != dict(profile.configuration):
                return self._described_anew(profile, stored)
        if stored.path not in self.written:
            self.matched.add(stored.path)
            if self.processes.first and (self.options.update or self.options.update_new):
                remove_leftovers(stored.path)
        return stored

    def timing(self, pair: Pair, profile: Profile, timing: TimingRatio) -> float | None:
        """The stored hooked/plain ratio of this device, dtype and attention, or None.

        With an update option the ratio measured now is stored first where there is none; with --phase-update also
        where the stored one lies outside of its interval by more than the factor that would be an alarm.
        """
        from harness.analysis.timing import SLOWDOWN_FACTOR
        from harness.baselines.updates import timing_key, write_timing

        baseline, key = self.baseline(pair, profile), timing_key(profile.environment)
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

        from harness.baselines.store import is_summary_of

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

    def _described_anew(self, profile: Profile, stored: Baseline) -> Baseline:
        """The baseline with the configuration of now; its numbers, which are the same, are not written again."""
        from harness.baselines.updates import write_configuration

        self.written[stored.path] = "changed"
        return self.processes.of_first(
            f"the configuration of {profile.pair}", lambda: write_configuration(stored, profile)
        )

    def _write(self, profile: Profile, how: str, kept: Baseline | None) -> Baseline:
        from harness.baselines.store import read_baseline, write_baseline
        from harness.judgement.phases import phases_of

        calibration: Calibration | None = None
        power: Mapping[str, Any] = {}
        if self.options.calibrate:
            calibration, power = self._calibrated(profile)

        def written() -> Baseline:
            return read_baseline(
                write_baseline(
                    self.options.baselines,
                    profile,
                    {},
                    phases_of(profile),
                    calibration,
                    power,
                    summary=self.options.summary,
                    kept=kept,
                    first=how == "new",
                )
            )

        baseline = self.processes.of_first(f"writing the baseline of {profile.pair}", written)
        self.matched.discard(baseline.path)
        self.written[baseline.path] = how
        return baseline

    def _calibrated(self, profile: Profile) -> tuple[Calibration, Mapping[str, Any]]:
        """The calibration of a profile and what it can find.

        Raises:
            BaselineError: it would find too little.
        """
        from harness.baselines.store import BaselineError
        from harness.measurement.conditions import calibrate
        from harness.run.power_gate import power_problem, power_record, simulations

        options = self.options
        measured = self.processes.agreed(
            f"the calibration of {profile.pair}",
            lambda: calibrate(
                self.loaded.vlm(profile.model),
                profile,
                lambda dtype, device: self.loaded.load(profile.model, device, dtype),
                seed=options.seed,
                batch_size=options.batch_size,
                samples=options.samples_of(Pair(profile.model, profile.dataset)),
                cache=None if options.no_cache else options.cache,
                source=options.source(profile.dataset),
                say=self.say,
            ),
        )

        def power() -> Mapping[str, Any]:
            simulated = simulations(profile, measured)
            powers = tuple(simulate(1.0) for simulate in simulated)
            if problem := power_problem(simulated, powers):
                raise BaselineError(f"no baseline of {profile.pair} was written: {problem}")
            return power_record(powers)

        return measured.calibration, self.processes.of_first(f"the power of {profile.pair}", power)


def unused_baselines(options: Options) -> list[Path]:
    """Return the baselines of pairs that this version no longer knows."""
    models = {*MODELS, *(pair.model for pair in options.pairs())}
    known = {f"{file_name(model)}/{dataset}" for model in models for dataset in DATASETS}
    return [
        path
        for path in sorted(options.baselines.glob("*/*.json"))
        if f"{path.parent.name}/{path.name.split('.')[0]}" not in known
    ]
