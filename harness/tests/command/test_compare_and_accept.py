"""`compare` names the layers in which two models differ; `accept-claims` stores the claims that a model fails."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from harness.command.main import main
from harness.models.registry import MODELS, ModelEntry
from harness.tests.support.case_runs import Cases

QUICK = ("--dataset", "tiny", "--samples", "32", "--controls", "none", "-p", "no:randomly")

pytestmark = pytest.mark.types


@pytest.fixture
def directories(cases: Cases, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Return the options for empty directories; `tiny-twin` equals `tiny-llava`, `tiny-tuned` has two tuned layers."""
    loaders = {"tiny-twin": "case_runs:load_tiny", "tiny-tuned": "tuned_models:load_tuned"}
    for name, loader in loaders.items():
        entry = ModelEntry(name, "tiny", f"harness.tests.support.{loader}", ("tiny",), bundled=True)
        monkeypatch.setitem(MODELS, name, entry)
    return ("--baselines", str(cases.baselines), "--cache", str(cases.cache))


def test_equal_models_do_not_differ(directories: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "tiny-twin", "tiny-llava", *QUICK, *directories]) == pytest.ExitCode.OK
    assert " failed" not in capfd.readouterr().out


def test_a_tuned_model_differs_in_its_last_layers(
    directories: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "tiny-tuned", "tiny-llava", *QUICK, *directories]) == pytest.ExitCode.TESTS_FAILED
    output = capfd.readouterr().out
    assert re.search(r"(layers|points) 5-6", output)


def test_accepted_claims_no_longer_fail(directories: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    strict = ["measure", "tiny-llava", *QUICK, *directories, "-m", "replication", "--strict-claims"]
    assert main(strict) == pytest.ExitCode.TESTS_FAILED
    assert main(["accept-claims", "tiny-llava", *QUICK, *directories]) == pytest.ExitCode.OK
    text = (Path(directories[1]) / "known_differences.toml").read_text(encoding="utf-8")
    assert "four-phases" in tomllib.loads(text)["tiny-llava-tiny"]
    capfd.readouterr()
    main(strict)
    assert " failed" not in capfd.readouterr().out
