"""Verdicts on causal claims: does information flow from the image where the phases are named for it?

The claims use attention knockout (Geva et al. 2023; Zhang et al., arXiv 2411.18620). They rest on the loss with the
real image minus the loss under each control, sample by sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import numpy as np

from harness.analysis.claims import PHASES, Claim, ClaimPart, ClaimVerdict
from harness.analysis.curves import FloatArray, cluster_means
from harness.analysis.knockout_reading import LATER, KnockoutSamples
from harness.analysis.monotone import Answer, PhaseFinding, Presence, judge_phase_rise
from harness.analysis.phase_reading import PhaseReading

#: The largest share of the loss without the image that a local phase may cost.
LOCAL_SHARE = 0.02
_VERDICTS: Mapping[Answer, ClaimVerdict] = {Presence.PRESENT: ClaimVerdict.HOLDS, Presence.ABSENT: ClaimVerdict.FAILS}
_INSTRUCTION = "instruction"
_REAL = "real"


def fusion_flows(reading: PhaseReading) -> Claim:
    """Judge the claim that blocking the image costs more per layer over phase III than over every other phase."""
    parts = []
    for control, rows in _phase_losses(reading, LATER):
        for phase in (0, 1, 3):
            # Three comparisons share the error.
            finding = judge_phase_rise(rows[:, [phase, 2]], 0, 1, 1, 0.0, alpha=reading.alpha / 3)
            means = rows.mean(0)
            difference = f"difference {_span(finding.interval)}"
            if not np.ptp(finding.interval):
                difference = "no difference: one window covers both, and only a smaller one can tell them apart"
            statement = (
                f"blocking the image costs {means[2]:.3g} nats per layer over III and {means[phase]:.3g} over "
                f"{PHASES[phase]}{_minus(control)} ({difference})"
            )
            parts.append(_part(f"III above {PHASES[phase]}{_minus(control)}", statement, finding))
    return Claim("fusion-flows", tuple(parts))


def alignment_flows(reading: PhaseReading) -> Claim:
    """Judge the claim that phase I carries more than chance from the image to the instruction's tokens."""
    parts = []
    for control, rows in _phase_losses(reading, _INSTRUCTION):
        finding = judge_phase_rise(np.column_stack([np.zeros(len(rows)), rows[:, 0]]), 0, 1, 1, 0.0, reading.alpha)
        statement = (
            f"blocking the instruction's tokens from the image costs {finding.effect:+.3g} nats per layer over I"
            f"{_minus(control)} ({_span(finding.interval)})"
        )
        parts.append(_part(f"I reaches the instruction{_minus(control)}", statement, finding))
    return Claim("alignment-flows", tuple(parts))


def output_is_local(reading: PhaseReading) -> Claim:
    """Judge the claim that blocking the image over phase IV costs less than 2 % of what the whole image is worth."""
    samples = _samples(reading)
    first = reading.phase_layers(3)[0] + 1
    column = max(index for index, start in enumerate(samples.starts) if start <= first)
    start = samples.starts[column]
    losses = cluster_means(samples.onward[:, [0, column]], samples.clusters)
    finding = judge_phase_rise(
        np.column_stack([losses[:, 1], LOCAL_SHARE * losses[:, 0]]), 0, 1, 1, 0.0, alpha=reading.alpha
    )
    total, late = losses.mean(0)
    shares = [LOCAL_SHARE - bound / total for bound in reversed(finding.interval)]
    statement = (
        f"blocking the image in layers {start}-{samples.depth} costs {late:.3g} of {total:.3g} nats, "
        f"{late / total:.1%} ({shares[0]:.1%} to {shares[1]:.1%}), limit {LOCAL_SHARE:.0%}"
    )
    return Claim(
        "output-is-local",
        (
            ClaimPart(
                "IV costs little",
                statement,
                _verdict(finding),
                late / total,
                (shares[0], shares[1]),
                LOCAL_SHARE,
                finding.n,
            ),
        ),
    )


def _samples(reading: PhaseReading) -> KnockoutSamples:
    assert reading.knockout is not None
    assert reading.knockout.samples is not None
    return reading.knockout.samples


def _phase_losses(reading: PhaseReading, path: str) -> Iterator[tuple[str, FloatArray]]:
    """Yield, for each control, independent rows of the loss per layer over each phase, (n, 4), real minus control.

    Without controls, the losses of the real images.
    """
    samples = _samples(reading)
    controls = {name: values[path] for name, values in samples.controls.items() if path in values}
    for control, values in (controls or {_REAL: np.zeros_like(samples.paths[path])}).items():
        rows = np.flatnonzero(np.isfinite(values).all(axis=1)).tolist()
        differences = samples.per_layer(samples.paths[path][rows] - values[rows])
        means = [differences[:, slice(*reading.phase_layers(phase))].mean(1) for phase in range(len(PHASES))]
        yield control, cluster_means(np.stack(means, 1), [samples.clusters[row] for row in rows])


def _minus(control: str) -> str:
    return "" if control == _REAL else f", minus {control}"


def _part(name: str, statement: str, finding: PhaseFinding) -> ClaimPart:
    return ClaimPart(name, statement, _verdict(finding), finding.effect, finding.interval, math.nan, finding.n)


def _verdict(finding: PhaseFinding) -> ClaimVerdict:
    return _VERDICTS.get(finding.verdict, ClaimVerdict.INCONCLUSIVE)


def _span(interval: tuple[float, float]) -> str:
    return f"{interval[0]:+.3g} to {interval[1]:+.3g}"


#: The causal claims by name, judged if the knockout was measured.
FLOW_CLAIMS: Mapping[str, Callable[[PhaseReading], Claim]] = MappingProxyType(
    {"fusion-flows": fusion_flows, "alignment-flows": alignment_flows, "output-is-local": output_is_local}
)
