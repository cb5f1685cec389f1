"""A user without a home directory, as in a container with a numeric user id."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.hub import cache_problem
from harness.run.options import read_options
from harness.storage.cache_directory import CacheError, default_cache
from harness.tests.support.case_runs import Cases

SENTENCE = r"no home directory .*: set VLM_PHASE_CACHE to a directory, or give one with --phase-cache$"


def raise_unknown_user(_: int) -> None:
    raise KeyError("getpwuid(): uid not found: 12345")


@pytest.fixture(autouse=True)
def no_home(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without a home directory, set after `pytester` has set its own."""
    for name in ("HOME", "XDG_CACHE_HOME", "VLM_PHASE_CACHE", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", raise_unknown_user)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "~/.cache/huggingface/hub")


def test_the_default_cache_directory_is_an_error(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CacheError, match=SENTENCE):
        default_cache()
    with pytest.raises(pytest.UsageError, match=SENTENCE):
        read_options(project.parseconfig())
    # Some releases of platformdirs return the path unexpanded.
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: "~/.cache/vlm-phase-harness")
    with pytest.raises(CacheError, match=SENTENCE):
        default_cache()


def test_the_environment_variable_or_option_names_the_cache_directory(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert read_options(project.parseconfig("--phase-cache", "kept")).cache == project.path / "kept"
    monkeypatch.setenv("VLM_PHASE_CACHE", str(tmp_path))
    assert read_options(project.parseconfig()).cache == tmp_path


def test_the_hub_has_no_cache_directory() -> None:
    reason = cache_problem("no-one/nothing", "model", ("*.json",))
    assert reason is not None
    assert reason.endswith("so there is no local cache of the hub: set HF_HOME to a directory")


def test_the_cases_run_without_a_home_directory(cases: Cases) -> None:
    result = cases.run("-k", "test_four_phases", "--phase-controls", "none", "--phase-samples", "16")
    assert "errors" not in result.parseoutcomes()
    result.stdout.fnmatch_lines(["tiny-llava-tiny, 16 samples: *"])
