"""The troubleshooting page: generated, with a row and a remedy for every kind of error."""

from __future__ import annotations

from pathlib import Path

from harness.errors import PhaseError
from harness.lab.docs.error_classes import error_classes
from harness.lab.docs.remedies import REMEDIES
from harness.lab.docs.troubleshooting_page import BLOCK, error_tables, main
from harness.models.forward_errors import ForwardError
from harness.models.forward_pass import TokenIdError
from harness.tests.support.page_blocks import read_block

PAGE = Path(__file__).parents[3] / "docs" / "troubleshooting.md"


def test_the_page_has_the_generated_tables(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    command = "python -m harness.lab.docs.troubleshooting_page docs/troubleshooting.md"
    assert read_block(text, BLOCK) == error_tables(), f"run: {command}"
    copied = tmp_path / "troubleshooting.md"
    copied.write_text(text.replace("`DataError`", "`DatumError`"), encoding="utf-8")
    assert main([str(copied)]) == 0
    assert copied.read_text(encoding="utf-8") == text


def test_every_kind_of_error_has_one_remedy() -> None:
    listed = [name for remedies in REMEDIES.values() for name in remedies]
    assert sorted(listed) == sorted(error_classes()), "add the error to harness/lab/docs/remedies.py"
    for remedy in (text for remedies in REMEDIES.values() for text in remedies.values()):
        assert remedy.endswith("."), remedy


def test_the_classes_are_those_of_the_source(tmp_path: Path) -> None:
    assert issubclass(TokenIdError, ForwardError)
    assert issubclass(ForwardError, PhaseError)
    token_id = error_classes()["TokenIdError"]
    assert token_id.module == TokenIdError.__module__
    assert TokenIdError.__doc__ is not None
    assert token_id.meaning == " ".join(TokenIdError.__doc__.split())
    # A subclass may stand in an earlier file than its base, and other errors are omitted.
    (tmp_path / "early.py").write_text('class Child(Parent):\n    """A child."""\n')
    (tmp_path / "late.py").write_text(
        'class Parent(PhaseError):\n    """A parent."""\n\nclass Other(ValueError):\n    """No."""\n'
    )
    assert {name: row.meaning for name, row in error_classes(tmp_path).items()} == {
        "Child": "A child.", "Parent": "A parent.",
    }  # fmt: skip
