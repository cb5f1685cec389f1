"""Rules for the rooms (packages) of the harness: file locations, imports, file lengths and unique names."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

HARNESS = Path(__file__).parents[2]
# Lowest first: a room may import itself and the rooms before it.
ROOMS = (
    *("errors", "interface", "storage", "analysis", "hub", "data", "models", "probe", "profile", "measurement"),
    *("baselines", "judgement", "run", "report", "checks", "plugin", "releases", "command", "lab"),
)
ROOT_FILES = {"__init__", "__main__", "errors", "interface", "hub", "checks"}
MAX_LINES = 300
SHARED_NAMES = {"__init__.py", "__main__.py"}


def module_name(path: Path) -> str:
    parts = path.relative_to(HARNESS.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PRODUCT = {module_name(path): path for path in HARNESS.rglob("*.py") if "tests" not in path.relative_to(HARNESS).parts}
TESTS = {module_name(path): path for path in (HARNESS / "tests").rglob("*.py")}


def imports_of(tree: ast.AST) -> set[str]:
    """Return the dotted names of all imports of a file, except those under TYPE_CHECKING."""
    type_checking = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.dump(branch.test)
        for statement in branch.body
        for node in ast.walk(statement)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in type_checking:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(module: str) -> str:
    room = module.split(".")[1] if "." in module else "__init__"
    # `python -m harness` is the command.
    return "command" if room == "__main__" else room


def upward_imports(module: str, imported: set[str]) -> list[str]:
    """Return the imported modules that lie in a room above the module's room."""
    order = (*ROOMS, "__init__")
    level = order.index(room_of(module))
    return sorted(name for name in imported & set(PRODUCT) if order.index(room_of(name)) > level)


GRAPH = {
    name: imports_of(ast.parse(path.read_text(encoding="utf-8"))) & set(PRODUCT) - {name}
    for name, path in PRODUCT.items()
}


def test_every_file_lies_in_a_room() -> None:
    assert {path.stem for path in HARNESS.glob("*.py")} <= ROOT_FILES
    assert {room_of(name) for name in PRODUCT} - {"__init__"} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_no_room_above_it(room: str) -> None:
    assert {
        name: upward_imports(name, GRAPH[name])
        for name in GRAPH
        if room_of(name) == room and upward_imports(name, GRAPH[name])
    } == {}


def test_the_architecture_page_lists_the_rooms_in_order() -> None:
    page = (HARNESS.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    tower = page.split("```")[1].splitlines()[1:]
    shown = [line.split()[0].removesuffix("/").removesuffix(".py") for line in tower if line.strip()]
    assert shown == ["__init__", *reversed(ROOMS)]


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_path_of_a_page_exists(page: str) -> None:
    names = re.findall(r"`([\w./-]+/[\w.-]*)`", (HARNESS.parent / page).read_text(encoding="utf-8"))
    assert len(names) > 10
    users = {"coco/", "winoground/"}
    roots = (HARNESS.parent, HARNESS, HARNESS / "tests")
    assert [name for name in names if name not in users and not any((root / name).exists() for root in roots)] == []


def test_an_upward_import_is_detected() -> None:
    source = "def late():\n    from harness.report.figures import plot\n"
    assert upward_imports("harness.profile.profile", imports_of(ast.parse(source))) == ["harness.report.figures"]


def test_imports_have_no_cycle() -> None:
    TopologicalSorter(GRAPH).prepare()


@pytest.mark.parametrize("paths", [PRODUCT, TESTS], ids=["product", "tests"])
def test_no_file_exceeds_the_maximum_length(paths: dict[str, Path]) -> None:
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in paths.items()}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}


def test_a_file_name_and_a_public_class_name_occur_once() -> None:
    names = Counter(path.name for path in PRODUCT.values() if path.name not in SHARED_NAMES)
    for path in PRODUCT.values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                names[node.name] += 1
    assert [name for name, count in names.items() if count > 1] == []


def test_the_tests_mirror_the_rooms() -> None:
    others = {"end_to_end", "project", "support"}
    directories = {path.parent.name for path in (HARNESS / "tests").glob("*/*.py")}
    assert directories <= {*ROOMS, *others}
    assert list((HARNESS / "tests").glob("test_*.py")) == []
    names = Counter(path.name for path in TESTS.values() if path.name not in SHARED_NAMES)
    assert [name for name, count in names.items() if count > 1] == []


def test_no_test_imports_another() -> None:
    tests = {name for name in TESTS if name.rpartition(".")[2].startswith("test_")}
    imported = {name: imports_of(ast.parse(path.read_text(encoding="utf-8"))) & tests for name, path in TESTS.items()}
    assert {name: others for name, others in imported.items() if others} == {}


@pytest.mark.parametrize("path", sorted((HARNESS / "analysis").glob("*.py")), ids=lambda path: path.stem)
def test_verdict_code_is_numpy_and_scipy_only(path: Path) -> None:
    imported = imports_of(ast.parse(path.read_text(encoding="utf-8")))
    assert {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names) <= {"numpy", "scipy", "harness"}
