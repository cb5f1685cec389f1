"""The sub-command `doctor`: what this machine can measure, what is missing, and the commands that bring it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.command.availability import (
    bundled_pairs,
    dataset_problem,
    download_command,
    hub_pairs,
    language_problem,
    model_problem,
)
from harness.command.check_line import CheckLine, CheckMark
from harness.command.installed_packages import extra_lines, version_lines
from harness.command.machine import cache_lines, device_line, free_gigabytes, hub_cache, memory_line
from harness.command.usage_problem import PROGRAM, CommandParser
from harness.data.datasets import DATASETS, find_dataset
from harness.models.registry import MODELS, find_model
from harness.profile.pair import Pair
from harness.report.layout import terminal_width
from harness.storage.project_files import bundled_baselines, bundled_cases

_DESCRIPTION = (
    "Check versions, device, cache, weights and data. Exit code 0 if the bundled pairs can be measured, else 1. "
    "Uses no network."
)


def run_doctor(arguments: Sequence[str]) -> int:
    """Print a line for each check; return 0 if the bundled pairs can be measured, else 1."""
    CommandParser(prog=f"{PROGRAM} doctor", description=_DESCRIPTION).parse_args(list(arguments))
    required: list[CheckLine] = []
    sections: tuple[tuple[str, bool, Callable[[], list[CheckLine]]], ...] = (
        ("Versions", True, version_lines),
        ("Machine", True, lambda: [device_line(), memory_line(), *cache_lines()]),
        ("Bundled pairs", True, bundled_lines),
        ("Datasets and models of the hub", False, hub_lines),
        ("The paper's pairs", False, lambda: [pair_line(pair) for pair in hub_pairs()]),
        ("Extras", False, extra_lines),
    )
    width = terminal_width()
    for title, needed, check in sections:
        print(title)
        for line in (lines := check()):
            print("\n".join(line.printed(width)), flush=True)
        if needed:
            required += lines
        print()
    problems = [line.name for line in required if line.mark is CheckMark.PROBLEM]
    if problems:
        print(f"The bundled pairs cannot be measured here: see {', '.join(problems)}.")
        return 1
    print(f"The bundled pairs can be measured here: {PROGRAM} measure scenes-llava")
    return 0


def bundled_lines() -> list[CheckLine]:
    """Return the checks of the bundled pairs: cases, baselines and the language model."""
    cases, baselines = bundled_cases(), bundled_baselines()
    count = len(list(cases.glob("test_*.py"))) if cases.is_dir() else 0
    files = CheckLine("cases", CheckMark.OK, f"{count} files, baselines in {baselines}")
    if not count or not (baselines / "paper.json").is_file():
        files = CheckLine(
            "cases",
            CheckMark.PROBLEM,
            f"there are none in {cases} or no baselines in {baselines}: install again",
            "pip install --force-reinstall --no-deps vlm-phase-harness",
        )
    model = next(pair.model for pair in bundled_pairs())
    problem, blocks = language_problem()
    language = CheckLine("language model", CheckMark.OK, "cached; nothing is fetched")
    if problem:
        language = CheckLine(
            "language model", CheckMark.PROBLEM if blocks else CheckMark.MISSING, problem, f"{PROGRAM} measure {model}"
        )
    return [files, language]


def hub_lines() -> list[CheckLine]:
    """Return a line for each model and dataset with files that are not part of the project."""
    lines = []
    for entry in MODELS.values():
        if not entry.bundled:
            problem = model_problem(entry)
            text = f"{entry.gigabytes} GB of weights" if problem else "weights are in the hub's cache"
            lines.append(_line(entry.name, text, problem, download_command(entry.name)))
    for dataset in DATASETS.values():
        if dataset.variable:
            problem = dataset_problem(dataset)
            lines.append(_line(dataset.name, problem or "can be read", problem))
    return lines


def pair_line(pair: Pair) -> CheckLine:
    """Return the check of a pair that needs files of the hub: what is missing, and the command that brings it."""
    entry = find_model(pair.model)
    name = f"{pair.model} on {pair.dataset}"
    weights, data = model_problem(entry), dataset_problem(find_dataset(pair.dataset))
    absent = [*([f"{entry.gigabytes} GB of weights"] if weights else []), *(["its data"] if data else [])]
    if not absent:
        command = f"{PROGRAM} measure {pair.model} --dataset {pair.dataset}"
        return CheckLine(name, CheckMark.OK, "weights and data are here", command)
    hub = hub_cache()
    free = None if hub is None else free_gigabytes(hub)
    if weights and free is not None and free < entry.gigabytes:
        text = (
            f"{entry.gigabytes} GB of weights, and the disk of the hub's cache has {free:.1f} GB free: set "
            "HF_HUB_CACHE to a directory on a larger one"
        )
        return CheckLine(name, CheckMark.PROBLEM, text, download_command(pair.model, pair.dataset))
    return CheckLine(name, CheckMark.MISSING, " and ".join(absent), download_command(pair.model, pair.dataset))


def _line(name: str, text: str, problem: str, command: str = "") -> CheckLine:
    return CheckLine(name, CheckMark.MISSING if problem else CheckMark.OK, text, command if problem else "")
