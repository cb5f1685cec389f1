"""The commands and Python snippets of the pages run on tiny models, with the exit codes that the pages state.

`test_your_own_model.py` runs those of its page. A command that cannot run here is listed in `NOT_RUN` with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.command.main import main
from harness.command.measure_arguments import parse_arguments
from harness.data.datasets import DATASETS
from harness.data.sample import Dataset
from harness.lab.docs.command_output import command_output, page_commands
from harness.models.registry import MODELS
from harness.tests.support.case_runs import ROOT
from harness.tests.support.documents import PAGES, blocks, console_lines, page_name, simple_commands
from harness.tests.support.page_blocks import read_block
from harness.tests.support.photographs import write_coco_layout
from harness.tests.support.tiny import TEXTS, tiny_samples, tiny_vlm
from harness.tests.support.tuned_models import make_tuned_vlm

# Pages whose snippets other tests run: of the docstrings, of the own model, and of the commands for developers.
ELSEWHERE = {"api.md", "your-own-model.md", "CONTRIBUTING.md", "CHANGELOG.md", "architecture.md", "CARD.md"}
RUN = [page for page in PAGES if page.name not in ELSEWHERE and "```" in page.read_text(encoding="utf-8")]

#: Commands that are not run here, by a pattern of the line, with the reason.
NOT_RUN = {
    r"^pip |&& pip |^pip install .* &&": "needs a package index; .ci/run installs and runs both commands of the README",
    r"^python3 -m venv": "needs a package index",
    r"^(pytest( -m \w+)?|bash \.ci/run)$": "runs the tests themselves",
    r"^torchrun |^accelerate ": "needs several processes; test_torchrun.py starts them",
    r"llava-1\.5-7b|instructblip-vicuna-7b|\$model": "needs weights of 14 GB or more and a GPU",
    r"ORG/": "needs the model hub",
    r" -n 2 ": "needs several workers; test_xdist.py starts them",
    r"-m harness\.releases|^git |^vlm-phase releases": "needs a package index; tests of releases call it",
    r"--phase-trust-code": "needs a checkpoint with code; test_trusted_code.py measures one",
    r"^(export|nvidia-smi|mkdir|failed=|for|do|done|results=|exit|if|fi)": "is a line of the shell",
}
# Commands after which the page states another exit code than 0.
EXIT_CODES = {r"--phase-against|^vlm-phase compare": pytest.ExitCode.TESTS_FAILED}

pytestmark = pytest.mark.slow


def lines_of(page: Path) -> list[str]:
    found = [block for block in blocks(page.read_text(encoding="utf-8")) if block.language == "console"]
    return [line for block in found for line in console_lines(block)]


def reason_not_run(line: str) -> str:
    return next((pattern for pattern in NOT_RUN if re.search(pattern, line)), "")


def test_every_reason_applies_to_a_line() -> None:
    reasons = {reason_not_run(line) for page in RUN for line in lines_of(page)}
    assert set(NOT_RUN) <= reasons


def load_tiny(cache: Path, dtype: Any) -> tuple[Any, Any]:
    vlm = tiny_vlm(layers=6, dtype=dtype)
    return vlm.model, vlm.processor


@pytest.fixture
def directory(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with checkpoints, photographs and tiny models in place of the bundled ones."""
    monkeypatch.setitem(DATASETS, "scenes", Dataset("scenes", "tiny", lambda n, *_: tiny_samples(n)))
    for name in ("scenes-llava", "scenes-instructblip"):
        entry = replace(MODELS[name], loader=f"{__name__}:load_tiny", samples={})
        monkeypatch.setitem(MODELS, name, entry)
    for name, vlm in (("full", tiny_vlm(layers=6)), ("tuned", make_tuned_vlm(2.0))):
        vlm.model.save_pretrained(pytester.path / "path" / "to" / name)
        vlm.processor.save_pretrained(pytester.path / "path" / "to" / name)
    monkeypatch.setenv("VLM_PHASE_CACHE", str(pytester.path / "kept"))
    monkeypatch.chdir(pytester.path)
    images = {number: f"{number}.jpg" for number in range(70)}
    captions = [(number, TEXTS[number % 2]) for number in images]
    for name in ("DIR", "path/to/coco"):
        write_coco_layout(pytester.path / name, "val2014", images, captions)
    return pytester.path


@pytest.fixture
def run(directory: Path, pytester: pytest.Pytester) -> Callable[[str], pytest.RunResult]:
    """A function that runs a command line of a page in the working directory."""
    options = ("--phase-baselines", "baselines", "--phase-samples", "64", "--phase-controls", "none")

    def outcome(line: str) -> pytest.RunResult:
        (words,) = simple_commands(line)
        program, *arguments = words
        if program == "vlm-phase" and arguments[0] in ("report", "doctor"):
            code = main(arguments)
            return pytest.RunResult(code, [], [], 0.0)
        if program == "vlm-phase":
            arguments = own_arguments(arguments)
        arguments = [str(ROOT / "cases") if argument == "cases/" else argument for argument in arguments]
        return pytester.runpytest_inprocess(*arguments, "-p", "no:cacheprovider", "-p", "no:randomly", *options)

    return outcome


def own_arguments(arguments: list[str]) -> list[str]:
    """Return pytest's arguments for a sub-command of `vlm-phase` that measures."""
    name, *others = arguments
    parsed = parse_arguments(others)
    assert name in ("measure", "compare", "flow", "accept-claims")
    if name == "flow":
        parsed.add("--knockout")
        return ["cases/", *parsed.command_line(), "-m", "causal and replication"]
    if name == "compare":
        parsed.add("--against", parsed.models.pop())
    if name == "accept-claims":
        # Without `-m replication`: two of the five claims are inconclusive here, which fails a run of them alone.
        parsed.add("--accept-claims")
    return ["cases/", *parsed.command_line()]


def snippets(page: Path) -> list[str]:
    return [block.text for block in blocks(page.read_text(encoding="utf-8")) if block.language == "python"]


WITH_COMMANDS = [page for page in RUN if not all(map(reason_not_run, lines_of(page)))]
WITH_PYTHON = [page for page in RUN if snippets(page) and page.name != "record.md"]  # test_record_schema.py runs those
# The random models in place of the bundled ones fail other claims of the paper.
RECORD = "pytest cases/ -m regression --phase-dataset scenes --phase-update-new --phase-model"
ACCEPT = "vlm-phase accept-claims --dataset scenes"


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=page_name)
def test_the_commands_of_a_page_run(page: Path, run: Callable[[str], pytest.RunResult], directory: Path) -> None:
    lines = [line for line in lines_of(page) if not reason_not_run(line)]
    for model in ("scenes-llava", "scenes-instructblip"):
        if any(model in line for line in lines):
            assert run(f"{RECORD} {model}").ret == pytest.ExitCode.OK
            assert run(f"{ACCEPT} {model}").ret == pytest.ExitCode.OK
    for line in dict.fromkeys(lines):
        result = run(line)
        expected = next((code for pattern, code in EXIT_CODES.items() if re.search(pattern, line)), pytest.ExitCode.OK)
        assert result.ret == expected, f"{page_name(page)}: {line}\n{result.stdout.str()[-3000:]}{result.stderr.str()}"
        for option, value in re.findall(r"--(?:phase-)?(report|json|markdown) (\S+)", line):
            written = directory / value / "index.html" if option == "report" else directory / value
            assert written.is_file(), line


@pytest.mark.parametrize("page", WITH_PYTHON, ids=page_name)
def test_the_python_snippets_of_a_page_run(page: Path, directory: Path) -> None:
    from matplotlib import pyplot

    names: dict[str, Any] = {}
    for text in snippets(page):
        exec(compile(text, str(page), "exec"), names)  # noqa: S102 - the project's own page
    for name in re.findall(r'savefig\("([\w.]+)"\)', "".join(snippets(page))):
        assert (directory / name).read_bytes().startswith(b"\x89PNG")
    # Figures of pyplot stay open until they are closed.
    pyplot.close("all")


WITH_OUTPUT = [(page, command) for page in PAGES for command in page_commands(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("page", "command"), WITH_OUTPUT, ids=[page_name(page) for page, _ in WITH_OUTPUT])
def test_the_output_in_a_page_is_that_of_its_command(page: Path, command: str) -> None:
    """The words are the same; times and paths of a run are not."""
    shown = read_block(page.read_text(encoding="utf-8"), command).removeprefix("```text\n").removesuffix("\n```")
    run_again = command_output(command)
    texts = [re.sub(r"[\d.,%]+", "#", " ".join(text.split())) for text in (shown, run_again)]
    without_paths = [re.sub(r"cache \S+", "cache", text) for text in texts]
    assert without_paths[0] == without_paths[1], "run: python -m harness.lab.docs.command_output " + page_name(page)
