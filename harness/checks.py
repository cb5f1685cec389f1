"""Assertions whose messages a stranger understands: what moved, where, by how much, against what, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from harness.analysis.boundary_agreement import BoundaryAgreement, BoundaryShift
from harness.analysis.claims import Claim, ClaimVerdict
from harness.analysis.interval_agreement import IntervalAgreement, IntervalFinding
from harness.analysis.mean_difference import Verdict
from harness.analysis.timing import TimingRatio, TimingVerdict, slower_than
from harness.baselines.store import Baseline
from harness.judgement.paper import paper_claims
from harness.judgement.regression import Comparison, Finding
from harness.profile.profile import Profile
from harness.report.controls_compared import control_lines
from harness.report.layout import join_unbroken, reason_text
from harness.report.messages import (
    baseline_comparison_lines,
    baseline_file_lines,
    boundary_lines,
    changed_measure_lines,
    fold_message,
    phase_lines,
)


def check_reproduces(profile: Profile, baseline: Baseline, comparison: Comparison) -> None:
    """Assert that every measure of the family is the baseline's, sample by sample.

    Skipped where that need not be: in another data type, and where the baseline is another model.

    Args:
        profile: what was measured now.
        baseline: what it is held against.
        comparison: of the two (`regression.compare`).

    Raises:
        AssertionError: naming measure, layers, difference, interval, margin, baseline and the command to accept it.
    """
    __tracebackhide__ = True
    if not baseline.requires_reproduction:
        if comparison.verdict is not Verdict.REPRODUCES:
            pytest.skip(
                reason_text(
                    "two models:",
                    f"{profile.model} and {baseline.profile.model} need not be the same, sample by sample; the summary "
                    "says up to where they are",
                )
            )
        return
    if comparison.inputs.changed:
        _fail(_regression(profile, baseline, comparison.inputs.changed, comparison.findings))
    if comparison.reproducible:
        pytest.skip(reason_text("not asked sample by sample:", comparison.reproducible))
    # Not to be the same is certain, sample by sample, even where the means do not decide.
    changed = [finding for finding in comparison.findings if finding.agreement.reproduced is False]
    if changed:
        _fail(_regression(profile, baseline, "", changed))


def check_equivalent(profile: Profile, baseline: Baseline, comparison: Comparison, *, strict: bool = False) -> None:
    """Assert that no measure of the family differs from the baseline's by more than its margin.

    With `strict` it fails where the evidence does not decide, instead of an expected failure.

    Raises:
        AssertionError: as `check_reproduces`.
    """
    __tracebackhide__ = True
    differing = [finding for finding in comparison.findings if finding.agreement.verdict is Verdict.DIFFERS]
    if differing:
        _fail(_regression(profile, baseline, comparison.inputs.changed, differing))
    open_ = [finding for finding in comparison.findings if finding.agreement.verdict is Verdict.INCONCLUSIVE]
    if open_:
        lines = _regression(profile, baseline, comparison.inputs.changed, open_)
        if strict:
            _fail(lines)
        needed = max(finding.agreement.mean.n_needed or 0 for finding in open_)
        pytest.xfail(fold_message([f"inconclusive, needs n of about {needed or 'more than can be said'}:", *lines]))


def check_boundaries(
    profile: Profile, baseline: Baseline, agreement: BoundaryAgreement, *, strict: bool = False
) -> None:
    """Assert that the layers that separate the phases are where the baseline has them.

    Raises:
        AssertionError: naming each boundary that moved, from where to where, its interval and margin.
    """
    __tracebackhide__ = True
    moved = [shift for shift in agreement.shifts if shift.verdict is agreement.verdict]
    lines = [line for shift in moved for line in boundary_lines(shift, agreement)]
    _conclude("phase boundaries", profile, baseline, agreement.verdict, lines, moved, strict)


def check_intervals(
    profile: Profile, baseline: Baseline, agreement: IntervalAgreement, *, strict: bool = False
) -> None:
    """Assert that each phase is as present, and as monotone, over the baseline's layers as it was.

    Raises:
        AssertionError: naming phase and layers, what held and what holds now, with effect, interval, margin and n.
    """
    __tracebackhide__ = True
    changed = [finding for finding in agreement.findings if finding.verdict is agreement.verdict]
    lines = [line for finding in changed for line in phase_lines(finding, agreement)]
    if not changed:
        lines = [f"  the baseline is certain of no phase, n = {agreement.n_baseline}: record it with more samples"]
    _conclude("phases", profile, baseline, agreement.verdict, lines, changed, strict)


def check_claim(profile: Profile, claim: Claim, *, strict: bool = False) -> None:
    """Assert that a claim of the paper holds for this model on this data.

    Raises:
        AssertionError: with the paper's statement, the part that fails with effect, interval, margin and n, and what
            the claim's effects are beyond the controls.
    """
    __tracebackhide__ = True
    if claim.verdict is ClaimVerdict.HOLDS:
        return
    lines = [f"{claim.name} of {profile.model} on {profile.dataset}: {claim.verdict.upper()}"]
    lines += [f"  {line}" for line in paper_claims()[claim.name].lines()]
    lines += [f"  {part.verdict}: {part.statement}" for part in claim.parts]
    lines += [f"  {line}" for line in control_lines(claim)]
    if claim.verdict is ClaimVerdict.INCONCLUSIVE and not strict:
        pytest.xfail(fold_message(lines))
    _fail(lines)


def check_ratio(pair: str, timing: TimingRatio, baseline_ratio: float, where: str) -> None:
    """Assert that hooked inference costs no more beside plain inference than the baseline says, within 15 %.

    Args:
        pair: which pair was timed.
        timing: the ratio measured now.
        baseline_ratio: the stored one, of the same device, dtype and attention.
        where: what the stored one belongs to, for the message.

    Raises:
        AssertionError: with both ratios and the interval.
    """
    __tracebackhide__ = True
    result = slower_than(timing, baseline_ratio)
    if result.verdict is TimingVerdict.SLOWER:
        low, high = timing.interval
        interval = f"({timing.confidence:.0%} interval {low:.3f} to {high:.3f}, {timing.n} alternating pairs),"
        _fail(
            [
                f"hooked inference of {pair} became slower:",
                f"  {timing.ratio:.3f} x plain {join_unbroken(interval)} baseline {baseline_ratio:.3f} x; "
                f"alarm where the lower end exceeds {result.margin:g} x the baseline",
                *baseline_file_lines(where),
            ]
        )


def _conclude(
    what: str,
    profile: Profile,
    baseline: Baseline,
    verdict: Verdict,
    lines: list[str],
    parts: Sequence[BoundaryShift | IntervalFinding],
    strict: bool,
) -> None:
    """Fails where something differs, and is an expected failure where the evidence does not decide."""
    __tracebackhide__ = True
    if verdict in (Verdict.REPRODUCES, Verdict.EQUIVALENT):
        return
    title = f"{what} of {profile.model} on {profile.dataset}: {verdict.upper()}"
    lines = [title, *lines, *baseline_comparison_lines(profile, baseline)]
    if verdict is Verdict.INCONCLUSIVE and not strict:
        n_needed = max((part.n_needed or 0 for part in parts), default=0)
        pytest.xfail(fold_message([f"inconclusive{f', needs n of about {n_needed}' if n_needed else ''}:", *lines]))
    _fail(lines)


def _regression(profile: Profile, baseline: Baseline, first: str, findings: Iterable[Finding]) -> list[str]:
    lines = [line for finding in findings for line in changed_measure_lines(finding, profile)]
    return [*([first] if first else []), *lines, *baseline_comparison_lines(profile, baseline)]


def _fail(lines: Iterable[str]) -> None:
    __tracebackhide__ = True
    raise AssertionError(fold_message(lines))
