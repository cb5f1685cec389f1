"""The cost of measuring: hooked inference compared with plain inference of the same batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.baselines.store import Baseline
from harness.checks import check_ratio
from harness.profile.pair import Pair
from harness.run.judge import Judge
from harness.run.session import PhaseSession

if TYPE_CHECKING:
    from harness.measurement.stopwatch import ForwardPassTimer

pytestmark = pytest.mark.timing


def test_plain(benchmark: BenchmarkFixture, contestants: ForwardPassTimer) -> None:
    """Wall time of one plain forward pass; recorded without an assertion."""
    benchmark.pedantic(contestants.plain, rounds=3, warmup_rounds=1)


def test_similarity_and_attention(benchmark: BenchmarkFixture, contestants: ForwardPassTimer) -> None:
    """Wall time of one forward pass with similarity and attention measured; recorded without an assertion."""
    benchmark.pedantic(contestants.without_lens, rounds=3, warmup_rounds=1)
    benchmark.extra_info["times_plain"] = contestants.ratio_without_lens()


def test_hooked(benchmark: BenchmarkFixture, contestants: ForwardPassTimer) -> None:
    """Wall time of one forward pass with everything measured; recorded without an assertion."""
    benchmark.pedantic(contestants.hooked, rounds=3, warmup_rounds=1)


def test_ratio(
    phase: PhaseSession, pair: Pair, baseline: Baseline, contestants: ForwardPassTimer, judge: Judge
) -> None:
    """The ratio of hooked to plain inference time exceeds the baseline for this device by at most 15 %."""
    timing = contestants.ratio()
    judge.timing(timing)
    stored = phase.timing_baseline(pair, timing)
    if phase.options.against is not None:
        pytest.skip("with --phase-against no stored ratio is read; the summary shows the measured ratio")
    if stored is None:
        pytest.skip("no ratio is stored for this device, dtype and attention: record one with --phase-update")
    check_ratio(str(pair), timing, stored, baseline.describe())
