"""Mean losses, the last needed layer and the causal claims on synthetic losses with known truth."""

from __future__ import annotations

import numpy as np
import pytest

from harness.analysis.flow_claims import alignment_flows, fusion_flows, output_is_local
from harness.analysis.knockout_reading import read_knockout
from harness.analysis.knockout_windows import knockout_windows, onward_starts, window_size
from harness.judgement.phases import CLAIM_NAMES, judge_claims, phase_reading
from harness.tests.support.synthetic_profiles import L, N, synthetic_profile, with_knockout


def reading(**losses: tuple[float, ...]):  # type: ignore[no-untyped-def]
    return phase_reading(with_knockout(synthetic_profile(), **losses))


def test_windows_and_starts() -> None:
    assert [window_size(depth) for depth in (30, 32, 12, 1)] == [5, 6, 2, 1]
    assert window_size(4, 9) == 4
    assert [(window.start, window.stop) for window in knockout_windows(7, 3)] == [(0, 3), (3, 6), (6, 7)]
    assert onward_starts(12, 3) == (0, 3, 6, 8, 9, 10, 11)


def test_losses_have_their_means_shares_and_intervals() -> None:
    knockout = reading().knockout
    assert knockout.total.layers == (1, L)
    assert knockout.total.effect == pytest.approx(40.0, abs=0.1)
    assert [loss.layers for loss in knockout.paths["later"]] == [(1, 3), (4, 6), (7, 9), (10, 12)]
    for loss, truth in zip(knockout.paths["later"], (6.0, 0.0, 30.0, 0.1), strict=True):
        assert loss.interval[0] < truth < loss.interval[1]
        assert loss.share == pytest.approx(truth / 40.0, abs=0.01)
        assert loss.per_token == pytest.approx(truth / 10.0, abs=0.02)
    assert knockout.n == N
    assert list(knockout.controls) == ["noise", "other"]
    assert knockout.controls["other"][0].effect == pytest.approx(2.0, abs=0.1)


def test_the_last_needed_layer_is_the_first_whose_later_layers_cost_under_a_percent() -> None:
    needed = reading().knockout.last_needed
    assert (needed.estimate, needed.low, needed.high) == (10.0, 10.0, 10.0)
    # A loss of 1 % with noise between samples: the interval contains both answers.
    wide = reading(knockout_onward=(40.0, 34.0, 32.0, 5.0, 0.4, 0.05, 0.0)).knockout.last_needed
    assert wide.low == 10.0
    assert wide.high == 11.0
    always = reading(knockout_onward=(40.0, 34.0, 32.0, 5.0, 4.0, 3.0, 2.0)).knockout.last_needed
    assert always.estimate == L + 1


def test_a_model_that_does_not_use_the_image_has_no_shares() -> None:
    knockout = reading(knockout_onward=(0.0,) * 7, knockout=(0.0,) * 4).knockout
    assert knockout.total.share is None
    assert knockout.last_needed is None
    assert all(loss.share is None for loss in knockout.paths["later"])


def test_claims_hold_where_the_phases_do_what_they_are_named_for() -> None:
    """The phases are residual points 0-2, 2-5, 5-10 and 10-12."""
    holds = reading(knockout=(0.3, 0.0, 30.0, 0.1))
    assert fusion_flows(holds).verdict == "holds"
    assert alignment_flows(holds).verdict == "holds"
    assert output_is_local(holds).verdict == "holds"
    assert [part.name for part in fusion_flows(holds).parts] == [
        f"III above {phase}, minus noise" for phase in ("I", "II", "IV")
    ]
    assert {"fusion-flows", "alignment-flows", "output-is-local"} <= judge_claims(holds).keys()
    assert tuple(judge_claims(holds)) == CLAIM_NAMES


@pytest.mark.parametrize(
    ("claim", "losses"),
    [
        (fusion_flows, {"knockout": (30.0, 30.0, 0.0, 0.0)}),
        (alignment_flows, {"knockout_instruction": (-1.0, 0.0, 0.0, 0.0)}),
        (output_is_local, {"knockout_onward": (40.0, 34.0, 32.0, 5.0, 4.0, 3.0, 2.0)}),
    ],
)
def test_claims_fail_where_they_do_not(claim, losses) -> None:  # type: ignore[no-untyped-def]
    assert claim(reading(**losses)).verdict == "fails"


def test_a_loss_that_noise_has_too_is_no_flow() -> None:
    """The claims rest on real minus control."""
    assert fusion_flows(reading(knockout_noise=(6.0, 0.0, 30.0, 0.1))).verdict != "holds"
    assert alignment_flows(reading(knockout_noise_instruction=(1.0, 0.0, 0.0, 0.0))).verdict != "holds"


def test_without_a_knockout_there_are_no_causal_claims() -> None:
    plain = phase_reading(synthetic_profile())
    assert plain.knockout is None
    assert "fusion-flows" not in judge_claims(plain)


def test_the_order_of_samples_changes_nothing() -> None:
    samples = reading().knockout.samples
    rows = np.random.default_rng(1).permutation(N)
    shuffled = type(samples)(
        samples.window,
        samples.starts,
        {path: values[rows] for path, values in samples.paths.items()},
        {name: {path: values[rows] for path, values in paths.items()} for name, paths in samples.controls.items()},
        samples.onward[rows],
        samples.tokens[rows],
        [samples.clusters[row] for row in rows],
    )
    first, second = read_knockout(samples), read_knockout(shuffled)
    assert first.last_needed == second.last_needed
    for loss, other in zip(first.paths["later"], second.paths["later"], strict=True):
        assert loss.effect == pytest.approx(other.effect, abs=1e-12)
