"""Imports go downwards only, and the verdicts need numpy and scipy and nothing else."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).parents[2]
VERDICT_CODE = sorted((HARNESS / "analysis").glob("*.py"))
# What each room may import of the others; the rooms above, harness/*.py, may import all of them.
MAY_IMPORT = {
    "data": {"data"},
    "models": {"data", "models"},
    "probe": {"data", "models", "probe"},
    "analysis": {"analysis"},
}


def imported(path: Path) -> set[str]:
    """The dotted names of the modules that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", VERDICT_CODE, ids=lambda path: path.stem)
def test_verdict_code_is_numpy_and_scipy_only(path: Path) -> None:
    foreign = {name.split(".")[0] for name in imported(path)} - set(sys.stdlib_module_names)
    assert foreign <= {"numpy", "scipy", "harness"}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_no_room_above_it(room: str) -> None:
    shared = {"errors", "hub", "storage"}
    for path in (HARNESS / room).rglob("*.py"):
        ours = {name.split(".")[1] for name in imported(path) if name.startswith("harness.")}
        assert ours <= MAY_IMPORT[room] | shared, path
