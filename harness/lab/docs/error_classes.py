"""The subclasses of `PhaseError` in the source files of the project, read without importing them."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from harness.errors import PhaseError

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class ErrorClass:
    """A subclass of `PhaseError`: its name, the dotted name of its module, and the first paragraph of its docstring."""

    name: str
    module: str
    meaning: str


def error_classes(root: Path = ROOT) -> dict[str, ErrorClass]:
    """Return the subclasses of `PhaseError` by name, in the order of their modules; those of the tests are omitted."""
    classes: dict[str, tuple[ErrorClass, set[str]]] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[0] == "tests":
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                meaning = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
                bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                classes[node.name] = ErrorClass(node.name, ".".join((root.name, *parts)), meaning), bases
    errors = {PhaseError.__name__}
    # A subclass may stand before its base in the order of the files.
    while added := {name for name, (_, bases) in classes.items() if bases & errors} - errors:
        errors |= added
    return {name: row for name, (row, _) in classes.items() if name in errors - {PhaseError.__name__}}
