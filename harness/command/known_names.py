"""The sub-commands `models` and `datasets`: tables of the known names, and how to obtain missing files."""

from __future__ import annotations

from collections.abc import Sequence

from harness.command.availability import dataset_problem, download_command, model_problem
from harness.command.usage_problem import PROGRAM, CommandParser
from harness.data.datasets import DATASETS
from harness.models.registry import MODELS
from harness.report.layout import fold, table_lines, terminal_width, unbroken


def run_models(arguments: Sequence[str]) -> int:
    """Print the known models; return 0."""
    _read_no_arguments("models", "List the models that are known by name.", arguments)
    rows, remedies = [], []
    for entry in MODELS.values():
        problem = model_problem(entry)
        size = f"{entry.gigabytes} GB" if entry.gigabytes else "bundled" if entry.bundled else ""
        rows.append((unbroken(entry.name), entry.summary, ", ".join(entry.datasets), size, _files(problem)))
        if problem:
            remedies.append((entry.name, problem, "" if entry.bundled else download_command(entry.name)))
    _print_table(("model", "about", "datasets", "size", "files"), rows, remedies)
    print(f"\nAny other checkpoint: {PROGRAM} measure DIRECTORY, or {PROGRAM} measure ORG/NAME")
    return 0


def run_datasets(arguments: Sequence[str]) -> int:
    """Print the known datasets; return 0."""
    _read_no_arguments("datasets", "List the datasets that are known by name.", arguments)
    rows, remedies = [], []
    for dataset in DATASETS.values():
        problem = dataset_problem(dataset)
        used_for = "regression only" if dataset.regression_only else "claims, regression"
        files = _files(problem) if dataset.variable else "none needed"
        rows.append((unbroken(dataset.name), dataset.summary, str(dataset.samples), used_for, files))
        if problem:
            remedies.append((dataset.name, problem, ""))
    _print_table(("dataset", "about", "samples", "used for", "files"), rows, remedies)
    return 0


def _files(problem: str) -> str:
    return "missing" if problem else "here"


def _print_table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], remedies: Sequence[tuple[str, str, str]]
) -> None:
    """Print a table, and for each missing name the reason and the command that brings it."""
    width = terminal_width()
    lines = table_lines(headers, rows, width)
    for name, problem, command in remedies:
        lines += ["", *fold(f"{name}: {problem}", width)]
        if command:
            lines.append(f"  {command}")
    print("\n".join(lines))


def _read_no_arguments(name: str, description: str, arguments: Sequence[str]) -> None:
    CommandParser(prog=f"{PROGRAM} {name}", description=description).parse_args(list(arguments))
