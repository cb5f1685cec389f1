"""The profiles of a session: each pair is measured once, the --phase-against model first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.data.datasets import find_dataset
from harness.errors import PhaseError, copy_without_traceback, printable, shorten
from harness.measurement.progress import Progress
from harness.measurement.ranks import ProcessError, Processes
from harness.profile.pair import Pair
from harness.run.loaded_model import LoadedModel
from harness.run.options import Options
from harness.run.session_results import SessionResults

if TYPE_CHECKING:
    from harness.baselines.reference import Reference
    from harness.data.sample import Sample
    from harness.profile.profile import Profile


@dataclass
class MeasuredPairs:
    """Measures pairs with the loaded model, and stores profiles and errors in the session's results.

    `progress_line` receives the progress of a run without a terminal.
    """

    options: Options
    say: Callable[[str], None]
    results: SessionResults
    loaded: LoadedModel
    processes: Processes
    progress_line: Callable[[str], None] = lambda _: None
    _failed: dict[Pair, BaseException] = field(default_factory=dict)
    _missing: dict[Pair, str] = field(default_factory=dict)
    _references: dict[Pair, Reference] = field(default_factory=dict)

    def missing(self, pair: Pair) -> str:
        """Return the reason why this machine cannot measure a pair, with the remedy; empty if it can."""
        if pair not in self._missing:
            self._missing[pair] = reason = self.options.unavailable(pair)[0]
            if reason:
                self.results.unmeasured[pair] = reason
                self.results.unavailable.add(pair)
        return self._missing[pair]

    def samples(self, pair: Pair, n: int) -> Sequence[Sample]:
        """Return the first `n` samples of a pair, without the excluded ones."""
        profiles = self.results.profiles
        excluded = profiles[pair].left_out if pair in profiles else {}
        source, most = self.options.source(pair.dataset), n + len(excluded)
        drawn = find_dataset(pair.dataset).draw(most, self.options.seed, source)
        return [sample for sample in drawn if sample.id not in excluded][:n]

    def profile(self, pair: Pair) -> Profile:
        """Return the profile of a pair, measured at the first call; the pair to compare it with is measured before.

        With --phase-rephrase the pair is measured once more with the dataset's second instruction.

        Raises:
            PhaseError: the pair cannot be measured; later calls raise the same error again.
        """
        profiles, other = self.results.profiles, self.options.reference_pair(pair)
        if pair not in profiles and other is not None and other != pair:
            self._measure_first(other)
        if pair in self._failed:
            raise self._failed[pair]
        if pair not in profiles:
            try:
                profiles[pair] = self.processes.agree_on_first(f"the profile of {pair}", lambda: self._measure(pair))
            except Exception as error:
                self._failed[pair] = copy_without_traceback(error)
                self.results.unmeasured[pair] = _reason(error)
                raise
            if self.options.rephrase:
                self._rephrase(pair)
        return profiles[pair]

    def reference(self, pair: Pair) -> Reference:
        """Return the reference that --phase-against compares a pair with, measured in this run.

        Raises:
            PhaseError: the reference cannot be measured.
        """
        from harness.baselines.reference import reference_from_profile, stored_calibration

        other = self.options.reference_pair(pair)
        assert other is not None
        if other not in self._references:
            profile = self.profile(other)
            self._references[other] = reference_from_profile(
                profile, stored_calibration(self.options.baselines, profile)
            )
        return self._references[other]

    def _measure(self, pair: Pair) -> Profile:
        return self._measure_with(
            pair,
            controls=self.options.controls_of(pair),
            control_samples=self.options.control_samples,
            knockout=self.options.knockout,
            knockout_window=self.options.knockout_window,
            drawings=self.options.report is not None,
            draw=self.options.draw,
            progress=self._progress(pair, str(pair)),
        )

    def _rephrase(self, pair: Pair) -> None:
        """Judge a measured pair under the second instruction of its dataset; an error is only reported."""
        from harness.judgement.rephrasing import judge_rephrasing, no_rephrasing_reason

        results, dataset = self.results, find_dataset(pair.dataset)
        if reason := no_rephrasing_reason(dataset, results.profiles[pair]):
            results.not_rephrased[pair] = reason
            return

        def measure_again() -> Profile:
            progress = self._progress(pair, f"{pair}, rephrased")
            only_claims: dict[str, Any] = {"controls": (), "word_order": False, "drawings": False}
            return self._measure_with(pair, instruction=dataset.rephrasing, progress=progress, **only_claims)

        try:
            rephrased = self.processes.agree_on_first(f"the rephrased profile of {pair}", measure_again)
            results.rephrasings[pair] = judge_rephrasing(results.profiles[pair], rephrased)
        except ProcessError:
            # The run is stopped, or another process is lost.
            raise
        except Exception as error:
            results.not_rephrased[pair] = _reason(error)

    def _measure_with(self, pair: Pair, **arguments: Any) -> Profile:
        from harness.measurement.measure import measure

        return measure(
            self.loaded.vlm(pair.model),
            pair.dataset,
            samples=self.options.samples_of(pair),
            seed=self.options.seed,
            batch_size=self.options.batch_size,
            cache=None if self.options.no_cache else self.options.cache,
            source=self.options.source(pair.dataset),
            say=self.say,
            **arguments,
        )

    def _progress(self, pair: Pair, title: str) -> Progress | bool:
        """Return the progress of a pair: a bar in a terminal, otherwise lines; other processes show nothing."""
        if not self.processes.first:
            return False
        pairs = [pair for pair in self.results.collected if not self.missing(pair)]
        pairs = list(dict.fromkeys([*filter(None, map(self.options.reference_pair, pairs)), *pairs]))
        number = len({*self.results.profiles, *self._failed, pair})
        bar = sys.stderr.isatty()
        return Progress(title, number=number, count=max(number, len(pairs)), bar=bar, say=self.progress_line)

    def _measure_first(self, other: Pair) -> None:
        """Measure a model on all datasets of the run while it is loaded; its errors are raised later, by `profile`."""
        for dataset in dict.fromkeys((other.dataset, *(pair.dataset for pair in self.results.collected))):
            with suppress(Exception):
                self.profile(Pair(other.model, dataset))


def _reason(error: Exception) -> str:
    """Return the message of an error for the user, or a short form of an unexpected error."""
    return str(error) if isinstance(error, PhaseError) else printable(shorten(f"{type(error).__name__}: {error}"))
