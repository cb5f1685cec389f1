"""Pairs unavailable on this machine: skipped with the remedy, or an error before measuring if requested."""

from __future__ import annotations

import pytest

from harness.tests.support.case_runs import PAIR, Cases

TIMES = 4  # timing cases of a pair


def test_unavailable_default_pairs_are_skipped_with_the_remedy(cases: Cases, empty_hub: None) -> None:
    result = cases.run("-k", "llava-1.5-7b or instructblip-vicuna-7b", "-rs", pair=())
    assert result.ret == pytest.ExitCode.OK
    skipped = result.parseoutcomes()["skipped"]
    assert result.parseoutcomes() == {"skipped": skipped, "deselected": result.parseoutcomes()["deselected"]}
    # Each model has times of its first pair only.
    counts = {"coco-captions": skipped // 4 + TIMES // 2, "winoground": skipped // 4 - TIMES // 2}
    for model in ("llava-1.5-7b", "instructblip-vicuna-7b"):
        for dataset in ("coco-captions", "winoground"):
            # A single line per pair, not per case.
            line = (
                f"SKIPPED [[]{counts[dataset]}[]] *{model}-{dataset}: {model}:*not in the local cache*--phase-download*"
            )
            result.stdout.fnmatch_lines([line])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--phase-model", "llava-1.5-7b"), "*llava-1.5-7b-coco-captions was requested*--phase-download*"),
        (("--phase-model", "no-one/nothing"), "*nothing-scenes was requested*--phase-download*"),
        (
            ("--phase-model", "tiny-llava", "--phase-dataset", "winoground"),
            "*tiny-llava-winoground was requested*--phase-data winoground=DIR*",
        ),
    ],
)
def test_an_unavailable_requested_pair_is_an_error(
    cases: Cases, empty_hub: None, options: tuple[str, ...], message: str
) -> None:
    result = cases.run(pair=options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])
    assert result.parseoutcomes().keys() <= {"deselected"}
    assert cases.run("--co", "-q", pair=options).ret == pytest.ExitCode.OK


@pytest.mark.slow
def test_available_pairs_are_measured_if_others_are_unavailable(cases: Cases, empty_hub: None) -> None:
    """A dataset option does not request every model that could be measured on it."""
    result = cases.run("-k", "test_inter_similarity", *PAIR[:2], pair=())
    result.assert_outcomes(errors=1, skipped=1)
    result.stdout.fnmatch_lines(["*no baseline for tiny-llava-tiny*"])
