"""Hooks of the harness's tests: distribution, threads and warnings. Their fixtures are those of `shared_fixtures`."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Distribute the quick tests by file if `--dist` is not given, so that a file's fixtures are made once.

    The others are few and long, so they stay distributed one by one.
    """
    if _is_quick(config) and getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "loadfile"
        # Files with few tests, which would come last, are often the slow ones.
        config.option.loadscopereorder = False


def pytest_configure(config: pytest.Config) -> None:
    """Register the shared fixtures, whose imports take seconds, where tests run: not beside workers of pytest-xdist.

    Quick tests use one thread, because the threads of a tiny model wait for each other longer than they work. For the
    others the workers share the cores. Subprocesses inherit the number.
    """
    if getattr(config.option, "numprocesses", None):
        return
    config.pluginmanager.register(import_module("harness.tests.support.shared_fixtures"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if _is_quick(config) or workers > 1:
        import torch

        threads = 1 if _is_quick(config) else max(1, torch.get_num_threads() // workers)
        torch.set_num_threads(threads)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def _is_quick(config: pytest.Config) -> bool:
    return str(config.option.markexpr).startswith("not faults")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Turn warnings in the harness's tests into errors; filters of a single test take precedence."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings("error"), append=False)
