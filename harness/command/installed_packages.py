"""Checks of installed packages: versions against the requirements of this package, and optional packages."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from harness.command.check_line import CheckLine, CheckMark
from harness.command.usage_problem import PROGRAM
from harness.errors import first_line
from harness.releases.versions.cell_outcome import TRANSFORMERS

_PACKAGE = "vlm-phase-harness"
# Packages with a line of their own; the others share one.
_SHOWN = ("torch", "transformers", "accelerate", "huggingface-hub", "pytest")
#: Optional packages: module, the extra that installs it, and its purpose.
EXTRAS = (
    ("pyarrow", "hub", "reads datasets of the hub"),
    ("xdist", "scale", "runs pairs in several processes with -n"),
    ("torchvision", "video", "processors of videos; install the release that matches torch"),
)


def version_lines() -> list[CheckLine]:
    """Return a line for Python, this package, each important requirement, and all the others together."""
    lines = [_python_line()]
    try:
        requirements = [Requirement(text) for text in metadata.requires(_PACKAGE) or ()]
    except metadata.PackageNotFoundError:
        return [*lines, CheckLine(_PACKAGE, CheckMark.OK, "not installed, used from its directory"), *_unversioned()]
    lines.append(CheckLine(_PACKAGE, CheckMark.OK, metadata.version(_PACKAGE)))
    needed = [item for item in requirements if item.marker is None or item.marker.evaluate({"extra": ""})]
    checked = {item.name: _requirement_line(item) for item in needed}
    lines += [checked.pop(name) for name in _SHOWN if name in checked]
    faulty = [line for line in checked.values() if line.mark is not CheckMark.OK]
    if len(faulty) < len(checked):
        text = f"{len(checked) - len(faulty)} more packages have the required versions"
        lines.append(CheckLine("requirements", CheckMark.OK, text))
    return [*lines, *faulty]


def extra_lines() -> list[CheckLine]:
    """Return a line for each optional package: its version, or the pip command."""
    lines = []
    for module, extra, purpose in EXTRAS:
        present = find_spec(module) is not None
        command = "" if present else f"pip install '{_PACKAGE}[{extra}]'"
        lines.append(CheckLine(module, CheckMark.OK if present else CheckMark.MISSING, purpose, command))
    return lines


def _python_line() -> CheckLine:
    if sys.flags.optimize > 1:
        text = "strips docstrings (-OO or PYTHONOPTIMIZE=2), without which transformers cannot be imported"
        return CheckLine("Python", CheckMark.PROBLEM, text)
    return CheckLine("Python", CheckMark.OK, platform.python_version())


def _unversioned() -> Iterator[CheckLine]:
    """Yield the important packages without a check of their versions."""
    for name in _SHOWN:
        yield _requirement_line(Requirement(name))


def _requirement_line(requirement: Requirement) -> CheckLine:
    name = requirement.name
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        return CheckLine(name, CheckMark.PROBLEM, "is not installed", f"pip install '{requirement}'")
    if not requirement.specifier.contains(installed, prereleases=True):
        text = f"{installed} is installed, {requirement.specifier} is required"
        return CheckLine(name, CheckMark.PROBLEM, text, f"pip install '{requirement}'")
    note = ""
    if name == "transformers":
        note = f", {release_note(installed)}"
    elif name == "torch":
        try:
            note = f", {torch_build()}"
        # Libraries of another platform or release.
        except (ImportError, OSError) as error:
            return CheckLine(name, CheckMark.PROBLEM, f"{installed} cannot be imported: {first_line(error)}")
    return CheckLine(name, CheckMark.OK, f"{installed}{note}")


def torch_build() -> str:
    """Return the kind of device for which torch was built."""
    import torch

    if torch.version.cuda:
        return f"build for CUDA {torch.version.cuda}"
    return f"build for ROCm {torch.version.hip}" if torch.version.hip else "build without CUDA"


def release_note(installed: str) -> str:
    """Return a note that compares a release of transformers with those of the version matrix."""
    oldest, newest = TRANSFORMERS[0], TRANSFORMERS[-1]
    if installed in TRANSFORMERS:
        return "one of the tested releases"
    try:
        newer = Version(installed) > Version(newest)
    except InvalidVersion:
        newer = True
    tested = f"tested with {oldest} to {newest}"
    return f"{tested}; compare them with `{PROGRAM} releases {newest} installed`" if newer else tested
