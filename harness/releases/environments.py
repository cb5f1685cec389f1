"""Environments with other releases of transformers and torch: created once, kept in the cache directory, and reused."""

from __future__ import annotations

import os
import platform
import re
import shutil
import site
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata, util
from pathlib import Path

from harness.errors import PhaseError, last_line, print_to_stderr
from harness.releases.commands import CommandResult as CommandResult
from harness.releases.commands import Runner as Runner
from harness.releases.commands import run_command as run_command
from harness.storage.cache_directory import default_cache
from harness.storage.directory_lock import locked
from harness.storage.file_names import text_digest
from harness.storage.files import write_atomically

#: The text that stands for the running environment.
INSTALLED = "installed"
_PATIENCE_SECONDS = 7200  # for another process that creates the same environment
_NUMBER = re.compile(r"\d+(\.\d+)+((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?", re.ASCII)
_SOURCE = Path("src", "transformers", "__init__.py")
_HARNESS = Path(__file__).resolve().parents[2]
# Sorted after the file of an editable installation, so that a checkout comes before the running environment.
_LINK = "zz_base_environment.pth"
# An environment is made anew when one of these changes in the running environment, because it may rely on it.
_SHARED = ("huggingface-hub", "numpy", "safetensors", "tokenizers", "torch", "transformers")
_IMPORT_ALL = "import harness, transformers.modeling_utils, transformers.models.auto.modeling_auto; "
_READ_TORCH = "from importlib.metadata import version; torch = version('torch').split('+')[0]; "
_READ_CODE = f"{_READ_TORCH}import transformers; print(transformers.__version__, torch)"
# Some releases import torch with transformers, which takes seconds. pip's records of a kept environment
# are enough, because it does not change.
_READ_RECORDS = f"{_READ_TORCH}print(version('transformers'), torch)"


def is_number(text: str) -> bool:
    """Return True if a text is the number of a release, such as 5.4.0 or 5.0.0rc1."""
    return bool(_NUMBER.fullmatch(text))


class InstallError(PhaseError):
    """An environment cannot be created or its packages cannot be imported; the message has the reason."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release of transformers, and of torch if it is named.

    `text` is a release number, "installed" for the running environment, or the path of a checkout of transformers.
    """

    text: str
    torch: str = ""

    @classmethod
    def parse(cls, text: str, torch: str = "") -> Release:
        """Return the release that a text describes.

        Raises:
            PhaseError: it is no release number, not "installed" and no checkout of transformers.
        """
        if torch and not is_number(torch):
            raise PhaseError(f"{torch!r} is no release number of torch; give one such as 2.14.1")
        release = cls(text, torch)
        if release.checkout is None or (release.checkout / _SOURCE).is_file():
            return release
        if release.checkout.is_dir():
            raise PhaseError(
                f"{text} is no checkout of transformers: it has no {_SOURCE}; give the checkout's directory"
            )
        raise PhaseError(
            f"{text!r} is no release of transformers; give a number such as 5.4.0, the word installed, or a checkout's "
            "path"
        )

    def __str__(self) -> str:
        return self.text

    @property
    def checkout(self) -> Path | None:
        """The absolute path of the checkout, or None for a number and for the running environment."""
        if self.text == INSTALLED or is_number(self.text):
            return None
        return Path(self.text).expanduser().resolve()

    @property
    def title(self) -> str:
        """The release as the subject of a sentence, such as "transformers 5.4.0, torch 2.14.1"."""
        subject = "the installed transformers" if self.text == INSTALLED else f"transformers {self.text}"
        return f"{subject}, torch {self.torch}" if self.torch else subject


@dataclass(frozen=True, slots=True)
class ReleaseEnvironment:
    """An interpreter, the environment variables of its processes, and the releases that it imports."""

    python: Path
    variables: Mapping[str, str]
    transformers: str = ""
    torch: str = ""

    @property
    def label(self) -> str:
        """The release of transformers and that of torch, separated by a space."""
        return f"{self.transformers} {self.torch}"

    def command(self, *arguments: str) -> list[str]:
        """Return the command that runs the interpreter with arguments; pass `variables` along to the runner."""
        return [str(self.python), *arguments]


def prepare_environment(release: Release, log: Path, run: Runner = run_command) -> ReleaseEnvironment:
    """Return the environment of a release; create it the first time.

    The running environment stands for "installed". Every other release has a virtual environment on top of the running
    one, which adds only the packages that differ. A checkout is imported at every call, because its code changes.

    Args:
        release: the release of transformers, and of torch if it is named.
        log: file to which the output of all commands is appended.
        run: the function that runs the commands.

    Raises:
        InstallError: packages cannot be installed or imported.
        OSError: the cache directory cannot be written to.
    """
    if release.text == INSTALLED and not release.torch:
        return _read_releases(ReleaseEnvironment(Path(sys.executable), _own_variables()), release, log, run, _READ_CODE)
    home = default_cache() / "environments" / _name(release)
    environment = ReleaseEnvironment(_interpreter(home / "venv"), _variables(release))
    ready, is_checkout = home / "phase-ready", release.checkout is not None
    known = _content(ready)
    if known and not is_checkout:
        # A damaged environment is made anew.
        with suppress(InstallError):
            complete = _read_releases(environment, release, log, run, _READ_RECORDS)
            if complete.label == known:
                return complete
    if not known or not is_checkout:
        with locked(home, patience=_PATIENCE_SECONDS):
            # Another process may have made it while this one waited for the lock.
            if _content(ready) == known:
                print_to_stderr(f"{release.title}: creating its environment, once (log {log})")
                ready.unlink(missing_ok=True)
                try:
                    complete = _create(release, environment, home / "venv", log, run)
                except BaseException:
                    shutil.rmtree(home / "venv", ignore_errors=True)
                    raise
                write_atomically(ready, complete.label.encode())
    return _read_releases(environment, release, log, run, _IMPORT_ALL + _READ_CODE if is_checkout else _READ_RECORDS)


def _create(
    release: Release, environment: ReleaseEnvironment, home: Path, log: Path, run: Runner
) -> ReleaseEnvironment:
    """Create the virtual environment on top of the running one, and install what differs.

    Returns:
        The environment with its releases; without them for a checkout, which is read at every call.

    Raises:
        InstallError: it cannot be created, or the packages cannot be installed or imported.
    """
    if util.find_spec("pip") is None:
        raise InstallError(
            f"{release.title} cannot be installed: {sys.executable} has no pip; run `python -m ensurepip` with it"
        )
    packages = [f"torch=={release.torch}"] if release.torch else []
    if release.checkout is not None:
        packages += ["--editable", str(release.checkout)]
    elif release.text != INSTALLED:
        packages.append(f"transformers=={release.text}")
    pip = ["pip", "--python", str(environment.python), "install", "--quiet", "--disable-pip-version-check"]
    make = [sys.executable, "-m", "venv", "--clear", "--without-pip", str(home)]
    _run_or_raise(f"the environment of {release.title} cannot be created", make, log, run)
    bases = {"base": str(home), "platbase": str(home)}
    link = Path(sysconfig.get_path("purelib", "venv", bases)) / _LINK
    lines = (f"import site; site.addsitedir({directory!a})\n" for directory in _site_directories())
    write_atomically(link, "".join(lines).encode())
    install = [sys.executable, "-m", *pip, *packages, *_own_requirements()]
    _run_or_raise(f"{release.title} cannot be installed", install, log, run, {"PIP_USER": "0"})
    if release.checkout is not None:
        return environment
    return _read_releases(environment, release, log, run, _IMPORT_ALL + _READ_RECORDS)


def _read_releases(
    environment: ReleaseEnvironment, release: Release, log: Path, run: Runner, code: str
) -> ReleaseEnvironment:
    """Return the environment with the releases that it imports.

    Raises:
        InstallError: it cannot import them, or they are not those that were asked for.
    """
    command = environment.command("-W", "ignore", "-c", code)
    text = _run_or_raise(f"{release.title} cannot be imported", command, log, run, environment.variables)
    transformers, _, torch = last_line(text, "").partition(" ")
    complete = replace(environment, transformers=transformers, torch=torch)
    number = release.text if is_number(release.text) else ""
    # pip takes 5.4 as 5.4.0.
    pairs = ((transformers, number), (torch, release.torch))
    if any(asked and not f"{found}.".startswith(f"{asked}.") for found, asked in pairs):
        raise InstallError(f"{release.title} cannot be installed: the environment holds {complete.label!r}")
    return complete


def _run_or_raise(
    problem: str, command: Sequence[str], log: Path, run: Runner, variables: Mapping[str, str] | None = None
) -> str:
    """Return the output of a command; raise InstallError with the problem and pip's or Python's reason if it fails."""
    result = run(command, Path(tempfile.gettempdir()), log, variables)
    if result.status:
        raise InstallError(f"{problem}: {result.reason}")
    return result.text


def _name(release: Release) -> str:
    """Return the directory name of an environment: releases, Python, and a hash of the running environment."""
    first = f"transformers-{release.text}"
    if release.checkout is not None:
        files = (release.checkout / name for name in ("setup.py", "pyproject.toml"))
        content = "".join(_content(path) for path in files)
        first = f"checkout-{text_digest(str(release.checkout), 8)}-{text_digest(content, 8)}"
    base = [sys.prefix, platform.python_version(), *_site_directories(), *map(_installed_version, _SHARED)]
    python = f"python-{sys.version_info.major}.{sys.version_info.minor}"
    parts = [first, f"torch-{release.torch}" if release.torch else "", python, text_digest("\n".join(base), 8)]
    return "-".join(filter(None, parts))


def _variables(release: Release) -> dict[str, str]:
    variables = {"PYTHONNOUSERSITE": "1", "PYTHONSAFEPATH": "1", "PYTHONPATH": _harness_path()}
    if release.checkout is not None:
        # Bytecode is compared by size and by whole seconds, which is too coarse for a bisection.
        variables["PYTHONDONTWRITEBYTECODE"] = "1"
    return variables


def _own_variables() -> dict[str, str]:
    paths = [_harness_path(), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(filter(None, dict.fromkeys(paths)))}


def _harness_path() -> str:
    """Return the directory to import this harness from, or "" if it is installed beside the other packages.

    The site-packages of the running environment must not come before those of the environment on top of it.
    """
    return "" if str(_HARNESS) in map(os.path.realpath, _site_directories()) else str(_HARNESS)


def _site_directories() -> list[str]:
    """Return the directories with the packages of the running environment."""
    paths = [*site.getsitepackages(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    if site.ENABLE_USER_SITE:
        paths.append(site.getusersitepackages())
    return [path for path in dict.fromkeys(paths) if Path(path).is_dir()]


def _own_requirements() -> list[str]:
    """Return the harness's own requirements, except those on transformers and torch; pip must keep them."""
    with suppress(metadata.PackageNotFoundError):
        lines = metadata.requires("vlm-phase-harness") or []
        return [line for line in lines if ";" not in line and not re.match(r"(transformers|torch)\b", line)]
    return []


def _installed_version(package: str) -> str:
    with suppress(metadata.PackageNotFoundError):
        return f"{package} {metadata.version(package)}"
    return package


def _interpreter(home: Path) -> Path:
    return home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _content(path: Path) -> str:
    """Return the text of a file, or "" if it does not exist."""
    with suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8")
    return ""
