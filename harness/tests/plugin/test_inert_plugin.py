"""An installed plugin, which pytest loads in every project, has no effect on projects without pairs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.interface import COMMAND, PYTHON, Interface, current, pytest_on, use
from harness.plugin.activation import PLUGIN, cases_argument
from harness.tests.support.case_runs import ROOT

# A project that uses every generic name of the plugin for things of its own.
OWN_NAMES = """
import signal
import sys

import pytest

@pytest.fixture
def baseline():
    return "own baseline"

@pytest.fixture(scope="session")
def profile():
    return "own profile"

@pytest.fixture(params=["a", "b"])
def vlm(request):
    return request.param

@pytest.fixture
def phase():
    return "own phase"

@pytest.fixture
def judge(phase):
    return f"judge of {phase}"

@pytest.mark.parametrize("pair", [(1, 2), (3, 4)])
def test_own_parameter(pair, baseline):
    assert len(pair) == 2 and baseline == "own baseline"

@pytest.mark.parametrize("left, pair", [(1, 2)])
def test_own_parameters(left, pair, profile, vlm):
    assert (left, pair, profile) == (1, 2, "own profile")

@pytest.mark.timing
@pytest.mark.replication
def test_own_fixtures(judge):
    assert judge == "judge of own phase"

class TestOwnPair:
    @pytest.fixture
    def pair(self):
        return "own pair"

    def test_own_pair(self, pair):
        assert pair == "own pair"

def test_generated(pair):
    assert pair in (5, 6)

def test_nothing_was_started():
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    heavy = {"numpy", "torch", "transformers", "harness.run.session", "harness.plugin.terminal", "harness.plugin.junit"}
    assert not heavy & sys.modules.keys()
"""
OWN_GENERATOR = """
def pytest_generate_tests(metafunc):
    if metafunc.definition.name == "test_generated":
        metafunc.parametrize("pair", [5, 6])
"""
TESTS_OF_PAIRS = "def test_depth(profile):\n    assert profile.depth\n\ndef test_name(pair):\n    assert pair.model\n"
BUNDLED = ("-q", "--collect-only", "-m", "bundled")

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run pytest in a project in which the plugin is installed and not mentioned."""
    info = pytester.mkdir("installed") / "installed_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: installed-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[pytest11]\n{PLUGIN} = {PLUGIN}\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(info.parent), str(ROOT)]))
    return lambda *arguments: pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)


@pytest.mark.slow
def test_a_project_with_the_same_names_is_undisturbed(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a home the default cache directory is an error, which must not appear here.
    for name in ("HOME", "XDG_CACHE_HOME", "VLM_PHASE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/proc/none")
    pytester.makeconftest(OWN_GENERATOR)
    pytester.makepyfile(OWN_NAMES)
    result = run("--strict-markers", "-W", "error")
    result.assert_outcomes(passed=9)
    assert result.ret == pytest.ExitCode.OK
    lines = [line for line in result.outlines if not line.startswith("plugins:")]
    assert not [line for line in lines if "phase" in line]


@pytest.mark.slow
@pytest.mark.parametrize("conftest", ["", f"pytest_plugins = [{PLUGIN!r}]"], ids=["not mentioned", "in conftest.py"])
def test_tests_of_pairs_run_with_and_without_a_conftest(conftest: str, run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(conftest)
    pytester.makepyfile(TESTS_OF_PAIRS)
    result = run("--collect-only", "-m", "bundled")
    assert result.ret == pytest.ExitCode.OK
    assert result.stdout.str().count("<Function test_depth[scenes-llava-scenes]>") == 1
    result.stdout.fnmatch_lines(["phase: *"])


@pytest.mark.slow
def test_several_processes_need_the_plugin_from_the_start(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS_OF_PAIRS)
    result = run("-n", "1", "-m", "bundled")
    result.stdout.fnmatch_lines([f"*several processes need the plugin from the start: add -p {PLUGIN} to the command"])
    assert result.ret != pytest.ExitCode.OK


@pytest.fixture(autouse=True)
def words_of_pytest() -> None:
    """Start with the words of Python, as a process does."""


class Words:
    """A plugin that records the interface in use while tests are collected."""

    def __init__(self) -> None:
        self.interface = PYTHON

    def pytest_collection_finish(self) -> None:
        self.interface = current()


@pytest.mark.parametrize(
    ("arguments", "interface"),
    [
        ((str(ROOT / "cases"),), pytest_on(str(ROOT / "cases"))),
        (("test_pairs.py",), Interface("--phase-")),
        (("test_plain.py",), PYTHON),
    ],
)
def test_messages_name_the_command_of_the_run(
    arguments: tuple[str, ...], interface: Interface, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(test_pairs=TESTS_OF_PAIRS, test_plain="def test_plain():\n    pass\n")
    pytester.makeconftest(f"pytest_plugins = [{PLUGIN!r}]")
    words = Words()
    pytester.runpytest_inprocess(*BUNDLED, *arguments, plugins=[words])
    assert words.interface == interface
    assert current() == PYTHON


def test_the_words_of_the_command_stay(pytester: pytest.Pytester) -> None:
    words, previous = Words(), use(COMMAND)
    try:
        pytester.runpytest_inprocess(*BUNDLED, str(ROOT / "cases"), plugins=[words])
    finally:
        assert use(previous) == COMMAND
    assert words.interface == COMMAND


def test_the_cases_are_recognised_as_typed(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)

    def argument_of(*arguments: str) -> str:
        return cases_argument(pytester.parseconfig(*arguments))

    assert argument_of("cases/", "-q") == "cases/"
    assert argument_of("./cases/test_attention.py::test_reproduces") == "./cases"
    assert argument_of("--pyargs", "harness.cases.test_attention") == "--pyargs harness.cases"
    assert argument_of("harness/tests/plugin") == ""
    assert Path(argument_of(str(ROOT / "cases"))) == ROOT / "cases"
