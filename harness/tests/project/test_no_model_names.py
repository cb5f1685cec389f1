"""Models differ as data: no condition in the harness asks for a model's or a type's name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import harness
from harness.models.kinds import KINDS
from harness.models.registry import MODELS
from harness.releases.sweep.tiny_fields import TINY_FIELDS
from harness.releases.sweep.type_verdicts import vision_language_types

ROOT = Path(harness.__file__).parent
NAMES = {*vision_language_types(), *vision_language_types().values(), *KINDS, *TINY_FIELDS, *MODELS}


def conditions(tree: ast.AST) -> list[ast.AST]:
    """Whatever decides which way a program goes."""
    found: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.If, ast.IfExp, ast.While, ast.Assert)):
            found.append(node.test)
        elif isinstance(node, ast.comprehension):
            found.extend(node.ifs)
        elif isinstance(node, ast.match_case):
            found.append(node.pattern)
    return found


def named(condition: ast.AST) -> set[str]:
    """Return the names of models and types that a condition holds, as text or as classes."""
    words = {node.value for node in ast.walk(condition) if isinstance(node, ast.Constant)}
    words |= {node.id for node in ast.walk(condition) if isinstance(node, ast.Name)}
    words |= {node.attr for node in ast.walk(condition) if isinstance(node, ast.Attribute)}
    return {word for word in words if isinstance(word, str) and word in NAMES}


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(ROOT.rglob("*.py")) if "tests" not in path.relative_to(ROOT).parts],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_condition_names_a_model(path: Path) -> None:
    for condition in conditions(ast.parse(path.read_text())):
        assert not named(condition), f"{path.name}:{condition.lineno} decides by a name; make it a row of a table"


def test_a_condition_that_names_one_is_found() -> None:
    source = (
        "if config.model_type == 'qwen2_vl':\n    pass\nx = 1 if isinstance(m, LlavaForConditionalGeneration) else 2\n"
    )
    assert [sorted(named(condition)) for condition in conditions(ast.parse(source))] == [
        ["qwen2_vl"],
        ["LlavaForConditionalGeneration"],
    ]
