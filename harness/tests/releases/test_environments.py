"""Environments of other releases: which commands create them, and when they are reused, made anew or refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.errors import PhaseError
from harness.releases.commands import CommandResult, run_command, run_parallel
from harness.releases.environments import (
    InstallError,
    Release,
    ReleaseEnvironment,
    prepare_environment,
)
from harness.storage.cache_directory import CACHE_VARIABLE

CHECKOUT = Path(__file__).parents[3]


@dataclass
class FakePython:
    """A runner that installs nothing; the environment holds `releases`, and commands with `failing` words fail."""

    releases: str = "5.2.0 2.15.0"
    failing: Mapping[str, str] = field(default_factory=dict)
    commands: list[list[str]] = field(default_factory=list)
    variables: list[Mapping[str, str]] = field(default_factory=list)

    def __call__(
        self, command: Sequence[str], directory: Path, log: Path, variables: Mapping[str, str] | None = None
    ) -> CommandResult:
        self.commands.append(list(command))
        self.variables.append(variables or {})
        for word, text in self.failing.items():
            if word in " ".join(command):
                return CommandResult(1, text)
        return CommandResult(0, f"some warning\n{self.releases}\n" if "-c" in command else "")

    def ran(self, word: str) -> int:
        return sum(word in command for command in self.commands)


@pytest.fixture(autouse=True)
def environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "environments"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    source = tmp_path / "upstream" / "src" / "transformers"
    source.mkdir(parents=True)
    (source / "__init__.py").write_text("")
    (tmp_path / "upstream" / "setup.py").write_text("version 1")
    return tmp_path / "upstream"


def prepare(text: str, run: FakePython, torch: str = "") -> ReleaseEnvironment:
    return prepare_environment(Release.parse(text, torch), Path(os.devnull), run)


@pytest.mark.parametrize("text", ["5.4.0", "5.0.0rc1", "5.4.0.post1", "installed"])
def test_a_release_is_a_number_or_the_running_environment(text: str) -> None:
    assert (str(Release.parse(text)), Release.parse(text).checkout) == (text, None)


def test_a_release_is_the_path_of_a_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout.parent)
    release = Release.parse("upstream")
    assert (str(release), release.checkout) == ("upstream", checkout.resolve())


@pytest.mark.parametrize(
    ("text", "torch", "message"),
    [
        ("git+https://elsewhere", "", "is no release of transformers; give a number"),
        ("-r file", "", "is no release of transformers; give a number"),
        (".", "", "is no checkout of transformers: it has no src"),
        ("5.4.0", "newest", "'newest' is no release number of torch"),
    ],
)
def test_other_texts_are_refused_with_a_way_out(
    text: str, torch: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PhaseError, match=message):
        Release.parse(text, torch)


@pytest.mark.slow
def test_the_running_environment_needs_no_other(environments: Path, tmp_path: Path) -> None:
    environment = prepare_environment(Release.parse("installed"), tmp_path / "log")
    assert environment.python == Path(sys.executable)
    assert (environment.transformers[:2], environment.torch[:2]) == ("5.", "2.")
    assert not environments.exists()


def test_an_environment_is_created_once_and_checked_each_time(environments: Path) -> None:
    run = FakePython()
    first, second = prepare("5.2.0", run), prepare("5.2.0", run)
    assert first == second
    assert (first.transformers, first.torch) == ("5.2.0", "2.15.0")
    assert (run.ran("venv"), run.ran("pip")) == (1, 1)
    assert run.commands[-1][0] == str(first.python)
    pip = next(command for command in run.commands if "pip" in command)
    assert pip[pip.index("--python") + 1] == str(first.python)
    assert "transformers==5.2.0" in pip
    assert not any(word.startswith("torch") for word in pip)
    link = next(environments.glob("*/venv/**/zz_base_environment.pth"))
    assert str(Path(pytest.__file__).parents[1]) in link.read_text()
    assert first.variables["PYTHONPATH"] == str(CHECKOUT)


def test_releases_of_torch_have_environments_of_their_own() -> None:
    run = FakePython("5.2.0 2.14.1")
    plain = prepare("5.2.0", FakePython())
    assert prepare("5.2.0", run, "2.14.1").python != plain.python
    assert "torch==2.14.1" in next(command for command in run.commands if "pip" in command)
    other = FakePython("5.24.0 2.14.1")
    assert prepare("installed", other, "2.14.1").python != Path(sys.executable)
    assert not any(word.startswith("transformers==") for command in other.commands for word in command)


def test_an_environment_that_holds_something_else_is_made_anew() -> None:
    run = FakePython()
    prepare("5.2.0", run)
    damaged = FakePython("5.24.0 2.15.0")
    with pytest.raises(InstallError, match="cannot be installed: the environment holds"):
        prepare("5.2.0", damaged)
    assert damaged.ran("venv") == 1
    # The unfinished environment counts as missing.
    assert (prepare("5.2.0", run).transformers, run.ran("venv")) == ("5.2.0", 2)


@pytest.mark.parametrize(
    ("failing", "reason"),
    [
        ({" venv ": "no such module"}, "the environment of transformers 5.2.0 cannot be created: no such module"),
        (
            {" pip ": "ERROR: Ignored the following versions: 5\nERROR: No network\nERROR: Later"},
            "transformers 5.2.0 cannot be installed: No network",
        ),
        (
            {" pip ": f"ERROR: Could not find x==1 (from versions: {', '.join(map(str, range(40)))})"},
            "transformers 5.2.0 cannot be installed: Could not find x==1",
        ),
        ({" -c ": "Traceback\nImportError: no x\n"}, "transformers 5.2.0 cannot be imported: ImportError: no x"),
    ],
)
def test_a_failed_step_is_the_reason_and_leaves_nothing(
    failing: Mapping[str, str], reason: str, environments: Path
) -> None:
    with pytest.raises(InstallError) as raised:
        prepare("5.2.0", FakePython(failing=failing))
    assert str(raised.value) == reason
    assert not [*environments.glob("*/venv")]
    assert prepare("5.2.0", FakePython()).transformers == "5.2.0"


def test_a_checkout_is_installed_when_its_requirements_change_and_imported_each_time(checkout: Path) -> None:
    run = FakePython("5.5.0.dev0 2.15.0")
    environment = prepare(str(checkout), run)
    assert environment.transformers == "5.5.0.dev0"
    assert environment.variables["PYTHONDONTWRITEBYTECODE"] == "1"
    pip = next(command for command in run.commands if "pip" in command)
    assert pip[pip.index("--editable") + 1] == str(checkout)
    with pytest.raises(InstallError, match=f"{checkout} cannot be imported: SyntaxError"):
        prepare(str(checkout), FakePython(failing={" -c ": "SyntaxError: invalid"}))
    assert prepare(str(checkout), run).python == environment.python
    assert (run.ran("venv"), run.ran("-c")) == (1, 2)
    (checkout / "setup.py").write_text("version 2")
    assert prepare(str(checkout), run).python != environment.python


def test_a_missing_pip_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InstallError, match="has no pip; run `python -m ensurepip`"):
        prepare("5.2.0", FakePython())


def test_commands_have_their_own_variables_and_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    log = tmp_path / "new" / "log"
    result = run_command(["sh", "-c", "echo $PYTHONPATH-$A; exit 3"], tmp_path, log, {"A": "1"})
    assert (result.status, result.text) == (3, "-1\n")
    assert log.read_text().endswith("-1\n\n[exit status 3]\n")
    assert run_command(["no-such-command-anywhere"], tmp_path, log).status == 127


ALONE = "run(0)"
PARALLEL = "run_parallel(run, 2)"


@pytest.mark.parametrize("call", [ALONE, PARALLEL])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_terminated_run_ends_its_commands(call: str, number: signal.Signals, tmp_path: Path) -> None:
    script = "sleep 60 & echo $! > part-$0; mv part-$0 pid-$0; wait"
    code = (
        "import signal\n"
        "from harness.releases.commands import run_command, run_parallel\n"
        "from pathlib import Path\n"
        # Shells start background processes with SIGINT ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def run(part):\n"
        f"    while True: run_command(['sh', '-c', {script!r}, str(part)], Path(), Path('log'))\n"
        f"{call}\n"
    )
    variables = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=variables, stderr=subprocess.DEVNULL)
    children = [tmp_path / f"pid-{part}" for part in range(1 if call == ALONE else 2)]
    wait_until(lambda: all(child.exists() for child in children))
    parent.send_signal(number)
    assert parent.wait(20) != 0
    wait_until(lambda: not any(is_running(int(child.read_text())) for child in children))


def test_the_first_failure_of_parallel_commands_ends_the_others(tmp_path: Path) -> None:
    def run(part: int) -> None:
        if part:
            wait_until((tmp_path / "begun").exists)
            raise PhaseError("part 1 failed")
        while True:
            run_command(["sh", "-c", "touch begun; sleep 60"], tmp_path, tmp_path / "log")

    with pytest.raises(PhaseError, match="part 1 failed"):
        run_parallel(run, 2)
    done: list[int] = []
    run_parallel(done.append, 3)
    assert sorted(done) == [0, 1, 2]


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_running(number: int) -> bool:
    state = Path("/proc", str(number), "stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
def test_a_real_environment_adds_one_release_to_the_running_environment(tmp_path: Path) -> None:
    log = tmp_path / "log"
    release = Release.parse("5.23.0")
    try:
        environment = prepare_environment(release, log)
    except InstallError as error:
        if "from versions: none" in str(error):
            pytest.skip("the package index cannot be reached")
        raise
    assert environment.transformers == "5.23.0"
    code = "import harness, torch, transformers; print(harness.__file__, torch.__file__, transformers.__file__)"
    result = run_command(environment.command("-c", code), tmp_path, log, environment.variables)
    import torch

    own, shared, added = map(Path, result.text.split())
    assert (own, shared) == (CHECKOUT / "harness" / "__init__.py", Path(torch.__file__))
    assert environment.python.parents[1] in added.parents
    start = time.monotonic()
    assert prepare_environment(release, log) == environment
    assert time.monotonic() - start < 5
