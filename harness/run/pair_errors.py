"""The first error of each pair; other tests of the pair refer to it instead of repeating it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.measurement.ranks import Processes, processes

if TYPE_CHECKING:
    from harness.profile.pair import Pair

# The consequence of each failed fixture, and the fixtures of the tests that it concerns.
_CONSEQUENCES = {
    "vlm": ("its model cannot be loaded", {"vlm"}),
    "profile": ("it cannot be measured", {"profile", "contestants"}),
    "baseline": ("it cannot be compared with a baseline", {"baseline"}),
    "contestants": ("it cannot be timed", {"contestants"}),
}
# All processes fail in these together. If only some skipped a test, the others would wait for them.
_SHARED = ("profile", "baseline")


@dataclass
class PairErrors:
    """The tests in which fixtures of a pair failed first.

    `running` is the id of the test that is being set up.
    """

    processes: Processes = field(default_factory=processes)
    running: str = ""
    _tests: dict[tuple[Pair, str], str] = field(default_factory=dict)
    _models: dict[str, str] = field(default_factory=dict)

    def add(self, pair: Pair, fixture: str, *, of_model: bool) -> None:
        """Record that a fixture of a pair failed in the running test.

        Args:
            pair: the pair of the test.
            fixture: a name of `_CONSEQUENCES`.
            of_model: True if the model could not be loaded, which concerns all pairs of the model.
        """
        if self.processes.several and fixture not in _SHARED:
            return
        self._tests.setdefault((pair, fixture), self.running)
        if of_model and not self.processes.several:
            self._models.setdefault(pair.model, self.running)

    def earlier(self, pair: Pair, fixtures: Collection[str]) -> str:
        """Return the reason why a test with these fixtures must fail, with the test that shows the error, or ""."""
        reasons = {test: _CONSEQUENCES["vlm"][0] for model, test in self._models.items() if model == pair.model}
        for name, (reason, concerned) in _CONSEQUENCES.items():
            if (test := self._tests.get((pair, name))) and not concerned.isdisjoint(fixtures):
                reasons.setdefault(test, reason)
        # A test that runs again shows its own error again.
        if not reasons or self.running in reasons:
            return ""
        test, reason = next(iter(reasons.items()))
        return f"{pair}: {reason}, see the error of {test}"
