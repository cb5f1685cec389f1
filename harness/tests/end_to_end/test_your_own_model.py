"""The snippets of `docs/your-own-model.md` run on tiny checkpoints with the output that the page shows."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from transformers import InstructBlipConfig, T5Config

from harness.data.datasets import DATASETS
from harness.data.sample import Dataset
from harness.models.anatomy import refuse_unmeasurable
from harness.models.prompts.chat import prompt_text
from harness.models.registry import find_model
from harness.report.figures import main
from harness.tests.support.case_runs import ROOT
from harness.tests.support.tiny import tiny_samples, tiny_vlm
from harness.tests.support.tuned_models import make_tuned_vlm

PAGE = ROOT / "docs" / "your-own-model.md"
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
QUOTED_OUTPUT = [text.strip() for kind, text in BLOCKS if kind == "text"]
SIDE_BY_SIDE, *REFUSALS = QUOTED_OUTPUT
# Packages that fixtures of the page need in addition to the project's dependencies.
REQUIRED_PACKAGES = {"in_8_bits": "bitsandbytes", "in_4_bits": "bitsandbytes", "adapted": "peft"}


@pytest.fixture
def checkpoints(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working directory with two tiny checkpoints of the page, and tiny samples for its dataset."""
    monkeypatch.setitem(DATASETS, "scenes", Dataset("scenes", "tiny", lambda n, *_: tiny_samples(n)))
    monkeypatch.setenv("VLM_PHASE_CACHE", str(tmp_path / "kept"))
    monkeypatch.chdir(tmp_path)
    # The width of a block of 4-bit codes.
    for name, vlm in (("full", tiny_vlm(layers=6, width=64)), ("tuned", make_tuned_vlm(2.0, width=64))):
        vlm.model.save_pretrained(tmp_path / "path" / "to" / name)
        vlm.processor.save_pretrained(tmp_path / "path" / "to" / name)
    return tmp_path


def commands() -> list[str]:
    return [line for kind, text in BLOCKS if kind == "console" for line in text.strip().splitlines()]


def files() -> dict[str, str]:
    """Return the snippets that are files, by the file name in their first line."""
    named = [re.match(r"# (\w+\.py)\n(.*)", text, re.S) for kind, text in BLOCKS if kind == "python"]
    return {match[1]: match[2] for match in named if match}


def label(line: str) -> str:
    """Return the start of a report line, before any value."""
    return re.split(r"  +|\d|:", line.strip())[0]


@pytest.mark.slow
def test_the_python_snippets_run(checkpoints: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for kind, text in BLOCKS:
        if kind == "python" and not re.match(r"# \w+\.py\n", text):
            exec(compile(text, str(PAGE), "exec"), names)  # noqa: S102 - the project's own page
    assert names["profile"].depth == 6
    assert {"turning_points", "relative_depth", "claims"} <= names["phases"].keys()
    assert names["phases"]["claims"]["four-phases"]["verdict"] in {"holds", "fails", "inconclusive"}
    output = capsys.readouterr().out.splitlines()
    assert {label(line) for line in SIDE_BY_SIDE.splitlines()} <= {label(line) for line in output}
    assert (checkpoints / "both.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """The installed packages among those required, imported once, because pytester removes imported modules."""
    installed = {package for package in REQUIRED_PACKAGES.values() if find_spec(package) is not None}
    for package in installed:
        import_module(package)
    return installed


@pytest.fixture
def run(
    checkpoints: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], tuple[str, dict[str, int]]]:
    """A function that runs a command of the page in the directory of its files; it returns output and outcomes."""
    for name, text in files().items():
        pytester.path.joinpath(name).write_text(text)
    fixture = files()["conftest.py"].replace('pytest_plugins = ["harness.plugin.hooks"]\n', "")
    pytester.path.joinpath("my_plugin.py").write_text(fixture)
    (pytester.path / "path").symlink_to(checkpoints / "path")
    monkeypatch.chdir(pytester.path)
    pytester.syspathinsert()
    options = ("--phase-baselines", "baselines", "--phase-cache", "kept", "--phase-controls", "none")

    def outcome(command: str) -> tuple[str, dict[str, int]]:
        arguments = [str(ROOT / "cases") if argument == "cases/" else argument for argument in shlex.split(command)[1:]]
        result = pytester.runpytest_inprocess(*arguments, "-p", "no:cacheprovider", "--phase-samples", "64", *options)
        output, outcomes = result.stdout.str(), result.parseoutcomes()
        assert outcomes.get("errors", 0) == 0, output
        judged = sum(outcomes.get(name, 0) for name in ("passed", "failed", "xfailed"))
        assert judged > 0, output + result.stderr.str()
        return output, {**outcomes, "judged": judged}

    return outcome


@pytest.mark.slow
def test_the_commands_run(run: Callable[[str], tuple[str, dict[str, int]]], pytester: pytest.Pytester) -> None:
    outputs: dict[str, str] = {}
    for command in commands():
        if not command.startswith("pytest ") or any(fixture in command for fixture in REQUIRED_PACKAGES):
            continue
        outputs[command], outcomes = run(command)
        # Random weights may fail claims of the paper, and a tuned model may differ from its origin.
        if "replication" not in command and "--phase-against" not in command:
            assert outcomes["passed"] == outcomes["judged"], outputs[command]
    assert (pytester.path / "baselines" / "full" / "scenes.json").is_file()
    assert (pytester.path / "baselines" / "my_vlm" / "scenes.json").is_file()
    output = next(text for command, text in outputs.items() if "--phase-against" in command)
    assert {label(line) for line in SIDE_BY_SIDE.splitlines()} <= {label(line) for line in output.splitlines()}
    # Lines are wrapped to the width of the terminal.
    joined = " ".join(output.split())
    assert "weights differ in layers 5-6; the same in layers 1-4, model.language_model.embed_tokens" in joined


@pytest.mark.slow
@pytest.mark.parametrize("fixture", REQUIRED_PACKAGES)
def test_the_commands_for_quantised_and_adapted_models_run(
    imported: set[str], run: Callable[[str], tuple[str, dict[str, int]]], fixture: str
) -> None:
    if REQUIRED_PACKAGES[fixture] not in imported:
        pytest.skip(f"the page's {fixture} needs {REQUIRED_PACKAGES[fixture]}")
    (command,) = (line for line in commands() if f"fixture:{fixture} " in line)
    output = " ".join(run(command)[0].split())
    changed = "6" if fixture == "adapted" else "1-6"
    assert re.search(rf"weights differ in layers? {changed}(, unembedding)?; the same in ", output)


@pytest.mark.slow
def test_the_command_for_the_figure_runs(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = (line for line in commands() if line.startswith("python -m harness.report.figures"))
    monkeypatch.setattr(sys, "argv", ["figures", *shlex.split(command)[3:]])
    main()
    assert (checkpoints / "both.png").read_bytes().startswith(b"\x89PNG")


def test_the_refusals_equal_the_messages(checkpoints: Path) -> None:
    encoder_decoder, no_template, no_checkpoint = REFUSALS
    with pytest.raises(Exception, match=f"^{re.escape(encoder_decoder)}$"):
        refuse_unmeasurable(InstructBlipConfig(text_config=T5Config()), "path/to/t5")
    processor = tiny_vlm().processor
    processor.chat_template = None
    with pytest.raises(Exception, match=f"^{re.escape(no_template)}$"):
        prompt_text(processor, "Describe the image.")
    (checkpoints / "path" / "to" / "empty").mkdir()
    with pytest.raises(LookupError, match=f"^{re.escape(no_checkpoint)}$"):
        find_model("path/to/empty")


def test_the_report_on_the_page_names_the_tuned_layers() -> None:
    assert "weights differ in layers 29-30; the same in layers 1-28, " in SIDE_BY_SIDE
    assert "up to residual point 28, the input of layer 29" in SIDE_BY_SIDE
    picture = re.search(r"!\[[^]]+\]\(([\w.-]+)\)", PAGE.read_text(encoding="utf-8"))
    assert picture is not None
    assert (PAGE.parent / picture[1]).is_file()
