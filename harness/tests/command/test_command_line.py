"""The command `vlm-phase`: help, versions and command lines that cannot be run."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from harness.command.main import SUB_COMMANDS, help_text, main
from harness.interface import PYTHON, current

USAGE_ERROR = pytest.ExitCode.USAGE_ERROR


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the only line that a command line which cannot be run writes."""
    assert main(arguments) == USAGE_ERROR
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    return errors


def test_the_help_is_one_screen_with_runnable_examples() -> None:
    lines = help_text().splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    for name, command in SUB_COMMANDS.items():
        assert any(line.startswith(f"  {name}") for line in lines)
        assert not command.example or f"      vlm-phase {name} {command.example}" in lines


def test_the_help_imports_neither_torch_nor_pytest() -> None:
    program = (
        "import sys, harness.command.main as c; c.main(['--help']); sys.exit({'torch', 'pytest'} & {*sys.modules})"
    )
    process = subprocess.run(
        [sys.executable, "-c", program.replace("sys.exit(", "sys.exit(bool(").replace("})", "}))")]
    )
    assert process.returncode == 0


def test_the_module_is_the_command() -> None:
    process = subprocess.run([sys.executable, "-m", "harness", "mesure"], capture_output=True, text=True)
    assert process.returncode == USAGE_ERROR
    assert process.stderr == "vlm-phase: there is no command 'mesure': did you mean measure?\n"


def test_without_arguments_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert (main([]), main(["--help"])) == (0, 0)
    assert capsys.readouterr().out == f"{help_text()}\n" * 2
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vlm-phase {metadata.version('vlm-phase-harness')}\n"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("docter", "vlm-phase: there is no command 'docter': did you mean doctor?"),
        ("scenes-llava -x", "'scenes-llava' is a model: did you mean `vlm-phase measure scenes-llava -x`?"),
        ("everything", "there is no command 'everything': use one of measure, compare, flow, accept-claims, report,"),
        ("measure llava", "vlm-phase measure: unknown model 'llava': "),
        ("measure --dataset scene", "vlm-phase measure: --dataset: no dataset is called 'scene': "),
        ("measure --samples=1", "--samples: '1' is not a whole number of at least 2"),
        ("measure --samples", "--samples needs a value: write --samples N"),
        ("measure --report --json x", "--report needs a value: write --report DIR"),
        ("measure --update=yes", "--update takes no value: write --update"),
        ("compare scenes-llava", "two models are needed, not 1: write vlm-phase compare A B"),
        ("compare a/b a/b", "vlm-phase compare: a/b is named twice: name two different models"),
        ("compare", "two models are needed, not 0: write vlm-phase compare A B"),
        ("accept-claims --dataset scenes", "a model is needed: write vlm-phase accept-claims MODEL"),
        ("report absent.json", "there is no file 'absent.json': give a JSON file that vlm-phase measure --json FILE"),
        ("report", "the following arguments are required: RECORD.json"),
        ("models all", "unrecognized arguments: all"),
    ],
)
def test_misuse_is_one_sentence(line: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sentence in refused(capsys, *shlex.split(line))
    assert current() is PYTHON


@pytest.mark.parametrize("name", SUB_COMMANDS)
def test_every_sub_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    output = capsys.readouterr().out
    program = "python -m harness.releases" if name == "releases" else f"vlm-phase {name}"
    assert output.startswith(f"usage: {program} ")
    assert "--phase-" not in output


def test_a_page_is_written_from_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text(json.dumps({"pairs": "none"}))
    assert "broken.json" in refused(capsys, "report", "broken.json")
    assert not Path("broken").exists()
    Path("out").write_text("a file")
    assert "'out' is a file: name a directory with --output DIR" in refused(
        capsys, "report", "broken.json", "--output", "out"
    )
