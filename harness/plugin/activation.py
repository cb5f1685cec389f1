"""Decides if a run uses the plugin; only then are its other modules imported and its state created.

pytest loads an installed plugin in every project, most of which measure nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from harness.interface import COMMAND, PYTEST, Interface, current, pytest_on, use
from harness.run.options import OPTIONS
from harness.storage.project_files import bundled_cases

if TYPE_CHECKING:
    from harness.run.session import PhaseSession

#: The name of the plugin: that of its entry point, and the one for `-p` and `pytest_plugins`.
PLUGIN = "harness.plugin.hooks"
CASES_PACKAGE = "harness.cases"
#: The key by which a worker of pytest-xdist learns that the command `vlm-phase` runs pytest.
COMMAND_RUNS = "phase_command"
SESSION: pytest.StashKey[PhaseSession] = pytest.StashKey()
_PREVIOUS_INTERFACE = pytest.StashKey[Interface]()
_MODULES = (
    "harness.plugin.pair_tests",
    "harness.plugin.claim_tests",
    "harness.plugin.torchrun",
    "harness.plugin.signals",
    "harness.plugin.xdist",
    "harness.plugin.outputs",
    "harness.plugin.terminal",
    "harness.plugin.junit",
)


def is_requested(config: pytest.Config) -> bool:
    """Return True if the command, the settings or a conftest.py name the plugin, its options or its cases.

    In other projects the first test of a pair starts the plugin.
    """
    manager = config.pluginmanager
    plugin = manager.get_plugin(PLUGIN)
    if all(plugin is not loaded for loaded, _ in manager.list_plugin_distinfo()):
        # Loaded by a conftest.py or by `-p`, because autoload is off or the project is not installed.
        return True
    named = {*config.option.plugins, *os.environ.get("PYTEST_PLUGINS", "").split(",")}
    for module in manager.get_plugins():
        if isinstance(module, ModuleType):
            plugins = vars(module).get("pytest_plugins", ())
            named |= {plugins} if isinstance(plugins, str) else set(plugins)
    return PLUGIN in named or bool(cases_argument(config)) or _has_options(config)


def _has_options(config: pytest.Config) -> bool:
    return any(config.getoption(option.argument) for option in OPTIONS.values()) or any(
        config.getini(option.ini_name) != option.ini for option in OPTIONS.values() if option.ini is not None
    )


def cases_argument(config: pytest.Config) -> str:
    """Return the argument of a run that names the project's cases, such as `cases/`; empty if there is none."""
    cases = bundled_cases().resolve()
    for argument in config.args:
        name = argument.partition("::")[0]
        if config.option.pyargs and (name == CASES_PACKAGE or name.startswith(f"{CASES_PACKAGE}.")):
            return f"--pyargs {CASES_PACKAGE}"
        # The file of a single case stands in the same directory.
        for text in (name, os.path.dirname(name)):  # noqa: PTH120 - keeps the text as it was typed
            if text and (config.invocation_params.dir / Path(text)).resolve() == cases:
                return text
    return ""


def register_modules(config: pytest.Config) -> None:
    """Import and register the modules with the plugin's other hooks."""
    for module in _MODULES:
        config.pluginmanager.import_plugin(module)


def is_active(config: pytest.Config) -> bool:
    """Return True if the modules of the plugin are registered."""
    return config.pluginmanager.has_plugin(_MODULES[0])


def use_pytest_words(config: pytest.Config) -> None:
    """Write later messages in the words of pytest, unless the command `vlm-phase` runs it."""
    if getattr(config, "workerinput", {}).get(COMMAND_RUNS):
        use(COMMAND)
    if current() != COMMAND and _PREVIOUS_INTERFACE not in config.stash:
        cases = cases_argument(config)
        config.stash[_PREVIOUS_INTERFACE] = use(pytest_on(cases) if cases else PYTEST)


def use_previous_words(config: pytest.Config) -> None:
    """Write later messages in the words of the interface before `use_pytest_words`."""
    if _PREVIOUS_INTERFACE in config.stash:
        use(config.stash[_PREVIOUS_INTERFACE])
        del config.stash[_PREVIOUS_INTERFACE]
