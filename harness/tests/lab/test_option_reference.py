"""The tables of options are generated, equal those of docs/options.md, and their generation needs no torch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.lab.docs.option_reference import BLOCK, GROUPS, main, option_tables
from harness.lab.docs.pages import PageBlockError, compact_table, with_block
from harness.run.options import OPTIONS
from harness.tests.support.case_runs import ROOT
from harness.tests.support.page_blocks import read_block

MARKED = f"before\n\n<!-- {BLOCK}: begin -->\nold\n<!-- {BLOCK}: end -->\n\nafter\n"


def rows() -> dict[str, list[str]]:
    """Return the cells of each row by option name."""
    lines = [line for line in option_tables().splitlines() if line.startswith("| `--")]
    split = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {re.match(r"`(--[\w-]+)", cells[0])[1]: cells for cells in split}  # type: ignore[index]


def test_the_page_has_the_generated_tables() -> None:
    text = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert read_block(text, BLOCK) == option_tables(), (
        "run: python -m harness.lab.docs.option_reference docs/options.md"
    )


def test_every_option_is_in_one_group() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(OPTIONS), "add the option to GROUPS in harness/lab/docs/option_reference.py"


def test_the_tables_list_the_options_registered_with_pytest(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["harness.plugin.hooks"]')
    config = pytester.parseconfig()
    helped = pytester.runpytest_inprocess("--help").stdout.str()
    named = set(re.findall(r"^  (--phase-[\w-]+)", helped, re.MULTILINE))
    assert named == {option.argument for option in OPTIONS.values()} == set(rows())
    inis = {option.ini_name for option in OPTIONS.values() if option.ini is not None}
    for ini in inis:
        config.getini(ini)
    assert {f"phase_{name}" for name in ("samples", "batch_size", "controls", "data", "trust_code")} <= inis


def test_a_row_has_metavar_ini_value_default_and_meaning() -> None:
    cells_by_option = rows()
    assert cells_by_option["--phase-batch-size"] == [
        "`--phase-batch-size N`", "`phase_batch_size`", "`8`", "samples per forward pass",
    ]  # fmt: skip
    assert cells_by_option["--phase-update"][:3] == ["`--phase-update`", "-", "off"]
    assert cells_by_option["--phase-controls"][2] == "all"
    assert cells_by_option["--phase-cache"][1:3] == ["`phase_cache`", "-"]
    assert all(len(cells) == 4 and all(cells) and "Default" not in cells[3] for cells in cells_by_option.values())


def test_generating_the_tables_imports_no_torch() -> None:
    program = (
        "import sys\nfrom harness.lab.docs.option_reference import main\n"
        "assert main([]) == 0\nassert not {'torch', 'transformers', 'numpy'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == option_tables()


def test_a_page_is_rewritten_between_its_markers_only(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(MARKED, encoding="utf-8")
    for _ in range(2):
        assert main([str(page)]) == 0
        text = page.read_text(encoding="utf-8")
        assert (text.startswith("before\n\n<!--"), text.endswith("-->\n\nafter\n")) == (True, True)
        assert read_block(text, BLOCK) == option_tables()
    assert list(tmp_path.iterdir()) == [page]


@pytest.mark.parametrize(
    "text",
    [
        "",
        MARKED.replace("begin", "began"),
        MARKED.replace("end", "ent"),
        MARKED + MARKED,
        "\n".join(MARKED.split()[::-1]),
    ],
    ids=["empty", "no begin", "no end", "twice", "reversed"],
)
def test_a_page_without_markers_stays_unchanged(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    assert main([str(page)]) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith(
        f"python -m harness.lab.docs.option_reference: {page}: there is no block {BLOCK}: put <!-- "
    )
    assert page.read_text(encoding="utf-8") == text
    with pytest.raises(PageBlockError):
        with_block(text, BLOCK, "new")


def test_a_missing_page_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere.md")]) == 2
    assert "nowhere.md: " in capsys.readouterr().err


def test_pipes_and_newlines_in_a_cell_keep_the_table_valid() -> None:
    title, rule, *lines = compact_table([["one|two\nthree", "4"], ["x" * 40, "-----"]], ["a", "b"]).splitlines()
    assert (title, rule) == ("| a | b |", "|---|---|")
    assert lines == [r"| one\|two three | 4 |", f"| {'x' * 40} | ----- |"]
