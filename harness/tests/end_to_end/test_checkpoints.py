"""`pytest cases/ --phase-model DIR` with checkpoints of both families, on real photographs if available."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.tests.support.case_runs import Cases
from harness.tests.support.photographs import REAL_DATA, write_coco_layout
from harness.tests.support.topology import DEPTH, convert_to_published, save_instructblip, save_llava

pytestmark = pytest.mark.slow
N = 6


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO in its official layout, with real or synthetic photographs."""
    if REAL_DATA is not None:
        return Path(REAL_DATA) / "coco"
    directory = tmp_path_factory.mktemp("coco")
    captions = [(k, text) for k in range(1, 9) for text in (f"a dog on a red boat {k}", "two people and a blue kite")]
    write_coco_layout(directory, "val2017", {k: f"{k:012d}.jpg" for k in range(1, 9)}, captions)
    return directory


def save_published(directory: Path) -> None:
    save_instructblip(directory)
    convert_to_published(directory)


@pytest.mark.parametrize("save", [save_llava, save_published])
def test_a_saved_checkpoint_is_measured_on_photographs(
    cases: Cases, coco: Path, tmp_path: Path, save: Callable[[Path], None]
) -> None:
    checkpoint = tmp_path / "my-checkpoint"
    checkpoint.mkdir()
    save(checkpoint)
    pair = (
        "--phase-model",
        str(checkpoint),
        "--phase-dataset",
        "coco-captions",
        "--phase-data",
        f"coco-captions={coco}",
    )
    options = ("--phase-samples", str(N), "--phase-json", "out.json", "-m", "replication")
    result = cases.run(*options, pair=pair)
    outcomes = result.parseoutcomes()
    # The verdicts on random weights are arbitrary, but every claim must be judged.
    assert outcomes.get("errors", 0) == 0, result.stdout.str()
    assert sum(outcomes.get(name, 0) for name in ("passed", "failed", "xfailed")) == 5
    record = json.loads((cases.baselines.parent / "out.json").read_text())["pairs"]["my-checkpoint-coco-captions"]
    assert (record["n"], record["left_out"]) == (N, {})
    assert all(name.startswith("coco-") for name in record["samples"])
    assert len(record["means"]["inter"]) == DEPTH + 1
    assert record["controls"].keys() == {"noise", "blank"}
    result.stdout.fnmatch_lines(["my-checkpoint-coco-captions, * samples: *"])
