"""Outputs that the release programs have in common."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from harness.releases.release_outputs import (
    add_output_options,
    command_line,
    describe_failure,
    error_sentence,
    format_table,
    write_outputs,
)


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_output_options(parser)
    return parser.parse_args(arguments)


def test_only_requested_files_are_written(tmp_path: Path) -> None:
    record, page = tmp_path / "new" / "all.json", tmp_path / "page.md"
    write_outputs(parse("--json", str(record)), {"b": 1, "a": [1.5]}, lambda: pytest.fail("no page was requested"))
    assert json.loads(record.read_text()) == {"a": [1.5], "b": 1}
    write_outputs(parse("--write", str(page)), {}, lambda: "é\n")
    assert page.read_bytes() == "é\n".encode()


def test_a_command_line_is_quoted() -> None:
    assert command_line("python -m it", ["a b", "--c"]) == "python -m it 'a b' --c"
    assert command_line("python -m it", []) == "python -m it"


def test_a_table_keeps_numbers_as_written_and_escapes_bars_in_markdown() -> None:
    rows = [["5.10", None], ["a|b", 2]]
    assert format_table(rows, ["x", "y"]).splitlines()[2].split() == ["5.10", "-"]
    assert "| a\\|b" in format_table(rows, ["x", "y"], markdown=True)


def test_an_error_is_one_sentence() -> None:
    assert error_sentence(ValueError("first\n  line. Second.")) == "ValueError: first line"
    assert describe_failure(FileExistsError(17, "File exists", "x/y")) == "x/y cannot be written (File exists)"
    assert describe_failure(OSError("odd")) == "odd"
