"""The release command under `git bisect run`: it names the commit of transformers that changed a type."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import transformers

from harness.releases.__main__ import bisect_status, main
from harness.releases.diff.readings_comparison import Move
from harness.releases.diff.release_steps import ReleaseStep
from harness.releases.diff.release_verdict import ReleaseVerdict, TypeChange
from harness.storage.cache_directory import CACHE_VARIABLE

CHECKOUT = Path(__file__).parents[3]
MODEL = Path("src/transformers/models/qwen2_5_vl/modeling_qwen2_5_vl.py")
MAPPING = Path("src/transformers/models/auto/modeling_auto.py")
PROJECT = f"""\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "transformers"
version = "{transformers.__version__}"

[tool.setuptools.packages.find]
where = ["src"]
"""
# All positions of pictures are doubled; transformers 5.3.0 scaled one of the three.
ONCE = "vision_position_ids = self.get_vision_position_ids("
TWICE = "vision_position_ids = 2 * self.get_vision_position_ids("


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


def git(repository: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", *identity, *arguments]
    variables = os.environ | {"PYTHONPATH": str(CHECKOUT), "GIT_CONFIG_GLOBAL": os.devnull}
    result = subprocess.run(command, cwd=repository, env=variables, capture_output=True, text=True, check=False)
    output = result.stdout + result.stderr
    if "from versions: none" in output:
        pytest.skip("the package index cannot be reached")
    assert result.returncode == 0, output
    return result.stdout.strip()


def repository_of(directory: Path) -> Path:
    """Return a repository with a copy of the installed transformers as its first commit."""
    source = Path(transformers.__file__).parent
    shutil.copytree(source, directory / "src" / "transformers", ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "pyproject.toml").write_text(PROJECT)
    (directory / ".gitignore").write_text("*.egg-info\n")
    git(directory, "init", "--quiet")
    commit(directory, "The release", {})
    return directory


def commit(repository: Path, message: str, changes: Mapping[Path, Callable[[str], str]]) -> str:
    """Commit changed texts of files; return the hash."""
    for path, change in changes.items():
        file = repository / path
        before = file.read_text()
        file.write_text(change(before))
        assert file.read_text() != before
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(repository, "rev-parse", "HEAD")


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ([ReleaseVerdict.SAME, ReleaseVerdict.CONFIGURATION], 0),
        ([ReleaseVerdict.SAME, ReleaseVerdict.GENERATION], 1),
        ([ReleaseVerdict.FAILED, ReleaseVerdict.UNMAPPED], 1),
        ([ReleaseVerdict.SAME, ReleaseVerdict.FAILED], 125),
        ([ReleaseVerdict.GONE], 125),
        ([ReleaseVerdict.REFUSED], 125),
        ([ReleaseVerdict.NEW], 128),
        ([ReleaseVerdict.FAILED_BEFORE, ReleaseVerdict.FAILED], 128),
    ],
)
def test_a_commit_is_skipped_only_if_it_cannot_be_compared(verdicts: list[ReleaseVerdict], status: int) -> None:
    changes = {str(number): TypeChange(str(number), verdict) for number, verdict in enumerate(verdicts)}
    assert bisect_status(ReleaseStep("5.2.0", ".", changes)) == status


def test_a_type_that_also_moved_after_its_round_trip_counts_as_moved() -> None:
    move = Move("base", 1, 0.1, 0.2, "attention")
    change = TypeChange("kosmos-2", ReleaseVerdict.ROUND_TRIP, [move])
    assert bisect_status(ReleaseStep("5.2.0", ".", {"kosmos-2": change})) == 1


@pytest.mark.slow
def test_git_bisect_names_the_commit_that_changed_a_type(tmp_path: Path) -> None:
    repository = repository_of(tmp_path / "upstream")
    good = git(repository, "rev-parse", "HEAD")
    add = "{}\n# A comment.\n".format
    commit(repository, "Comment", {MODEL: add})
    # The middle of five commits is the first that git tries.
    broken = commit(repository, "Break the import", {MAPPING: "import nothing_of_this_name\n{}".format})
    commit(repository, "Repair the import", {MAPPING: lambda text: text.split("\n", 1)[1]})
    changed = commit(repository, "Double positions", {MODEL: lambda text: text.replace(ONCE, TWICE)})
    commit(repository, "Comment again", {MODEL: add})
    git(repository, "bisect", "start", "HEAD", good)
    command = ["-m", "harness.releases", "installed", "--checkout", ".", "--types", "qwen2_5_vl"]
    output = git(repository, "bisect", "run", sys.executable, *command)
    assert f"{changed} is the first bad commit" in output
    assert f"# skip: [{broken}]" in git(repository, "bisect", "log")
    # No commit can be judged by a type that does not exist.
    assert main(["installed", "--checkout", str(repository), "--types", "nothing"]) == 128
