"""The wheel: its files, and a run in an environment and a directory that hold nothing of the clone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from harness.storage.project_files import bundled_baselines, bundled_cases
from harness.tests.support.case_runs import ROOT

PIP = (sys.executable, "-m", "pip")
# The smallest number of samples of a baseline.
PAIR = ("--phase-model", "scenes-llava", "--phase-dataset", "scenes", "--phase-samples", "64")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, because a directory of an earlier build would add its files."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("harness", "cases", "baselines"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    # Without isolation pip needs no connection.
    building = ("wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(built), str(source))
    subprocess.run([*PIP, *building], check=True)
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of an environment with the installed wheel, which borrows the dependencies of this one."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    scripts = environment / "bin"
    path = subprocess.check_output(
        [scripts / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    )
    borrowed = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})"
    Path(path.strip(), "borrowed.pth").write_text(f"{borrowed}\n", encoding="utf-8")
    installing = ("--python", str(scripts / "python"), "install", "-q", "--no-deps", "--no-index", "--force-reinstall")
    subprocess.run([*PIP, *installing, str(wheel)], check=True)
    return scripts


def run(scripts: Path, directory: Path, *command: str, code: int = 0) -> str:
    """Run a command in a directory without the clone on the path and return its output."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTEST_ADDOPTS")}
    done = subprocess.run(
        [scripts / command[0], *command[1:]],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def run_pytest(scripts: Path, directory: Path, *arguments: str) -> str:
    return run(scripts, directory, "python", "-m", "pytest", "-p", "no:cacheprovider", *arguments)


def files(directory: Path, prefix: str, *, without: str = "") -> set[str]:
    """Return the files below a directory as the wheel names them."""
    paths = (path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    return {f"{prefix}/{path}" for path in paths if not {"__pycache__", without} & set(path.parts)}


def test_every_package_is_listed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "harness").rglob("__init__.py")}
    assert settings["package-dir"].keys() < set(settings["packages"])
    assert set(settings["packages"]) - settings["package-dir"].keys() == {
        name for name in packages if not name.startswith("harness.tests")
    }


@pytest.mark.slow
def test_the_wheel_holds_all_files_of_the_clone_except_the_tests(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == (
        files(ROOT / "harness", "harness", without="tests")
        | files(bundled_cases(), "harness/cases")
        | files(bundled_baselines(), "harness/bundled_baselines")
    )


@pytest.mark.slow
def test_cases_are_collected_in_an_empty_directory(scripts: Path, tmp_path: Path) -> None:
    source = run(scripts, tmp_path, "python", "-c", "import harness; print(harness.__file__)")
    assert Path(source.strip()).is_relative_to(scripts.parent)
    output = run_pytest(scripts, tmp_path, "--pyargs", "harness.cases", "--collect-only", "-q", "-m", "bundled")
    assert "test_attention.py::test_reproduces[scenes-llava-scenes]" in output
    # A conftest.py that names the plugin registers it no second time.
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["harness.plugin.hooks"]\n', encoding="utf-8")
    again = run_pytest(scripts, tmp_path, "--pyargs", "harness.cases", "--collect-only", "-q", "-m", "bundled")
    assert again.count("::") == output.count("::")


@pytest.mark.slow
def test_the_command_is_installed(scripts: Path, tmp_path: Path) -> None:
    assert "measure" in run(scripts, tmp_path, "vlm-phase", "--help")


@pytest.mark.slow
def test_a_bundled_pair_is_compared_with_the_bundled_baseline(scripts: Path, tmp_path: Path) -> None:
    regression = ("--pyargs", "harness.cases", *PAIR, "-m", "regression", "--phase-controls", "none")
    run_pytest(scripts, tmp_path, *regression, "--phase-json", "run.json")
    (pair,) = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["pairs"].values()
    assert pair["baseline"]["file"] == "scenes-llava/scenes.json"
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == ["run.json"]
    # Updates write to the directory of the user, which replaces the bundled baseline of the pair.
    run_pytest(scripts, tmp_path, *regression, "--phase-update-new", "-k", "intervals")
    assert (tmp_path / "baselines" / "scenes-llava" / "scenes.json").is_file()
    (installed,) = scripts.parent.rglob("bundled_baselines")
    assert files(installed, "") == files(bundled_baselines(), "")
