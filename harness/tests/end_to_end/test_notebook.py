"""The notebook of the documentation has outputs, and its cells run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.tests.support.case_runs import ROOT

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
CELLS: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def test_every_cell_was_run_in_order_and_has_its_figures() -> None:
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    for cell in CODE:
        assert cell["outputs"], source(cell)
        assert all(output["output_type"] != "error" and output.get("name") != "stderr" for output in cell["outputs"])
        if "plot" in source(cell):
            assert any("image/png" in output.get("data", {}) for output in cell["outputs"])


def test_the_notebook_has_no_paths_of_the_machine_that_ran_it() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert str(Path.home()) not in text
    assert "site-packages" not in text


@pytest.mark.slow
def test_the_cells_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import pyplot

    names: dict[str, Any] = {}
    for cell in CODE:
        # Fewer samples than in the documentation, to save time.
        exec(compile(source(cell).replace("samples=64", "samples=8"), str(NOTEBOOK), "exec"), names)  # noqa: S102
    assert names["profile"].n == 8
    assert len(pyplot.get_fignums()) == 2
    pyplot.close("all")
