"""A changed pair is described by its cause, its first changed layer and its largest differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.interface import pytest_on, use
from harness.profile.profile import Profile
from harness.report.changes import PairChange, pair_change
from harness.report.messages import accept_command
from harness.report.outcomes import pair_outcomes
from harness.tests.support.judged import judge_profiles, make_differing_profile
from harness.tests.support.synthetic_profiles import replace_arrays, synthetic_profile


@pytest.fixture(autouse=True)
def in_pytest() -> Iterator[None]:
    previous = use(pytest_on("cases/"))
    yield
    use(previous)


def change_of(baselines: Path, profile: Profile, **stored: Any) -> PairChange | None:
    (outcome,) = pair_outcomes(judge_profiles(baselines, profile, **stored))
    return pair_change(outcome)


def test_an_unchanged_pair_has_no_change(tmp_path: Path) -> None:
    assert change_of(tmp_path, synthetic_profile()) is None


def test_a_changed_pair_names_cause_layer_largest_difference_and_command(tmp_path: Path) -> None:
    configured = {"text_config.rope_theta": 10100, "norm": 1}
    profile = dataclasses.replace(make_differing_profile(), configuration=configured)
    assert change_of(tmp_path, profile, configuration=configured | {"text_config.rope_theta": 10000}) == PairChange(
        cause="text_config.rope_theta 10000 -> 10100; weights changed; torch 2.15.0 -> 2.16.0; attention sdpa -> eager",
        identical_until="residual point 5",
        first_changed="first changed layer: 6",
        differs=("inter-modal similarity +0.09 at residual point 6, margin 0.035", "half-height 3 from layer 7.5 to "
                 "6.75, margin 0.5"),
        undecided=(),
        layers="6-8",
        accept="the same command with --phase-update --phase-reason TEXT",
    )  # fmt: skip


def test_a_registered_model_is_accepted_by_its_name() -> None:
    command = "pytest cases/ --phase-model scenes-llava --phase-dataset curves --phase-update --phase-reason TEXT"
    assert accept_command(dataclasses.replace(synthetic_profile(), model="scenes-llava")) == command


def test_attention_counts_layers_and_residual_points_are_outputs_of_layers(tmp_path: Path) -> None:
    profile = synthetic_profile()
    shares = profile["norm_image"].copy()
    shares[:, 4:] += 0.2
    change = change_of(tmp_path, replace_arrays(profile, norm_image=shares))
    assert change is not None
    assert (change.identical_until, change.first_changed) == ("residual point 4", "first changed layer: 5")
    assert (change.layers, change.cause[:32]) == ("5-12", "weights and environment the same")
    assert change.differs == ("norm-based attention on image +0.2 at layer 10, margin 0.01",)


def test_a_change_of_recall_alone_comes_after_the_last_layer(tmp_path: Path) -> None:
    profile = synthetic_profile()
    hits = profile.arrays["hits"].copy()
    hits[:, :, 1] = 6
    change = change_of(tmp_path, replace_arrays(profile, hits=hits))
    assert change is not None
    assert change.identical_until == "residual point 12, the last"
    assert change.first_changed == "first change: after the last layer, in the final norm or the unembedding"
    assert change.layers == ""


def test_a_small_change_of_the_embeddings_is_within_its_margin(tmp_path: Path) -> None:
    profile = synthetic_profile()
    change = change_of(tmp_path, replace_arrays(profile, inter=profile["inter"] + np.float32(0.001)))
    assert change is not None
    assert (change.identical_until, change.first_changed[:27]) == ("", "first change: before layer ")
    within = "64 of 64 samples changed by up to 0.001, the mean within its margin 0.035"
    assert change.differs == (f"inter-modal similarity: {within}",)


def test_changed_inputs_are_the_cause_and_undecided_measures_name_the_samples_that_decide(tmp_path: Path) -> None:
    profile = synthetic_profile()
    change = change_of(
        tmp_path, dataclasses.replace(profile, token_hashes=tuple(f"x{row}" for row in range(profile.n)))
    )
    assert change is not None
    assert change.cause.startswith("the inputs changed: of 64 samples with the baseline's ids, 64 have other token ids")
    assert (change.identical_until, change.first_changed, change.differs) == ("", "", ())
    assert "exit agreement (decided by about 75 samples)" in change.undecided
