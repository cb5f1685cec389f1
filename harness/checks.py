"""Assertions for test cases; their messages state the change, its position and size, the baseline, and the command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pytest

from harness.analysis.boundary_agreement import BoundaryAgreement, BoundaryShift
from harness.analysis.claims import Claim, ClaimVerdict
from harness.analysis.flow_claims import FLOW_CLAIMS
from harness.analysis.interval_agreement import IntervalAgreement, IntervalFinding
from harness.analysis.mean_difference import Verdict
from harness.analysis.timing import TimingRatio, TimingVerdict, judge_slowdown
from harness.baselines.store import Baseline
from harness.interface import current, measure_command, option_text
from harness.judgement.known_differences import measured_reason
from harness.judgement.paper import paper_claims
from harness.judgement.regression import Comparison, Finding
from harness.models.registry import MODELS
from harness.profile.profile import Profile
from harness.report.controls_compared import control_lines
from harness.report.layout import join_unbroken, reason_text, unbroken
from harness.report.messages import (
    baseline_comparison_lines,
    baseline_file_lines,
    boundary_lines,
    changed_measure_lines,
    changed_samples_brief,
    differing_brief,
    fold_message,
    part_brief,
    phase_lines,
)

#: The attribute of a check's error with one sentence for the terminal of pytest.
_BRIEF = "brief"


def check_reproduces(profile: Profile, baseline: Baseline, comparison: Comparison) -> None:
    """Assert that every measure of the family equals the baseline, sample by sample.

    The test is skipped if the data type differs from the baseline's or if the baseline is another model. It is also
    skipped if the run or the baseline lacks every measure of the family.

    Args:
        profile: the measured profile.
        baseline: the baseline.
        comparison: the result of `regression.compare` for both.

    Raises:
        AssertionError: with measure, layers, difference, interval, margin, baseline and the command that accepts it.

    Example:
        >>> from harness.checks import check_reproduces
        >>> from pathlib import Path
        >>> from harness.baselines.store import read_baseline
        >>> baseline = read_baseline(Path("baselines/scenes-llava/scenes.json"))
        >>> profile = baseline.profile
        >>> from harness.judgement.regression import compare
        >>> from harness.profile.measures import FAMILIES
        >>> check_reproduces(profile, baseline, compare(profile, baseline, FAMILIES["inter"]))
    """
    __tracebackhide__ = True
    _skip_absent(comparison)
    if not baseline.requires_reproduction:
        if comparison.verdict is not Verdict.REPRODUCES:
            pytest.skip(
                reason_text(
                    "two models:",
                    f"{profile.model} and {baseline.profile.model} are not required to agree sample by sample; the "
                    "summary lists the layers up to which they agree",
                )
            )
        return
    if comparison.inputs.changed:
        lines = _regression(profile, baseline, comparison.inputs.changed, comparison.findings)
        _fail(lines, f"{comparison.family.name}: {comparison.inputs.changed.split('; ')[0]}")
    if comparison.irreproducible_reason:
        pytest.skip(reason_text("not compared sample by sample:", comparison.irreproducible_reason))
    # Per-sample comparison is exact, so a changed sample fails even if the mean is inconclusive.
    changed = [finding for finding in comparison.findings if finding.agreement.reproduced is False]
    if changed:
        _fail(_regression(profile, baseline, "", changed), changed_samples_brief(comparison.family.name, changed))


def check_equivalent(profile: Profile, baseline: Baseline, comparison: Comparison, *, strict: bool = False) -> None:
    """Assert that no measure of the family differs from the baseline's by more than its margin.

    With `strict` an inconclusive verdict fails; otherwise it is an expected failure. The test is skipped if the run or
    the baseline lacks every measure of the family.

    Raises:
        AssertionError: as `check_reproduces`.

    Example:
        >>> from harness.checks import check_equivalent
        >>> from pathlib import Path
        >>> from harness.baselines.store import read_baseline
        >>> baseline = read_baseline(Path("baselines/scenes-llava/scenes.json"))
        >>> profile = baseline.profile
        >>> from harness.judgement.regression import compare
        >>> from harness.profile.measures import FAMILIES
        >>> check_equivalent(profile, baseline, compare(profile, baseline, FAMILIES["lens"]))
    """
    __tracebackhide__ = True
    _skip_absent(comparison)
    differing = [finding for finding in comparison.findings if finding.agreement.verdict is Verdict.DIFFERS]
    if differing:
        lines = _regression(profile, baseline, comparison.inputs.changed, differing)
        _fail(lines, differing_brief(comparison.family.name, differing))
    inconclusive = [finding for finding in comparison.findings if finding.agreement.verdict is Verdict.INCONCLUSIVE]
    if inconclusive:
        lines = _regression(profile, baseline, comparison.inputs.changed, inconclusive)
        needed = max(finding.agreement.mean.n_needed or 0 for finding in inconclusive)
        head = f"inconclusive{f', needs about n = {needed}' if needed else ''}"
        if strict:
            _fail(lines, f"{comparison.family.name}: {head}")
        pytest.xfail(fold_message([f"{head}:", *lines]))


def check_boundaries(
    profile: Profile, baseline: Baseline, agreement: BoundaryAgreement, *, strict: bool = False
) -> None:
    """Assert that the phase boundaries equal those of the baseline within their margins.

    Raises:
        AssertionError: with each shifted boundary, its layers in baseline and run, interval and margin.

    Example:
        >>> from harness.checks import check_boundaries
        >>> from pathlib import Path
        >>> from harness.baselines.store import read_baseline
        >>> baseline = read_baseline(Path("baselines/scenes-llava/scenes.json"))
        >>> profile = baseline.profile
        >>> from harness.judgement.regression import compare_boundaries
        >>> check_boundaries(profile, baseline, compare_boundaries(profile, baseline))
    """
    __tracebackhide__ = True
    shifted = [shift for shift in agreement.shifts if shift.verdict is agreement.verdict]
    lines = [line for shift in shifted for line in boundary_lines(shift, agreement)]
    _conclude("phase boundaries", profile, baseline, agreement.verdict, lines, shifted, strict)


def check_intervals(
    profile: Profile, baseline: Baseline, agreement: IntervalAgreement, *, strict: bool = False
) -> None:
    """Assert that each phase of the baseline is still present and monotone over the same layers.

    Raises:
        AssertionError: with phase, layers, the answers in baseline and run, effect, interval, margin and n.

    Example:
        >>> from harness.checks import check_intervals
        >>> from pathlib import Path
        >>> from harness.baselines.store import read_baseline
        >>> baseline = read_baseline(Path("baselines/scenes-llava/scenes.json"))
        >>> profile = baseline.profile
        >>> from harness.judgement.regression import compare_intervals
        >>> check_intervals(profile, baseline, compare_intervals(profile, baseline))
    """
    __tracebackhide__ = True
    changed = [finding for finding in agreement.findings if finding.verdict is agreement.verdict]
    lines = [line for finding in changed for line in phase_lines(finding, agreement)]
    if not changed:
        lines = [f"  with n = {agreement.n_baseline} the baseline confirms no phase: record it with more samples"]
    _conclude("phases", profile, baseline, agreement.verdict, lines, changed, strict)


def check_claim(profile: Profile, claim: Claim, *, strict: bool = False) -> None:
    """Assert that a claim of the paper holds for this model on this data.

    Raises:
        AssertionError: with the paper's statement, the failed part with effect, interval, margin and n, and the
            differences to the controls.

    Example:
        >>> from harness.checks import check_claim
        >>> from pathlib import Path
        >>> from harness.baselines.store import read_baseline
        >>> profile = read_baseline(Path("baselines/scenes-llava/scenes.json")).profile
        >>> from harness.judgement.phases import judge_claims, phase_reading
        >>> claims = judge_claims(phase_reading(profile))
        >>> check_claim(profile, claims["inter-modal"])
        >>> check_claim(profile, claims["alignment"])
        Traceback (most recent call last):
        AssertionError: alignment of scenes-llava on scenes: FAILS
        ...
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
    if claim.verdict is ClaimVerdict.FAILS and current().prefix is not None:
        accepting = option_text("accept_claims", "True")
        if claim.name in FLOW_CLAIMS:
            accepting = f"{option_text('knockout', 'True')} {accepting}"
        command = f"the same command with {accepting}"
        # The profile of another model does not know its path.
        if profile.model in MODELS:
            command = measure_command(profile.model, profile.dataset, accepting)
        lines.append(unbroken(f"  accept it as a known difference? {command}"))
    _fail(lines, f"{claim.name} {claim.verdict}: {measured_reason(claim)}")


def opposite_claims_text(claims: Mapping[str, Claim], dataset: str) -> str:
    """Return the message on a claim that holds for one model and fails for another.

    Args:
        claims: the claim by model.
        dataset: the name of the dataset.
    """
    name = next(iter(claims.values())).name
    verdicts = " and ".join(f"{claim.verdict.upper()} for {model}" for model, claim in claims.items())
    lines = [f"{name} on {dataset} {verdicts}", *(f"  {line}" for line in paper_claims()[name].lines())]
    lines += [f"  {model}: {measured_reason(claim)}" for model, claim in claims.items()]
    return fold_message(lines)


def check_ratio(pair: str, timing: TimingRatio, baseline_ratio: float, where: str) -> None:
    """Assert that the ratio of hooked to plain inference time exceeds the baseline by at most 15 %.

    Args:
        pair: the name of the timed pair.
        timing: the measured ratio.
        baseline_ratio: the stored ratio for the same device, dtype and attention.
        where: a description of the baseline for the message.

    Raises:
        AssertionError: with both ratios and the interval.

    Example:
        >>> from harness.checks import check_ratio
        >>> from harness.analysis.timing import TimingRatio
        >>> timing = TimingRatio(ratio=1.5, interval=(1.45, 1.55), confidence=0.99, n=20)
        >>> check_ratio("scenes-llava-scenes", timing, baseline_ratio=1.49, where="baselines/scenes-llava/scenes.json")
    """
    __tracebackhide__ = True
    result = judge_slowdown(timing, baseline_ratio)
    if result.verdict is TimingVerdict.SLOWER:
        low, high = timing.interval
        interval = f"({timing.confidence:.0%} interval {low:.3f} to {high:.3f}, {timing.n} alternating pairs),"
        _fail(
            [
                f"hooked inference of {pair} became slower:",
                f"  {timing.ratio:.3f} x plain {join_unbroken(interval)} baseline {baseline_ratio:.3f} x; "
                f"fails if the lower end exceeds {result.margin:g} x the baseline",
                *baseline_file_lines(where),
            ],
            f"hooked inference became slower: {timing.ratio:.2f} x plain, {baseline_ratio:.2f} x in the baseline",
        )


def _conclude(
    subject: str,
    profile: Profile,
    baseline: Baseline,
    verdict: Verdict,
    lines: list[str],
    parts: Sequence[BoundaryShift | IntervalFinding],
    strict: bool,
) -> None:
    """Fail if the verdict is `differs`; an inconclusive verdict is an expected failure unless `strict`."""
    __tracebackhide__ = True
    if verdict in (Verdict.REPRODUCES, Verdict.EQUIVALENT):
        return
    title = f"{subject} of {profile.model} on {profile.dataset}: {verdict.upper()}"
    lines = [title, *lines, *baseline_comparison_lines(profile, baseline)]
    if verdict is Verdict.INCONCLUSIVE and not strict:
        n_needed = max((part.n_needed or 0 for part in parts), default=0)
        pytest.xfail(fold_message([f"inconclusive{f', needs about n = {n_needed}' if n_needed else ''}:", *lines]))
    _fail(lines, f"{subject} {verdict}: {'; '.join(map(part_brief, parts)) or lines[1].strip()}")


def _skip_absent(comparison: Comparison) -> None:
    """Skip the test if no measure of the family could be compared."""
    if not comparison.findings:
        reasons = dict.fromkeys(comparison.not_compared.values())
        pytest.skip(reason_text("not compared:", f"{comparison.family.title}, {'; '.join(reasons)}"))


def _regression(profile: Profile, baseline: Baseline, first: str, findings: Iterable[Finding]) -> list[str]:
    lines = [line for finding in findings for line in changed_measure_lines(finding, profile)]
    return [*([first] if first else []), *lines, *baseline_comparison_lines(profile, baseline)]


def _fail(lines: Iterable[str], brief: str) -> None:
    __tracebackhide__ = True
    error = AssertionError(fold_message(lines))
    # A subclass would put the name of its module before the message.
    setattr(error, _BRIEF, brief)
    raise error
