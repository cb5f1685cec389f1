"""One run of the project's cases by pytest, in this process."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from harness.command.measure_arguments import MeasureArguments
from harness.storage.project_files import bundled_cases

_CASES = "harness.cases"
_PLUGIN = "harness.plugin.hooks"
# Options of pytest that read the results of the last run, which its cache plugin stores in the user's directory.
_CACHED = (
    *("--lf", "--last-failed", "--ff", "--failed-first", "--nf", "--new-first", "--lfnf", "--last-failed-no-failures"),
    *("--sw", "--stepwise", "--sw-skip", "--stepwise-skip", "--sw-reset", "--stepwise-reset"),
    *("--cache-show", "--cache-clear"),
)
# With these columns the timing table fits into 80 characters.
_NARROW_TIMES = ("--benchmark-columns=median", "--benchmark-name=short", "--benchmark-time-unit=s")
# The command itself is part of the package whose assertions pytest would like to rewrite.
_ALREADY_IMPORTED = "ignore:Module already imported so cannot be rewritten:pytest.PytestAssertRewriteWarning"


class ModelsFirst:
    """A plugin that refuses words which pytest would take for paths of tests."""

    def __init__(self, cases: str) -> None:
        self._cases = cases

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Refuse every path besides the cases.

        Raises:
            pytest.UsageError: there is another path.
        """
        for word in config.args:
            if word != self._cases:
                raise pytest.UsageError(
                    f"{word!r} stands after an option of pytest that takes no value: name the models before the "
                    "options of pytest"
                )


def run_cases(arguments: MeasureArguments, *defaults: str) -> int:
    """Run the cases with the arguments and return pytest's exit code.

    An installed package is run by its name, so that pytest's root directory is the user's. In a clone it is the clone.

    Args:
        arguments: the arguments of the user.
        defaults: arguments of pytest that those of the user override.
    """
    packaged = _is_importable(bundled_cases())
    cases = _CASES if packaged else str(bundled_cases())
    line = [*(("--pyargs",) if packaged else ()), cases, "-p", _PLUGIN, "-W", _ALREADY_IMPORTED]
    if not set(arguments.unknown) & set(_CACHED):
        line += ["-p", "no:cacheprovider"]
    with TemporaryDirectory() as storage:
        if not any(name.startswith("--benchmark-") for name in arguments.unknown):
            # pytest-benchmark creates its directory even if nothing is saved.
            line += [f"--benchmark-storage=file://{storage}", *_NARROW_TIMES]
        status = int(pytest.main([*line, *defaults, *arguments.command_line()], [ModelsFirst(cases)]))
    if status == pytest.ExitCode.USAGE_ERROR:
        for question in arguments.similar_options():
            print(question, file=sys.stderr)
    return status


def _is_importable(cases: Path) -> bool:
    """Return True if the cases are a package that is installed, and not that of another clone."""
    package = find_spec(_CASES)
    return (
        package is not None and package.origin is not None and Path(package.origin).resolve().parent == cases.resolve()
    )
