"""The table of choices that the paper leaves open: made from `paper.json`, equal to that of docs/limits.md."""

from __future__ import annotations

import json
from pathlib import Path

from harness.lab.docs.open_choices import BLOCK, choice_table, main
from harness.tests.support.page_blocks import read_block

ROOT = Path(__file__).parents[3]


def test_the_page_has_a_row_for_each_choice(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    assert read_block(text, BLOCK) == choice_table(), "run: python -m harness.lab.docs.open_choices docs/limits.md"
    declared = json.loads((ROOT / "baselines" / "paper.json").read_text(encoding="utf-8"))["declared"]
    assert len(choice_table().splitlines()) == len(declared) + 2
    copied = tmp_path / "limits.md"
    copied.write_text(text.replace("| layers |", "| layer |"), encoding="utf-8")
    assert main([str(copied)]) == 0
    assert copied.read_text(encoding="utf-8") == text
