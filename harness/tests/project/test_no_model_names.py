"""Model differences are data: no condition in the harness compares the name of a model or type."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import harness
from harness.models.kinds import KINDS
from harness.models.registry import MODELS
from harness.releases.sweep.type_verdicts import vision_language_types
from harness.releases.tiny.tiny_fields import TINY_FIELDS

ROOT = Path(harness.__file__).parent
NAMES = {*vision_language_types(), *vision_language_types().values(), *KINDS, *TINY_FIELDS, *MODELS}


def conditions(tree: ast.AST) -> list[ast.AST]:
    """Return the expressions that decide the control flow."""
    tests: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.If, ast.IfExp, ast.While, ast.Assert)):
            tests.append(node.test)
        elif isinstance(node, ast.comprehension):
            tests.extend(node.ifs)
        elif isinstance(node, ast.match_case):
            tests.append(node.pattern)
    return tests


def model_names(condition: ast.AST) -> set[str]:
    """Return the names of models and types in a condition, as strings or classes."""
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
        assert not model_names(condition), f"{path.name}:{condition.lineno} uses a model name; make it a row of a table"


def test_a_condition_with_a_model_name_is_detected() -> None:
    source = (
        "if config.model_type == 'qwen2_vl':\n    pass\nx = 1 if isinstance(m, LlavaForConditionalGeneration) else 2\n"
    )
    assert [sorted(model_names(condition)) for condition in conditions(ast.parse(source))] == [
        ["qwen2_vl"],
        ["LlavaForConditionalGeneration"],
    ]
