"""Checks of this machine: device, memory, cache directories and free disk space."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from harness.command.check_line import CheckLine, CheckMark
from harness.errors import PhaseError
from harness.storage.cache_directory import CACHE_VARIABLE, default_cache

_GB = 1e9


def device_line() -> CheckLine:
    """Return the device that `--device auto` takes."""
    from harness.models.vlm import choose_device
    from harness.profile.environment import device_name

    try:
        import torch

        device = choose_device("auto")
        text = f"auto takes {device.type}, {device_name(device)}"
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info()
            text += f", {free / _GB:.0f} of {total / _GB:.0f} GB free, {torch.cuda.device_count()} in all"
        elif torch.backends.mps.is_available():
            text += "; --device mps takes its GPU"
    # Drivers that do not fit raise RuntimeError, a damaged torch the others.
    except (ImportError, OSError, RuntimeError) as error:
        return CheckLine("device", CheckMark.PROBLEM, str(error))
    return CheckLine("device", CheckMark.OK, text)


def memory_line() -> CheckLine:
    """Return the free and total memory."""
    import psutil

    memory = psutil.virtual_memory()
    return CheckLine("memory", CheckMark.OK, f"{memory.available / _GB:.1f} of {memory.total / _GB:.1f} GB free")


def cache_lines() -> list[CheckLine]:
    """Return the cache of this package and that of the hub: directory, size or free disk space, and if writable."""
    try:
        line = _cache_line(default_cache())
    except PhaseError as error:
        line = CheckLine("cache", CheckMark.PROBLEM, str(error))
    hub = hub_cache()
    if hub is None:
        return [
            line,
            CheckLine("cache of the hub", CheckMark.MISSING, "HOME is not set: set HF_HUB_CACHE to a directory"),
        ]
    return [line, CheckLine("cache of the hub", CheckMark.OK, f"{hub}, {_free_text(hub)}")]


def hub_cache() -> Path | None:
    """Return the hub's local cache; None if the user has no home directory."""
    from huggingface_hub import constants

    with suppress(RuntimeError):
        return Path(constants.HF_HUB_CACHE).expanduser()
    return None


def free_gigabytes(directory: Path) -> float | None:
    """Return the free space of the disk of a directory that may not exist yet; None if it is unknown."""
    with suppress(OSError):
        return shutil.disk_usage(_existing(directory)).free / _GB
    return None


def _cache_line(cache: Path) -> CheckLine:
    from harness.measurement.reading_cache import cache_problem

    # A missing directory is created by the first run, not here.
    if cache.exists():
        problem = cache_problem(cache)
    else:
        problem = "" if os.access(_existing(cache), os.W_OK) else f"it cannot be created in {_existing(cache)}"
    if problem:
        return CheckLine(
            "cache", CheckMark.PROBLEM, f"{cache} is not writable ({problem}): set {CACHE_VARIABLE} to another"
        )
    return CheckLine("cache", CheckMark.OK, f"{cache}, {_size(cache) / _GB:.2f} GB used, {_free_text(cache)}")


def _free_text(directory: Path) -> str:
    free = free_gigabytes(directory)
    return "free disk space unknown" if free is None else f"{free:.1f} GB of disk free"


def _existing(directory: Path) -> Path:
    return next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())


def _size(directory: Path) -> int:
    """Return the bytes of all files below a directory; unreadable ones count as empty."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):
                total += (Path(folder) / name).lstat().st_size
    return total
