"""The public names of the project with their signatures and docstrings: functions, classes, fixtures and hooks."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import harness.checks as checks
from harness.plugin import fixtures, hookspec

# The names of the package are data here; an import statement would make this room depend on the room above it.
_PUBLIC = importlib.import_module("harness")
# The longest signature on one line.
_WIDEST = 88
_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Examples?):[ ]*$", re.MULTILINE)
_ENTRY = re.compile(r"^(\*{0,2}[\w.]+)(?: \([^)]*\))?: ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class PublicName:
    """A name with its documentation.

    `text` is the docstring up to its first section. `sections` maps the title of each section, such as Raises, to its
    text without indentation. `members` are the public methods and properties of a class.
    """

    name: str
    signature: str
    text: str
    sections: Mapping[str, str] = field(default_factory=dict)
    members: tuple[PublicName, ...] = ()

    @property
    def sentence(self) -> str:
        """The docstring in one paragraph, without examples: text, return value and errors."""
        parts = [self.text, self.sections.get("Returns", "")]
        parts += [f"Raises {name}: {text}" for name, text in self.entries("Raises")]
        return " ".join(" ".join(parts).split())

    def entries(self, title: str) -> list[tuple[str, str]]:
        """Return the entries of a section as pairs of name and text; empty if it has none or is plain text."""
        parts = _ENTRY.split(self.sections.get(title, ""))
        return [(name, " ".join(text.split())) for name, text in zip(parts[1::2], parts[2::2], strict=True)]


def python_names() -> list[PublicName]:
    """Return the names of `harness.__all__`, in alphabetical order."""
    return [_documented(f"harness.{name}", getattr(_PUBLIC, name)) for name in sorted(_PUBLIC.__all__)]


def check_names() -> list[PublicName]:
    """Return the assertions of `harness.checks`, in the order of the file."""
    return [_documented(name, value) for name, value in _own_functions(checks) if name.startswith("check_")]


def fixture_names() -> list[PublicName]:
    """Return the fixtures of the plugin with the types of their values, in the order of the file."""
    documented = []
    for name, value in vars(fixtures).items():
        # pytest offers no public access to the function of a fixture.
        function = getattr(value, "_get_wrapped_function", None)
        if function is not None:
            result = _annotation(inspect.signature(function()).return_annotation)
            generated = re.fullmatch(r"Iterator\[(.+)\]", result)
            documented.append(_documented(name, function(), f"{name}: {generated[1] if generated else result}"))
    return documented


def hook_names() -> list[PublicName]:
    """Return the hooks that a conftest or a plugin can implement."""
    return [_documented(name, value) for name, value in _own_functions(hookspec)]


def _own_functions(module: ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, value in vars(module).items():
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_"):
            yield name, value


def _documented(name: str, value: Any, signature: str | None = None) -> PublicName:
    text, sections = _parse(inspect.getdoc(value) or "")
    members = tuple(_members(name, value)) if inspect.isclass(value) else ()
    return PublicName(name, _signature(name, value) if signature is None else signature, text, sections, members)


def _members(name: str, owner: type) -> Iterator[PublicName]:
    """Yield the public methods and properties that a class defines itself, in the order of the file."""
    instance = name.rpartition(".")[2].lower()
    for member, value in vars(owner).items():
        if member.startswith("_") and member != "__getitem__":
            continue
        if isinstance(value, property) and value.fget is not None and value.__doc__:
            result = _annotation(inspect.signature(value.fget).return_annotation)
            yield _documented(f"{instance}.{member}", value, f"{instance}.{member}: {result}")
        elif isinstance(value, classmethod | staticmethod):
            yield _documented(f"{name}.{member}", getattr(owner, member))
        elif inspect.isfunction(value) and inspect.getdoc(value):
            bound = value.__get__(object())
            signature = re.sub(r"\.__getitem__\((.*)\) ->", r"[\1] ->", _signature(f"{instance}.{member}", bound))
            yield _documented(f"{instance}.{member}", bound, " ".join(signature.split()))


def _parse(docstring: str) -> tuple[str, dict[str, str]]:
    """Split a docstring in Google style into its text and its sections."""
    first, *rest = _SECTION.split(docstring)
    sections = {title: inspect.cleandoc(text) for title, text in zip(rest[::2], rest[1::2], strict=True)}
    return first.strip(), sections


def _signature(name: str, value: Any) -> str:
    signature = inspect.signature(value)
    untyped = inspect.isclass(value) or signature.return_annotation is inspect.Signature.empty
    result = "" if untyped else f" -> {_annotation(signature.return_annotation)}"
    parameters = list(_parameters(signature))
    line = f"{name}({', '.join(parameters)}){result}"
    if len(line) <= _WIDEST:
        return line
    return "\n".join([f"{name}(", *(f"    {parameter}," for parameter in parameters), f"){result}"])


def _parameters(signature: inspect.Signature) -> Iterator[str]:
    """Yield the parameters as in source code, with a star before those that are given by keyword only."""
    stars: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    starred = False
    for parameter in signature.parameters.values():
        starred |= parameter.kind is inspect.Parameter.VAR_POSITIONAL
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        text = stars.get(parameter.kind, "") + parameter.name
        typed = parameter.annotation is not inspect.Parameter.empty
        if typed:
            text += f": {_annotation(parameter.annotation)}"
        if parameter.default is not inspect.Parameter.empty:
            text += f" = {_default(parameter.default)}" if typed else f"={_default(parameter.default)}"
        yield text


def _annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _default(value: Any) -> str:
    """Return a default as text; three dots if its text is long or no source code."""
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return "..." if "<" in text or len(text) > _WIDEST else text
