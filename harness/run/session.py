"""One test session: its options, what measures, what was found, and the verdicts that the running test was given."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.measurement.ranks import processes
from harness.profile.pair import Pair
from harness.run.loaded_model import LoadedModel
from harness.run.measured_pairs import MeasuredPairs
from harness.run.options import Options
from harness.run.pair_errors import PairErrors
from harness.run.session_results import SessionResults
from harness.run.stored_baselines import StoredBaselines

if TYPE_CHECKING:
    from harness.analysis.timing import TimingRatio
    from harness.baselines.store import Baseline
    from harness.judgement.results import Result


class PhaseSession:
    """What measures, the stored baselines and the findings of a session; one model is loaded at a time.

    `parametrized` is True if a test asks for a pair, selected or not; `test_verdicts` are the verdicts that the running
    test was given.
    """

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self.options = options
        self.processes = processes()
        self.results = results = SessionResults(options)
        self.loaded = LoadedModel(options, say, self.processes, parts=results.weights)
        self.measured = MeasuredPairs(options, say, results, self.loaded, self.processes)
        self.stored = StoredBaselines(options, say, self.loaded, self.processes, results.matched, results.written)
        self.errors = PairErrors(self.processes)
        self.test_verdicts: list[Result] = []
        self.parametrized = False

    def baseline(self, pair: Pair) -> Baseline:
        """Return the stored baseline of a pair; with an update option, written first where it is due.

        With --phase-against it is the other model instead, measured in this run.

        Raises:
            BaselineError: missing (without an update option), damaged, not comparable, or not to be written.
        """
        profile = self.measured.profile(pair)
        if self.options.against is not None:
            return self.measured.reference(pair)
        return self.stored.baseline(pair, profile)

    def timing_baseline(self, pair: Pair, timing: TimingRatio) -> float | None:
        """Return the stored hooked/plain ratio of this device, dtype and attention, or None; None with --phase-against.

        With an update option the ratio measured now is stored first where it is due.
        """
        if self.options.against is not None:
            return None
        return self.stored.timing(pair, self.measured.profile(pair), timing)

    def record(self, result: Result, held: Baseline | None = None) -> None:
        """Keep a verdict for all views and for the running test, and what the pair was held against."""
        self.test_verdicts.append(result)
        self.results.record(result)
        if held is not None:
            self.results.baselines.setdefault(result.pair, held)

    def record_ratio(self, result: Result, ratio: TimingRatio) -> None:
        """Keep a ratio for the views and for the running test; no two runs agree on it, so it is no verdict."""
        self.test_verdicts.append(result)
        self.results.ratios[result.pair] = ratio
