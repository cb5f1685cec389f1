"""The stored baselines of a session: found, written with an update option, and counted for the summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.datasets import DATASETS
from harness.interface import measure_command, option_text
from harness.measurement.ranks import Processes
from harness.models.registry import MODELS
from harness.profile.measures import CURVES, MEASURES
from harness.profile.pair import Pair
from harness.run.loaded_model import LoadedModel
from harness.run.options import Options
from harness.run.session_results import SessionResults
from harness.run.stored_knockout import lacks_knockout, refuse_loss
from harness.storage.file_names import file_name
from harness.storage.project_files import bundled_baselines

if TYPE_CHECKING:
    from harness.analysis.calibration import Calibration
    from harness.analysis.timing import TimingRatio
    from harness.baselines.history import HistoryEntry
    from harness.baselines.store import Baseline
    from harness.profile.profile import Profile


@dataclass
class StoredBaselines:
    """Finds and writes the baselines of pairs, and notes in the session's results which it read and wrote.

    Pairs of the project without an own baseline are compared with the bundled ones, which are only read.
    Of several processes only the first reads and writes files; it sends the baselines to the others.
    """

    options: Options
    say: Callable[[str], None]
    loaded: LoadedModel
    processes: Processes
    results: SessionResults
    _known: dict[Pair, Baseline] = field(default_factory=dict)

    def baseline(self, pair: Pair, profile: Profile) -> Baseline:
        """Return the stored baseline of a pair; an update option writes it first if necessary.

        Raises:
            BaselineError: missing (without an update option), damaged, not comparable, or not writable.
        """
        if pair not in self._known:
            self._known[pair] = self._find(pair, profile)
        return self._known[pair]

    def paths(self, pair: Pair) -> list[Path]:
        """Return the JSON files of a pair's stored baselines, comparable or not."""
        from harness.baselines.stored_files import BaselineError, baseline_paths

        try:
            return list(baseline_paths(self._directory(pair), pair.model, pair.dataset))
        except BaselineError:
            return []

    def _directory(self, pair: Pair) -> Path:
        """Return the directory that holds a pair's baseline; a bundled one if the project's pair has no other.

        Options that write baselines read only the directory that they write to.
        """
        from harness.baselines.stored_files import baseline_paths

        options, bundled = self.options, bundled_baselines()
        writes = options.update or options.update_new or options.calibrate
        if writes or not options.is_bundled(pair) or baseline_paths(options.baselines, pair.model, pair.dataset):
            return options.baselines
        return bundled if baseline_paths(bundled, pair.model, pair.dataset) else options.baselines

    def will_replace(self, pair: Pair, profile: Profile) -> bool:
        """Return True if --phase-update with a reason replaces, or has replaced, the stored numbers of a pair."""
        from harness.baselines.store import BaselineError, find_baseline

        if not (self.options.update and self.options.reason) or pair in self._known:
            return pair in self.results.recorded
        root = self.options.baselines
        try:
            stored = self.processes.run_on_first(f"the baseline of {pair}", lambda: find_baseline(root, profile))
        except BaselineError:
            return True
        return self._changed(profile, stored, numbers_only=True)

    def _find(self, pair: Pair, profile: Profile) -> Baseline:
        from harness.baselines.field_changes import write_configuration
        from harness.baselines.store import BaselineError, BaselineExistsError, MissingBaselineError, find_baseline
        from harness.baselines.stored_files import remove_leftovers

        root = self.options.baselines
        try:
            stored = self.processes.run_on_first(
                f"the baseline of {pair}", lambda: find_baseline(self._directory(pair), profile)
            )
        except BaselineError as error:
            missing = isinstance(error, MissingBaselineError)
            if missing and not (self.options.update or self.options.update_new):
                raise MissingBaselineError(
                    f"no baseline for {pair} in {root}; record one with: "
                    + measure_command(
                        self.options.model_argument(pair.model), pair.dataset, option_text("update_new", "True")
                    )
                ) from None
            if not (self.options.update or missing):
                raise
            accepted = None if missing else self._accepted(profile, str(error), "other declared choices")
            try:
                return self._write(profile, "new" if missing else "changed", None, accepted)
            except BaselineExistsError:
                return self._find(pair, profile)
        depths = (stored.profile.depth, profile.depth)
        if depths[0] != depths[1] and not self.options.update:
            raise BaselineError(
                f"{stored.path} belongs to a model of {depths[0]} layers, and this model has {depths[1]}: they can "
                "only be compared by relative depth. Use --phase-against, or record this model with --phase-update"
            )
        if stored.path in self.results.written:
            return stored
        changed = self._changed(profile, stored)
        if self.options.calibrate or (changed and self.options.update):
            refuse_loss(profile, stored)
        if changed and self.options.calibrate and not self.options.update:
            raise BaselineError(
                f"{stored.path} differs from this run, so this run cannot calibrate it: accept the change "
                "with --phase-update and --phase-calibrate together"
            )
        if self.options.calibrate or (changed and self.options.update):
            accepted = self._accepted_numbers(profile, stored) if changed else None
            return self._write(profile, "changed" if changed else "calibrated", stored, accepted)
        if self.options.update and dict(stored.profile.configuration) != dict(profile.configuration):
            # The numbers are the same, so only the configuration is written.
            self.results.written[stored.path] = "changed"
            change = f"the configuration of {pair}"
            return self.processes.run_on_first(change, lambda: write_configuration(stored, profile))
        self.results.matched.add(stored.path)
        if self.processes.first and (self.options.update or self.options.update_new):
            remove_leftovers(stored.path)
        return stored

    def timing(self, pair: Pair, profile: Profile, timing: TimingRatio) -> float | None:
        """Return the stored hooked/plain ratio of this device, dtype and attention, or None.

        An update option stores the measured ratio first if there is none. --phase-update also replaces a stored ratio
        outside of the measured interval by more than the factor that fails a timing test.
        """
        from harness.analysis.timing import SLOWDOWN_FACTOR
        from harness.baselines.field_changes import write_timing

        baseline, here = self.baseline(pair, profile), profile.environment
        key = f"{here.device_name}, {here.dtype}, {here.attention}"
        stored = baseline.timing.get(key)
        if stored is not None:
            low, high = timing.interval
            close = low <= SLOWDOWN_FACTOR * stored and high >= stored / SLOWDOWN_FACTOR
            if close or not self.options.update:
                return stored
        elif not (self.options.update or self.options.update_new):
            return None
        write_timing(baseline, key, timing.ratio)
        self.results.matched.discard(baseline.path)
        self.results.written.setdefault(baseline.path, "changed")
        return timing.ratio

    def _changed(self, profile: Profile, stored: Baseline, *, numbers_only: bool = False) -> bool:
        """Return True if an update would write other numbers, or another environment, other weights or another form."""
        import numpy as np

        from harness.baselines.store import is_summary_of

        if stored.summarised_samples is not None:
            return not is_summary_of(stored, profile, numbers_only=numbers_only)
        if self.options.summary and self.options.update and not numbers_only:
            return True

        def same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
            return first.keys() == second.keys() and all(
                np.array_equal(first[name], second[name], equal_nan=True) for name in first
            )

        def same_control(control: str) -> bool:
            """Return True if the baseline has the control's rows; it may have those of further samples."""
            row_of_sample = {sample: row for row, sample in enumerate(baseline.samples_of(control))}
            if control not in baseline.controls or not row_of_sample.keys() >= set(profile.samples_of(control)):
                return False
            rows = [row_of_sample[sample] for sample in profile.samples_of(control)]
            curves, stored_curves = (
                # Adjusted similarities depend on the set of samples.
                {name: curve for name, curve in each[control].items() if len(row_of_sample) == len(rows) or name in own}
                for each in (profile.controls, baseline.controls)
            )
            return same(curves, {name: curve[rows] for name, curve in stored_curves.items()})

        own = {name for name in CURVES if MEASURES[name].reading}
        named = ("sample_ids",) if numbers_only else ("sample_ids", "environment", "weights")
        facts, baseline = attrgetter(*named), stored.profile
        # Arrays that the baseline lacks change none of its numbers, nor do a control or knockout that this run lacks.
        kept = baseline.arrays.keys() if numbers_only else profile.arrays.keys()
        lost = {name for name in baseline.arrays if lacks_knockout(profile, name)} | profile.without_control()
        stored_arrays = {name: array for name, array in baseline.arrays.items() if name not in lost}
        return not (
            facts(profile) == facts(baseline)
            and same({name: array for name, array in profile.arrays.items() if name in kept}, stored_arrays)
            and all(map(same_control, profile.controls))
        )

    def _accepted_numbers(self, profile: Profile, stored: Baseline) -> HistoryEntry | None:
        """Return the history's entry if other numbers replace those of a file; raises as `_accepted`."""
        from harness.judgement.largest_change import largest_change

        kind = attrgetter("device", "dtype")
        beside = kind(profile.environment) != kind(stored.profile.environment)
        if beside or not self._changed(profile, stored, numbers_only=True):
            return None
        change = largest_change(profile, stored)
        return self._accepted(profile, f"{stored.path} differs from this run ({change})", change)

    def _accepted(self, profile: Profile, problem: str, change: str) -> HistoryEntry:
        """Return the history's entry of a changed baseline.

        Raises:
            BaselineError: the user gave no reason.
        """
        from harness.baselines.history import accepted_today
        from harness.baselines.stored_files import BaselineError

        if not self.options.reason:
            given = option_text("update", "True"), option_text("reason", "TEXT")
            command = measure_command(self.options.model_argument(profile.model), profile.dataset, *given)
            raise BaselineError(f"{problem}. Accepting a change takes a reason, which its history keeps: {command}")
        return accepted_today(profile.environment, change, self.options.reason)

    def _write(
        self, profile: Profile, how: str, previous: Baseline | None, accepted: HistoryEntry | None = None
    ) -> Baseline:
        from harness.baselines.store import read_baseline, write_baseline
        from harness.judgement.phases import phases_of

        calibration: Calibration | None = None
        power: Mapping[str, Any] = {}
        if self.options.calibrate:
            calibration, power = self._calibrate(profile)

        def write() -> Baseline:
            root, summary, phases = self.options.baselines, self.options.summary, phases_of(profile)
            settings: dict[str, Any] = {"summary": summary, "previous": previous, "first": how == "new"}
            settings["accepted"] = accepted
            return read_baseline(write_baseline(root, profile, {}, phases, calibration, power, **settings))

        baseline = self.processes.run_on_first(f"writing the baseline of {profile.pair}", write)
        self.results.matched.discard(baseline.path)
        self.results.written[baseline.path] = how
        if how != "calibrated":
            self.results.recorded.add(Pair(profile.model, profile.dataset))
        return baseline

    def _calibrate(self, profile: Profile) -> tuple[Calibration, Mapping[str, Any]]:
        """Return the calibration of a profile and the simulated power.

        Raises:
            BaselineError: the power is too small.
        """
        from harness.measurement.conditions import calibrate
        from harness.run.power_gate import simulated_power

        options = self.options
        measured = self.processes.agree_on_first(
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

        power = self.processes.run_on_first(f"the power of {profile.pair}", lambda: simulated_power(profile, measured))
        return measured.calibration, power


def unused_baselines(options: Options) -> list[Path]:
    """Return the baselines of pairs that this version no longer knows."""
    models = {*MODELS, *(pair.model for pair in options.pairs())}
    known = {f"{file_name(model)}/{dataset}" for model in models for dataset in DATASETS}
    return [
        path
        for path in sorted(options.baselines.glob("*/*.json"))
        if f"{path.parent.name}/{path.name.split('.')[0]}" not in known
    ]
