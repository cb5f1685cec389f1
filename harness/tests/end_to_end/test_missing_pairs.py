"""What this machine has not got: skipped with the remedy, and an error before anything is measured if asked for."""

from __future__ import annotations

import pytest

from harness.tests.support.case_runs import PAIR, Cases


def test_pairs_that_nobody_named_are_skipped_with_the_remedy(cases: Cases, empty_hub: None) -> None:
    result = cases.run("-k", "llava-1.5-7b or instructblip-vicuna-7b", "-rs", pair=())
    assert result.ret == pytest.ExitCode.OK
    skipped = result.parseoutcomes()["skipped"]
    assert result.parseoutcomes() == {"skipped": skipped, "deselected": result.parseoutcomes()["deselected"]}
    for model in ("llava-1.5-7b", "instructblip-vicuna-7b"):
        for dataset in ("coco-captions", "winoground"):
            # One line a pair, not one a case.
            line = f"SKIPPED [[]{skipped // 4}[]] *{model}-{dataset}: {model}:*not in the local cache*--phase-download*"
            result.stdout.fnmatch_lines([line])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--phase-model", "llava-1.5-7b"), "*llava-1.5-7b-coco-captions was asked for*--phase-download*"),
        (("--phase-model", "no-one/nothing"), "*nothing-scenes was asked for*--phase-download*"),
        (
            ("--phase-model", "tiny-llava", "--phase-dataset", "winoground"),
            "*tiny-llava-winoground was asked for*--phase-data winoground=DIR*",
        ),
    ],
)
def test_a_pair_that_was_named_is_an_error(cases: Cases, empty_hub: None, asked: tuple[str, ...], said: str) -> None:
    result = cases.run(pair=asked)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])
    assert result.parseoutcomes() == {}
    assert cases.run("--co", "-q", pair=asked).ret == pytest.ExitCode.OK


def test_what_is_there_is_measured_beside_what_is_not(cases: Cases, empty_hub: None) -> None:
    """Naming a dataset does not ask for every model that could be measured on it."""
    result = cases.run("-k", "test_inter_similarity", *PAIR[:2], pair=())
    result.assert_outcomes(errors=1, skipped=1)
    result.stdout.fnmatch_lines(["*no baseline for tiny-llava-tiny*"])
