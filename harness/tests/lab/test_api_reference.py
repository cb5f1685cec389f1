"""The API reference: made from signatures and docstrings, equal to the page, with an entry for every public name."""

from __future__ import annotations

from pathlib import Path

import harness
from harness import checks
from harness.lab.docs.api_reference import BLOCK, api_sections, main
from harness.lab.docs.public_names import check_names, fixture_names, hook_names, python_names
from harness.tests.support.page_blocks import read_block

PAGE = Path(__file__).parents[3] / "docs" / "api.md"


def test_the_page_has_the_generated_sections(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert read_block(text, BLOCK) == api_sections(), "run: python -m harness.lab.docs.api_reference docs/api.md"
    copied = tmp_path / "api.md"
    copied.write_text(text.replace("### `harness.measure`", "### `harness.measured`"), encoding="utf-8")
    assert main([str(copied)]) == 0
    assert copied.read_text(encoding="utf-8") == text


def test_every_public_name_has_an_entry_with_text() -> None:
    assert {name.name for name in python_names()} == {f"harness.{name}" for name in harness.__all__}
    assert {name.name for name in check_names()} == {name for name in vars(checks) if name.startswith("check_")}
    assert {"vlm", "profile", "baseline", "judge"} <= {name.name for name in fixture_names()}
    assert [name.name for name in hook_names()] == ["pytest_phase_model_loaded"]
    names = [*python_names(), *check_names(), *fixture_names(), *hook_names()]
    assert all(name.text for name in names)
    assert all(member.text for name in names for member in name.members)


def test_an_entry_has_the_signature_and_the_sections_of_the_docstring() -> None:
    (ratio,) = (name for name in check_names() if name.name == "check_ratio")
    assert ratio.signature == ("check_ratio(pair: str, timing: TimingRatio, baseline_ratio: float, where: str) -> None")
    assert [term for term, _ in ratio.entries("Args")] == ["pair", "timing", "baseline_ratio", "where"]
    assert ratio.entries("Raises") == [("AssertionError", "with both ratios and the interval.")]
    (claim,) = (name for name in check_names() if name.name == "check_claim")
    assert ", *, strict: bool = False" in claim.signature
    (fixture,) = (name for name in fixture_names() if name.name == "phase")
    assert fixture.signature == "phase: PhaseSession"
