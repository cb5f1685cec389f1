"""A test session: its options, models, measurements, baselines and results."""

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
    from harness.analysis.claims import Claim
    from harness.analysis.timing import TimingRatio
    from harness.baselines.store import Baseline
    from harness.judgement.results import Result


class PhaseSession:
    """The measurements, baselines and results of a session; one model is loaded at a time.

    `parametrized` is True if a collected test uses a pair. `test_verdicts` holds the verdicts of the running test.
    """

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self.options = options
        self.processes = processes()
        self.results = results = SessionResults(options)
        self.loaded = LoadedModel(options, say, self.processes, parts=results.weights)
        self.measured = MeasuredPairs(options, say, results, self.loaded, self.processes)
        self.stored = StoredBaselines(options, say, self.loaded, self.processes, results)
        self.errors = PairErrors(self.processes)
        self.test_verdicts: list[Result] = []
        self.parametrized = False

    def baseline(self, pair: Pair) -> Baseline:
        """Return the stored baseline of a pair; an update option writes it first if necessary.

        With --phase-against, return the other model as reference, measured in this run.

        Raises:
            BaselineError: missing (without an update option), damaged, not comparable, or not writable.
        """
        profile = self.measured.profile(pair)
        if self.options.against is not None:
            return self.measured.reference(pair)
        return self.stored.baseline(pair, profile)

    def timing_baseline(self, pair: Pair, timing: TimingRatio) -> float | None:
        """Return the stored hooked/plain ratio of this device, dtype and attention; None with --phase-against.

        It is None also if no ratio is stored. An update option stores the measured ratio first if necessary.
        """
        if self.options.against is not None:
            return None
        return self.stored.timing(pair, self.measured.profile(pair), timing)

    def write_known_differences(self) -> None:
        """Write the judged claims of accepted pairs to the known differences: all, or those with a written baseline.

        Raises:
            PhaseError: the file cannot be read, edited or written.
        """
        from harness.judgement.known_differences import accept_claims

        recorded = self.results.recorded
        judged: dict[str, dict[str, Claim]] = {}
        for result in self.results.verdicts:
            if result.claim is not None and (self.options.accept_claims or result.pair in recorded):
                judged.setdefault(str(result.pair), {})[result.question] = result.claim
        if not judged:
            return
        path = accept_claims(self.options.baselines, judged, set(map(str, recorded)))
        if path is not None:
            self.results.written[path] = "claims accepted"

    def record(self, result: Result, baseline: Baseline | None = None) -> None:
        """Record a verdict for the reports and the running test, with the baseline of the pair."""
        self.test_verdicts.append(result)
        self.results.record(result)
        if baseline is not None:
            self.results.baselines.setdefault(result.pair, baseline)

    def record_ratio(self, result: Result, ratio: TimingRatio) -> None:
        """Record a ratio for the reports and the running test; it differs from run to run, so it is no verdict."""
        self.test_verdicts.append(result)
        self.results.ratios[result.pair] = ratio
