"""The output of commands in the pages: run in an empty directory, written between the markers of the command."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from harness.lab.docs.command_output import command_output, main, page_commands

PAGE = "before\n\n<!-- vlm-phase --version: begin -->\nold\n<!-- vlm-phase --version: end -->\n\nafter\n"


def test_a_page_gets_the_output_of_its_commands(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    assert page_commands(PAGE) == ["vlm-phase --version"]
    assert main([str(page)]) == 0
    output = f"```text\nvlm-phase {version('vlm-phase-harness')}\n```"
    assert page.read_text(encoding="utf-8") == PAGE.replace("\nold\n", f"\n\n{output}\n\n")


def test_a_command_that_cannot_run_leaves_the_page_unchanged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    text = PAGE.replace("--version", "measur")
    page.write_text(text, encoding="utf-8")
    assert main([str(page)]) == 2
    assert "vlm-phase measur: exit code 4: " in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == text


def test_the_output_is_that_of_an_empty_directory() -> None:
    assert command_output("vlm-phase --help").startswith("usage: vlm-phase COMMAND")
