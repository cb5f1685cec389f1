"""Two models compared: a claim fails only where it holds for one and fails for the other, changed layers are named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from harness.models.vlm import Vlm
from harness.tests.support.case_runs import Cases
from harness.tests.support.tiny import tiny_vlm
from harness.tests.support.tuned_models import make_tuned_vlm

Compare = Callable[[Vlm, Vlm], pytest.RunResult]


def make_aligned_vlm() -> Vlm:
    """Return the tiny model with larger weights after the first layer, for which the claim on phase I holds."""
    vlm = tiny_vlm(layers=6)
    with torch.no_grad():
        for layer in vlm.anatomy.layers[1:]:
            for parameter in layer.parameters():
                parameter.mul_(3.0)
    return vlm


@pytest.fixture
def compare(cases: Cases) -> Compare:
    """A function that saves two models and compares the first with the second."""

    def run(vlm: Vlm, other: Vlm) -> pytest.RunResult:
        for name, saved in (("mine", vlm), ("other", other)):
            directory = cases.baselines.parent / name
            saved.model.save_pretrained(directory)
            saved.processor.save_pretrained(directory)
        pair = ("--phase-model", "mine", "--phase-against", "other", "--phase-dataset", "tiny")
        return cases.run("-m", "not timing", "-rxf", "--phase-controls", "none", pair=pair)

    return run


@pytest.mark.slow
def test_identical_models_agree_on_claims_that_both_fail(compare: Compare) -> None:
    result = compare(tiny_vlm(layers=6), tiny_vlm(layers=6))
    assert result.ret == pytest.ExitCode.OK, result.stdout.str()
    result.stdout.fnmatch_lines(["XFAIL *test_four_phases*finding:"])


@pytest.mark.slow
def test_a_claim_that_holds_for_one_model_only_fails_and_changed_layers_are_named(compare: Compare) -> None:
    result = compare(make_aligned_vlm(), make_tuned_vlm(4.0))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    failed = [line for line in result.stdout.lines if line.startswith("FAILED cases") or line.startswith("FAILED ../")]
    claims = [line for line in failed if "regression" not in line and "test_alignment" in line]
    assert len(claims) == 1, result.stdout.str()
    assert not any("test_four_phases" in line for line in failed)
    text = " ".join(result.stdout.str().split())
    assert "alignment on tiny HOLDS for mine and FAILS for other" in text
    assert "weights differ in layers 2-6" in text
