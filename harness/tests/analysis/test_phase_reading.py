from __future__ import annotations

import numpy as np
import pytest

from harness.analysis.claims import ClaimVerdict, alignment, inter_modal
from harness.analysis.curves import FloatArray
from harness.analysis.phase_reading import PhaseReading, read_phases
from harness.analysis.segments import declared_prominence
from harness.tests.support.synthetic_curves import draw_curves, phase_curve

FOUR, UP = phase_curve(), phase_curve((0, 30), (0.1, 0.6))


def reading(inter: FloatArray, n: int = 64, sd: float = 0.02, seed: int = 0) -> PhaseReading:
    x = draw_curves(inter, n, seed, sd=sd)
    return read_phases(x, x, x, None, no_recall="not drawn")


@pytest.mark.parametrize(
    ("inter", "confirmed"),
    [
        (FOUR, (True, True, True, True)),
        # A first rise and a first fall of a fifteenth of the range lie below the declared prominence of a tenth.
        (phase_curve((0, 5, 10, 24, 30), (0.26, 0.30, 0.26, 0.86, 0.30)), (False, False, True, True)),
        # The curve never falls.
        (phase_curve((0, 7, 15, 24, 30), (0.1, 0.3, 0.3, 0.6, 0.6)), (True, False, True, False)),
    ],
)
def test_a_phase_is_confirmed_if_its_change_exceeds_the_prominence(
    inter: FloatArray, confirmed: tuple[bool, ...]
) -> None:
    assert reading(inter).confirmed == confirmed


def test_few_noisy_samples_confirm_no_phase() -> None:
    assert reading(FOUR, n=4, sd=0.3).confirmed == (False, False, False, False)


@pytest.mark.parametrize("sd", [0.02, 0.2, 0.6])
def test_confirmed_phases_agree_with_the_claims(sd: float) -> None:
    for mean in (FOUR, UP):
        measured = reading(mean, sd=sd)
        assert (alignment(measured).parts[0].verdict is ClaimVerdict.HOLDS) == measured.confirmed[0]
        assert (inter_modal(measured).verdict is ClaimVerdict.HOLDS) == measured.confirmed[2]
        if all(measured.confirmed):
            assert measured.any_segments.count >= 4


def test_the_bound_of_a_fall_is_read_in_its_own_direction() -> None:
    measured = reading(FOUR)
    first, last = measured.phase_layers(1)
    _, _, high = measured.rises.between(first, last)
    assert -high > declared_prominence(measured.summary.mean)
    assert np.diff(measured.summary.mean[[first, last]]) < 0.0
