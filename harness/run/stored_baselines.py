"""The stored baselines of a session: found, written with an update option, and counted for the summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
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
    """Finds and writes the baselines of pairs; `matched` holds the files found, `written` the files written and why.

    Of several processes only the first reads and writes files; it sends the baselines to the others.
    """

    options: Options
    say: Callable[[str], None]
    loaded: LoadedModel
    processes: Processes
    matched: set[Path] = field(default_factory=set)
    written: dict[Path, str] = field(default_factory=dict)
    _known: dict[Pair, Baseline] = field(default_factory=dict)

    def baseline(self, pair: Pair, profile: Profile) -> Baseline:
        """Return the stored baseline of a pair; an update option writes it first if necessary.

        Raises:
            BaselineError: missing (without an update option), damaged, not comparable, or not writable.
        """
        if pair not in self._known:
            self._known[pair] = self._find(pair, profile)
        return self._known[pair]

    def has_baseline(self, pair: Pair) -> bool:
        """Return True if a baseline of a pair is stored, comparable or not."""
        from harness.baselines.stored_files import BaselineError, baseline_paths

        try:
            return bool(baseline_paths(self.options.baselines, pair.model, pair.dataset))
        except BaselineError:
            return False

    def _find(self, pair: Pair, profile: Profile) -> Baseline:
        from harness.baselines.store import (
            BaselineError,
            BaselineExistsError,
            MissingBaselineError,
            find_baseline,
            write_configuration,
        )
        from harness.baselines.stored_files import remove_leftovers

        root = self.options.baselines
        try:
            stored = self.processes.run_on_first(f"the baseline of {pair}", lambda: find_baseline(root, profile))
        except BaselineError as error:
            missing = isinstance(error, MissingBaselineError)
            if missing and not (self.options.update or self.options.update_new):
                raise MissingBaselineError(
                    f"no baseline for {pair} in {root}; record one with: pytest cases/ --phase-model "
                    f"{self.options.model_argument(pair.model)} --phase-dataset {pair.dataset} --phase-update-new"
                ) from None
            if not (self.options.update or missing):
                raise
            try:
                return self._write(profile, "new" if missing else "changed", None)
            except BaselineExistsError:
                return self._find(pair, profile)
        depths = (stored.profile.depth, profile.depth)
        if depths[0] != depths[1] and not self.options.update:
            raise BaselineError(
                f"{stored.path} belongs to a model of {depths[0]} layers, and this model has {depths[1]}: they can "
                "only be compared by relative depth. Use --phase-against, or record this model with --phase-update"
            )
        if stored.path in self.written:
            return stored
        changed = self._changed(profile, stored)
        if changed and self.options.calibrate and not self.options.update:
            raise BaselineError(
                f"{stored.path} differs from this run, so this run cannot calibrate it: accept the change "
                "with --phase-update and --phase-calibrate together"
            )
        if self.options.calibrate or (changed and self.options.update):
            return self._write(profile, "changed" if changed else "calibrated", stored)
        if self.options.update and dict(stored.profile.configuration) != dict(profile.configuration):
            # The numbers are the same, so only the configuration is written.
            self.written[stored.path] = "changed"
            change = f"the configuration of {pair}"
            return self.processes.run_on_first(change, lambda: write_configuration(stored, profile))
        self.matched.add(stored.path)
        if self.processes.first and (self.options.update or self.options.update_new):
            remove_leftovers(stored.path)
        return stored

    def timing(self, pair: Pair, profile: Profile, timing: TimingRatio) -> float | None:
        """Return the stored hooked/plain ratio of this device, dtype and attention, or None.

        An update option stores the measured ratio first if there is none. --phase-update also replaces a stored ratio
        outside of the measured interval by more than the factor that fails a timing test.
        """
        from harness.analysis.timing import SLOWDOWN_FACTOR
        from harness.baselines.store import write_timing

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
        self.matched.discard(baseline.path)
        self.written.setdefault(baseline.path, "changed")
        return timing.ratio

    def _changed(self, profile: Profile, stored: Baseline) -> bool:
        import numpy as np

        from harness.baselines.store import is_summary_of

        if stored.summarised_samples is not None:
            return not is_summary_of(stored, profile)
        if self.options.summary and self.options.update:
            return True

        def same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
            return first.keys() == second.keys() and all(
                np.array_equal(first[name], second[name], equal_nan=True) for name in first
            )

        facts, baseline = attrgetter("sample_ids", "environment", "weights"), stored.profile
        return not (
            facts(profile) == facts(baseline)
            and same(profile.arrays, baseline.arrays)
            and all(same(curves, baseline.controls.get(control, {})) for control, curves in profile.controls.items())
        )

    def _write(self, profile: Profile, how: str, previous: Baseline | None) -> Baseline:
        from harness.baselines.store import read_baseline, write_baseline
        from harness.judgement.phases import phases_of

        calibration: Calibration | None = None
        power: Mapping[str, Any] = {}
        if self.options.calibrate:
            calibration, power = self._calibrate(profile)

        def write() -> Baseline:
            root, summary, phases = self.options.baselines, self.options.summary, phases_of(profile)
            settings: dict[str, Any] = {"summary": summary, "previous": previous, "first": how == "new"}
            return read_baseline(write_baseline(root, profile, {}, phases, calibration, power, **settings))

        baseline = self.processes.run_on_first(f"writing the baseline of {profile.pair}", write)
        self.matched.discard(baseline.path)
        self.written[baseline.path] = how
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
