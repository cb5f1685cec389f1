"""Rooms below the run name options and commands by `harness.interface` only, because Python calls them too."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import harness

_PRODUCT = Path(harness.__file__).parent
_BELOW_RUN = (
    "storage",
    "analysis",
    "hub.py",
    "data",
    "models",
    "probe",
    "profile",
    "measurement",
    "baselines",
    "judgement",
)
_LITERAL = re.compile(r"--phase-|pytest (--pyargs )?(cases/|harness\.cases)|vlm-phase measure")


def modules() -> list[Path]:
    paths = [_PRODUCT / room for room in _BELOW_RUN]
    return [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*.py")))]


def literals(tree: ast.Module) -> list[str]:
    """Return the texts of a module that are no docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]


def test_texts_of_the_rooms_below_the_run_name_no_option_of_one_interface() -> None:
    assert len(modules()) > 60
    found = {
        f"{file.relative_to(_PRODUCT)}: {text}"
        for file in modules()
        for text in literals(ast.parse(file.read_text(encoding="utf-8")))
        if _LITERAL.search(text)
    }
    assert found == set()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('x = "add --phase-download"', 1),
        ('def f():\n    "The option --phase-json."\n    return f"{1} pytest cases/"', 1),
    ],
)
def test_the_search_finds_messages_and_skips_docstrings(source: str, found: int) -> None:
    assert sum(bool(_LITERAL.search(text)) for text in literals(ast.parse(source))) == found
