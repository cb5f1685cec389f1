"""Assertions whose messages a stranger understands: what moved, where, by how much, against what, and what to do."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from harness.analysis.boundary_agreement import BoundaryAgreement
from harness.analysis.claims import PHASES, Claim, ClaimVerdict
from harness.analysis.interval_agreement import Answer, IntervalAgreement, IntervalFinding, Question
from harness.analysis.mean_difference import Verdict
from harness.analysis.monotone import Monotonicity
from harness.analysis.timing import TimingRatio, TimingVerdict, slower_than
from harness.baselines.store import Baseline
from harness.judgement.paper import paper_claims
from harness.judgement.regression import Comparison, Finding
from harness.profile.profile import Profile
from harness.report.changed_measure import changed_measure_lines
from harness.report.controls_compared import beyond_lines
from harness.report.held_lines import file_lines, held_lines
from harness.report.layout import MESSAGE_WIDTH, folded, reason_text, together

# pytest writes this before the first line of a message.
_BEFORE = len("AssertionError: ")


def check_reproduces(profile: Profile, baseline: Baseline, comparison: Comparison) -> None:
    """Asserts that every measure of the family is the baseline's, sample by sample.

    Skipped where that need not be: in another data type, and where the baseline is another model.

    Args:
        profile: what was measured now.
        baseline: what it is held against.
        comparison: of the two (`comparison.compare`).

    Raises:
        AssertionError: naming measure, layers, difference, interval, margin, baseline and the command to accept it.
    """
    __tracebackhide__ = True
    if not baseline.asks_reproduction:
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
    """Asserts that no measure of the family differs from the baseline's by more than its margin.

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
        _undecided(open_, strict, _regression(profile, baseline, comparison.inputs.changed, open_))


def check_boundaries(
    profile: Profile, baseline: Baseline, agreement: BoundaryAgreement, *, strict: bool = False
) -> None:
    """Asserts that the layers that separate the phases are where the baseline has them.

    Raises:
        AssertionError: naming each boundary that moved, from where to where, its interval and margin.
    """
    __tracebackhide__ = True
    if agreement.verdict in (Verdict.REPRODUCES, Verdict.EQUIVALENT):
        return
    moved = [shift for shift in agreement.shifts if shift.verdict is agreement.verdict]
    lines = [f"phase boundaries of {profile.model} on {profile.dataset}: {agreement.verdict.upper()}"]
    for shift in moved:
        low, high = shift.interval
        lines.append(
            f"  {shift.kind} {shift.index} moved from layer {shift.baseline:g} to {shift.now:g}: {shift.effect:+g} "
            + together(
                f"({agreement.confidence:.4%} interval {low:g} to {high:g}),",
                f"margin {shift.margin:g},",
                f"n = {agreement.n} {'paired' if agreement.paired else 'unpaired'}",
            )
        )
    _conclude(lines + held_lines(profile, baseline), agreement.verdict, [part.n_needed for part in moved], strict)


def check_intervals(
    profile: Profile, baseline: Baseline, agreement: IntervalAgreement, *, strict: bool = False
) -> None:
    """Asserts that each phase is as present, and as monotone, over the baseline's layers as it was.

    Raises:
        AssertionError: naming phase and layers, what held and what holds now, with effect, interval, margin and n.
    """
    __tracebackhide__ = True
    if agreement.verdict in (Verdict.REPRODUCES, Verdict.EQUIVALENT):
        return
    changed = [finding for finding in agreement.findings if finding.verdict is agreement.verdict]
    lines = [f"phases of {profile.model} on {profile.dataset}: {agreement.verdict.upper()}"]
    for finding in changed:
        lines += _phase_changed(finding, agreement)
    if not changed:
        lines.append(f"  the baseline is certain of no phase, n = {agreement.n_baseline}: record it with more samples")
    _conclude(lines + held_lines(profile, baseline), agreement.verdict, [part.n_needed for part in changed], strict)


def check_claim(profile: Profile, claim: Claim, *, strict: bool = False) -> None:
    """Asserts that a claim of the paper holds for this model on this data.

    Raises:
        AssertionError: with the paper's statement, the part that fails with effect, interval, margin and n, and what
            the claim's effects are beyond the controls.
    """
    __tracebackhide__ = True
    if claim.verdict is ClaimVerdict.HOLDS:
        return
    lines = [f"{claim.name} of {profile.model} on {profile.dataset}: {claim.verdict.upper()}"]
    lines += [f"  {line}" for line in paper_claims()[claim.name].said()]
    lines += [f"  {part.verdict}: {part.statement}" for part in claim.parts]
    lines += [f"  {line}" for line in beyond_lines(claim)]
    if claim.verdict is ClaimVerdict.INCONCLUSIVE and not strict:
        pytest.xfail(_message(lines))
    _fail(lines)


def check_ratio(pair: str, timing: TimingRatio, baseline_ratio: float, where: str) -> None:
    """Asserts that hooked inference costs no more beside plain inference than the baseline says, within 15 %.

    Args:
        pair: which pair was timed.
        timing: the ratio measured now.
        baseline_ratio: the stored one, of the same device, dtype and attention.
        where: what the stored one belongs to, for the message.

    Raises:
        AssertionError: with both ratios and the interval.
    """
    __tracebackhide__ = True
    found = slower_than(timing, baseline_ratio)
    if found.verdict is TimingVerdict.SLOWER:
        low, high = timing.interval
        interval = f"({timing.confidence:.0%} interval {low:.3f} to {high:.3f}, {timing.n} alternating pairs),"
        _fail(
            [
                f"hooked inference of {pair} became slower:",
                f"  {timing.ratio:.3f} x plain {together(interval)} baseline {baseline_ratio:.3f} x; alarm where the "
                f"lower end exceeds {found.margin:g} x the baseline",
                *file_lines(where),
            ]
        )


def _phase_changed(finding: IntervalFinding, agreement: IntervalAgreement) -> list[str]:
    said: dict[Answer, str] = {Monotonicity.VIOLATED: "not monotone"}
    then, now = said.get(finding.then, finding.then), said.get(finding.now, finding.now)
    if finding.verdict is Verdict.INCONCLUSIVE:
        now = f"no longer certain to be {then}"
    verb = "rise" if finding.direction > 0 else "fall"
    what, bound = (verb, "prominence") if finding.question is Question.PRESENCE else ("largest reversal", "margin")
    (low, high), (least, most) = finding.interval, finding.change_interval
    numbers = together(
        f"{what} {finding.effect:.3g} from point {finding.layers[0]} to {finding.layers[1]}",
        f"(interval {low:.3g} to {high:.3g}),",
        f"in the baseline {finding.before:.3g},",
        f"{bound} {finding.margin:.3g};",
        f"change {finding.change:+.3g}",
        f"({agreement.confidence:.3%} interval {least:+.3g} to {most:+.3g}),",
        f"n = {finding.n} {'paired' if agreement.paired else 'unpaired'}",
    )
    return [
        f"  phase {PHASES[finding.phase - 1]}, a {verb} of inter-modal similarity over residual points "
        f"{finding.first}-{finding.last} of the baseline, was {then} and is {now}:",
        f"    {numbers}",
    ]


def _conclude(lines: list[str], verdict: Verdict, needed: list[int | None], strict: bool) -> None:
    """Fails, or is an expected failure where the evidence does not decide."""
    __tracebackhide__ = True
    if verdict is Verdict.INCONCLUSIVE and not strict:
        most = max((n or 0 for n in needed), default=0)
        pytest.xfail(_message([f"inconclusive{f', needs n of about {most}' if most else ''}:", *lines]))
    _fail(lines)


def _undecided(findings: Iterable[Finding], strict: bool, lines: list[str]) -> None:
    """An expected failure where no finding is worse than inconclusive."""
    __tracebackhide__ = True
    if strict:
        _fail(lines)
    needed = max((finding.agreement.mean.n_needed or 0 for finding in findings), default=0)
    pytest.xfail(_message([f"inconclusive, needs n of about {needed or 'more than can be said'}:", *lines]))


def _regression(profile: Profile, baseline: Baseline, first: str, findings: Iterable[Finding]) -> list[str]:
    lines = [first] if first else []
    for finding in findings:
        lines += changed_measure_lines(finding, profile)
    return lines + held_lines(profile, baseline)


def _message(lines: Iterable[str]) -> str:
    """The lines folded for the narrowest of terminals, the first one behind what pytest writes before it."""
    told: list[str] = []
    for line in lines:
        deeper = 2 if line.startswith(" ") else 4
        told += folded(line, MESSAGE_WIDTH, deeper, taken=0 if told else _BEFORE)
    return "\n".join(told)


def _fail(lines: Iterable[str]) -> None:
    __tracebackhide__ = True
    raise AssertionError(_message(lines))
