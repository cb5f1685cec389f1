from __future__ import annotations

import numpy as np
import pytest

from harness.analysis.claims import CLAIMS, Claim, ClaimVerdict, alignment, four_phases, intra_modal, output_preparation
from harness.analysis.curves import FloatArray
from harness.analysis.phase_reading import PhaseReading, read_phases
from harness.tests.support.synthetic_curves import POINTS, draw_curves, draw_recalls, phase_curve

INTER = phase_curve()
INTRA = phase_curve((0, 7, 15, 24, 30), (0.20, 0.30, 0.55, 0.60, 0.25))
HOLDS, FAILS, INCONCLUSIVE = ClaimVerdict.HOLDS, ClaimVerdict.FAILS, ClaimVerdict.INCONCLUSIVE


def reading(
    inter: FloatArray = INTER,
    image: FloatArray = INTRA,
    text: FloatArray = INTRA,
    recall: FloatArray | None = None,
    n: int = 64,
    sd: float = 0.05,
    seed: int = 0,
) -> PhaseReading:
    curves = [draw_curves(mean, n, seed + i, sd=sd) for i, mean in enumerate((inter, image, text))]
    return read_phases(*curves, draw_recalls(n, seed) if recall is None else recall)


def verdicts(found: PhaseReading) -> dict[str, ClaimVerdict]:
    return {name: judge(found).verdict for name, judge in CLAIMS.items()}


def part(claim: Claim, name: str) -> ClaimVerdict:
    return next(p.verdict for p in claim.parts if p.name == name)


def test_all_claims_hold_for_a_curve_as_in_the_paper() -> None:
    found = reading()
    assert verdicts(found) == dict.fromkeys(CLAIMS, HOLDS)
    assert found.phase_layers(0) == (0, 7)
    assert found.phase_layers(3) == (24, 30)
    for name, judge in CLAIMS.items():
        claim = judge(found)
        assert claim.name == name
        assert all(p.verdict is HOLDS and p.n == 64 and p.statement for p in claim.parts)
        assert claim.decisive.name == claim.parts[0].name
        assert (claim.decisive.effect, claim.decisive.interval, claim.decisive.margin) == (
            claim.parts[0].effect,
            claim.parts[0].interval,
            claim.parts[0].margin,
        )


@pytest.mark.parametrize(
    ("inter", "count"),
    [
        (phase_curve((0, 10, 20, 30), (0.1, 0.5, 0.2, 0.6)), 3),
        (phase_curve((0, 6, 12, 18, 24, 30), (0.1, 0.4, 0.1, 0.5, 0.2, 0.6)), 5),
        (phase_curve((0, 30), (0.1, 0.6)), 1),
        (phase_curve((0, 7, 15, 24, 30), (0.6, 0.2, 0.5, 0.1, 0.4)), 3),
        (np.full(POINTS, 0.3), 0),
    ],
    ids=["three", "five", "one rise", "first down", "flat"],
)
def test_other_numbers_of_segments_are_not_four_phases(inter: FloatArray, count: int) -> None:
    """A chain of at most four segments is counted from its first rise; one that starts with a fall has three."""
    claim = four_phases(reading(inter, sd=0.01))
    assert claim.verdict is FAILS
    assert claim.decisive.name == "four monotone segments"
    assert (claim.decisive.effect, claim.decisive.margin) == (count, 4.0)


def test_a_reversal_inside_a_phase_fails_with_four_segments() -> None:
    """The reversal exceeds its margin, but is below the prominence of two further segments."""
    dented = np.interp(np.arange(POINTS), (0, 7, 15, 18, 20, 24, 30), (0.10, 0.45, 0.20, 0.42, 0.375, 0.65, 0.40))
    claim = four_phases(reading(dented, sd=0.02))
    assert part(claim, "four monotone segments") is HOLDS
    assert (claim.verdict, claim.decisive.name) == (FAILS, "no reversal in III")
    assert claim.decisive.effect == pytest.approx(0.045, abs=0.01)


def test_alignment_fails_if_phase_one_ends_late() -> None:
    late = phase_curve((0, 14, 19, 26, 30), (0.1, 0.45, 0.2, 0.65, 0.4))
    claim = alignment(reading(late))
    assert (claim.verdict, claim.decisive.name) == (FAILS, "I ends in the first quarter")
    assert (claim.decisive.effect, claim.decisive.margin) == (14.0, 7.5)


def test_an_end_whose_interval_contains_the_quarter_is_inconclusive() -> None:
    flat_top = np.interp(np.arange(POINTS), (0, 5, 10, 15, 24, 30), (0.1, 0.45, 0.45, 0.2, 0.65, 0.4))
    claim = alignment(reading(flat_top))
    assert (claim.verdict, claim.decisive.name) == (INCONCLUSIVE, "I ends in the first quarter")
    assert claim.decisive.interval[0] <= 7.5 < claim.decisive.interval[1]


def test_a_single_rise_is_no_alignment() -> None:
    """A fit of four segments finds boundaries on any curve; without a fall after it phase I has no end."""
    claim = alignment(reading(phase_curve((0, 30), (0.1, 0.6)), sd=0.02))
    assert claim.verdict is FAILS
    assert part(claim, "inter-modal falls over II") is FAILS


def test_intra_modal_similarity_that_falls_with_the_rest_fails() -> None:
    falling = phase_curve((0, 7, 15, 24, 30), (0.20, 0.50, 0.35, 0.60, 0.25))
    claim = intra_modal(reading(text=falling))
    assert (claim.verdict, claim.decisive.name) == (FAILS, "text rises over II")
    assert part(claim, "image rises over II") is HOLDS
    assert claim.decisive.effect == pytest.approx(-0.15, abs=0.03)


def test_output_preparation_needs_late_recall_and_a_late_phase() -> None:
    silent = output_preparation(reading(recall=np.zeros((64, POINTS))))
    assert (silent.verdict, silent.decisive.name, silent.decisive.effect) == (FAILS, "recall is late", 0.0)
    early = output_preparation(reading(phase_curve((0, 5, 10, 16, 30), (0.1, 0.45, 0.2, 0.65, 0.4))))
    assert part(early, "IV lies in the last quarter") is FAILS
    rising = output_preparation(reading(image=phase_curve((0, 30), (0.1, 0.5))))
    assert (rising.verdict, rising.decisive.name) == (FAILS, "image falls over IV")


def test_claims_on_weak_data_are_inconclusive() -> None:
    found = reading(n=5, sd=0.3)
    assert verdicts(found)["four-phases"] is INCONCLUSIVE
    assert verdicts(found)["inter-modal"] is INCONCLUSIVE


def test_noise_confirms_no_claim() -> None:
    """No claim about phases II to IV holds on curves that are flat or rise once."""
    for seed in range(4):
        for mean in (np.full(POINTS, 0.3), phase_curve((0, 30), (0.1, 0.6))):
            found = reading(mean, seed=seed, n=24)
            assert HOLDS not in (judge(found).verdict for judge in (four_phases, intra_modal, output_preparation))


def test_a_constant_added_or_the_order_of_samples_changes_no_verdict() -> None:
    curves = [draw_curves(mean, 48, i, sd=0.1) for i, mean in enumerate((INTER, INTRA, INTRA))]
    recall, order = draw_recalls(48, 0), np.random.default_rng(0).permutation(48)
    plain = read_phases(*curves, recall)
    moved = read_phases(*(curve[order] + 0.25 for curve in curves), recall[order])
    assert verdicts(moved) == verdicts(plain)
    shuffled = read_phases(*(curve[order] for curve in curves), recall[order])
    assert [judge(shuffled) for judge in CLAIMS.values()] == [judge(plain) for judge in CLAIMS.values()]


def test_clusters_count_once() -> None:
    curves = [np.repeat(draw_curves(mean, 32, i), 2, axis=0) for i, mean in enumerate((INTER, INTRA, INTRA))]
    found = read_phases(*curves, np.repeat(draw_recalls(32, 0), 2, axis=0), clusters=[i // 2 for i in range(64)])
    assert all(p.n == 32 for judge in CLAIMS.values() for p in judge(found).parts)


def test_curves_of_unequal_shape_are_refused() -> None:
    x = draw_curves(INTER, 8, 0)
    with pytest.raises(ValueError, match="the same shape"):
        read_phases(x, x, x[:, :-1], x)
    with pytest.raises(ValueError, match="segments need"):
        read_phases(x[:, :4], x[:, :4], x[:, :4], x[:, :4])
