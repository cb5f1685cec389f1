"""Workflows and documented commands: they parse, and their options, names and modules exist."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml  # a dependency of huggingface-hub, which transformers requires

from harness.data.datasets import DATASETS
from harness.models.registry import MODELS, PAPER_DATASETS
from harness.releases.__main__ import read_options as read_release_options
from harness.run.options import read_options
from harness.tests.support.case_runs import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
GPU = ROOT / ".github" / "workflows" / "gpu.yml"
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAPER_PAIRS = {(name, data) for name, entry in MODELS.items() if not entry.bundled for data in PAPER_DATASETS}
# The major versions of late 2026; older ones run on versions of Node.js that GitHub removes.
ACTIONS = {"actions/checkout": 7, "actions/setup-python": 7, "actions/upload-artifact": 7}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def workflow(path: Path) -> dict[str, Any]:
    content: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {"on" if key is True else key: value for key, value in content.items()}  # YAML 1.1 reads "on" as true


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in workflow(path)["jobs"].values() for step in job["steps"]]


def shell(path: Path) -> str:
    """Return the shell text of a workflow, a script or a page's shell blocks, with continued lines joined."""
    if path.suffix == ".yml":
        text = "\n".join(step.get("run", "") for step in steps(path))
    else:
        text = path.read_text(encoding="utf-8")
        text = "\n".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL)) if path.suffix == ".md" else text
    return text.replace("\\\n", " ")


def pytest_calls(path: Path) -> Iterator[list[str]]:
    """Yield the arguments of every call of pytest."""
    for line in shell(path).splitlines():
        code = re.sub(r"(^|\s)#\s.*|2>&1", "", line)
        if not re.search(r"\bpytest\b", code):
            continue
        lexer = shlex.shlex(code, posix=True, punctuation_chars=True)
        lexer.commenters, lexer.whitespace_split = "", True
        tokens = list(lexer)
        start = next((i for i, token in enumerate(tokens) if Path(token).name == "pytest"), None)
        if start is None:
            continue
        end = next((i for i in range(start, len(tokens)) if set(tokens[i]) <= set("|&;<>()")), len(tokens))
        yield tokens[start + 1 : end]


def substitute_variables(arguments: list[str], values: dict[str, str]) -> list[str]:
    """Return the arguments with shell variables substituted and empty unquoted arguments removed."""
    texts = [re.sub(r"\$(\w+)", lambda name: values[name[1]], text) for text in arguments]
    return [text for text in texts if text]


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A test directory with the project's plugin and no tests."""
    pytester.makeconftest('pytest_plugins = ["harness.plugin.hooks"]')
    pytester.mkdir("phase-results")
    return pytester


def pairs_of(project: pytest.Pytester, arguments: list[str]) -> set[tuple[str, str]]:
    """Parse and validate the options of a call and return the pairs that it measures."""
    options = read_options(project.parseconfig(*arguments))
    return {(pair.model, pair.dataset) for pair in options.pairs()}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_complete(path: Path) -> None:
    content = workflow(path)
    assert {"name", "on", "permissions", "concurrency", "jobs"} <= content.keys()
    for job in content["jobs"].values():
        assert job["timeout-minutes"] <= 360
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            if "uses" in step:
                action, _, version = step["uses"].partition("@v")
                assert int(version) == ACTIONS[action]
            # The shell would execute an input that is expanded inside a script.
            assert "${{" not in step.get("run", "")


def test_only_a_repository_that_declares_a_gpu_runner_waits_for_one() -> None:
    jobs = {path.name: job for path in WORKFLOWS for job in workflow(path)["jobs"].values()}
    guarded = {name for name, job in jobs.items() if job.get("if") == "vars.VLM_PHASE_GPU == 'true'"}
    assert guarded == {name for name, job in jobs.items() if "self-hosted" in job["runs-on"]} == {"gpu.yml"}


def test_the_cpu_workflow_runs_the_script() -> None:
    path = ROOT / ".github" / "workflows" / "ci.yml"
    assert [step["run"] for step in steps(path) if "run" in step] == ["bash .ci/run"]


def test_the_release_workflow_gives_valid_options_and_opens_nothing() -> None:
    path = ROOT / ".github" / "workflows" / "releases.yml"
    assert workflow(path)["permissions"] == {"contents": "read"}
    (call,) = [line for line in shell(path).splitlines() if "harness.releases" in line]
    words = shlex.split(call.split("|")[0].replace("$RESULTS", "results").replace("$SINCE", "5.24.0"))
    options = read_release_options(words[3:])
    assert options.releases == ["5.24.0", "installed"]
    assert options.warn_only
    assert options.checkout
    assert options.json.parent == options.write.parent


# A fake for every program of the script; it records the environment's directory, the name and the arguments.
STAND_IN = """#!/usr/bin/env bash
name=$(basename "$0")
if [ "$name" = python3 ]; then
    mkdir -p "$3/bin"
    for tool in pip pytest ruff mypy; do cp "$0" "$3/bin/$tool"; done
elif [ "$name" = pytest ]; then
    cached=$(ls "$VLM_PHASE_CACHE" 2>/dev/null | xargs)
    mkdir -p "$VLM_PHASE_CACHE/weights" "$VLM_PHASE_CACHE/readings"
fi
echo "$(basename "$(dirname "$(dirname "$0")")") $name $* ${cached:+with $cached}" >> "$NOTES"
"""


def test_the_script_runs_the_readmes_commands_in_separate_environments(tmp_path: Path) -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Install\n")[1]
    lines = section.split("```")[1].removeprefix("console").strip().splitlines()
    expected = [shlex.split(part) for line in lines for part in line.partition("#")[0].split("&&")]
    assert [words[:2] for words in expected] == [
        ["pip", "install"],
        ["pytest", "cases/"],
        ["pip", "install"],
        ["pytest", "-n"],
    ]
    (tmp_path / "bin").mkdir()
    for name in ("python3", "chromium", "chromedriver"):
        (tmp_path / "bin" / name).write_text(STAND_IN, encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    notes = tmp_path / "notes"
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "NOTES": str(notes)}
    subprocess.run(["bash", str(ROOT / ".ci" / "run")], env=environment, check=True, cwd=tmp_path)
    started = [line.split() for line in notes.read_text(encoding="utf-8").splitlines()]
    in_venvs = [words for words in started if words[1] != "python3"]
    # The cache is empty at first. Only the language model is passed on, not the readings.
    assert in_venvs[:2] == [["cases", *words] for words in expected[:2]]
    assert in_venvs[2:4] == [["tests", *expected[2]], ["tests", *expected[3], "with", "weights"]]
    assert [words[1] for words in in_venvs[4:]] == ["ruff", "ruff", "mypy", "pytest"]
    assert [words[2:4] for words in started if words[1] == "python3"] == [["-m", "venv"]] * 2


def test_the_gpu_workflow_measures_the_papers_pairs_weekly_and_uploads_its_output(
    project: pytest.Pytester,
) -> None:
    content = workflow(GPU)
    (job,) = content["jobs"].values()
    assert job["runs-on"] == ["self-hosted", "linux", "gpu"]
    assert content["on"].keys() == {"schedule", "workflow_dispatch"}
    assert [len(entry["cron"].split()) for entry in content["on"]["schedule"]] == [5]
    matrix = {name: re.findall(r"'\[(\"[^']+)\]'", text) for name, text in job["strategy"]["matrix"].items()}
    models, datasets = (re.findall(r'"([^"]+)"', matrix[name][0]) for name in ("model", "dataset"))
    (arguments,) = pytest_calls(GPU)
    measured: set[tuple[str, str]] = set()
    for model, dataset, record in product(models, datasets, ("", "--phase-update-new")):
        values = {"MODEL": model, "DATASET": dataset, "SAMPLES": "auto", "RECORD": record, "RESULTS": "phase-results"}
        assert values.keys() <= job["env"].keys()
        pairs = pairs_of(project, substitute_variables(arguments, values | {"GITHUB_STEP_SUMMARY": "summary.md"}))
        assert pairs == {(model, dataset)}
        measured |= pairs
    assert measured == PAPER_PAIRS
    # Report and record are uploaded; the summary goes to the page of the run.
    written = {name: arguments[arguments.index(f"--phase-{name}") + 1] for name in ("report", "json", "markdown")}
    assert written.pop("markdown") == "$GITHUB_STEP_SUMMARY"
    assert all(path.startswith("$RESULTS/") for path in written.values())
    (upload,) = (step for step in job["steps"] if step.get("uses", "").startswith("actions/upload-artifact@"))
    assert upload["if"] == "always()"
    assert f"{job['env']['RESULTS']}/" in upload["with"]["path"].split()
    variables = {name for name in job["env"] if name.startswith("VLM_PHASE_")}
    assert variables == {dataset.variable for dataset in DATASETS.values() if dataset.variable}


def test_the_documented_commands_parse_and_record_every_pair_of_the_paper(project: pytest.Pytester) -> None:
    page = ROOT / "docs" / "ci.md"
    recorded: set[tuple[str, str]] = set()
    calls = list(pytest_calls(page))
    for arguments in calls:
        for model, dataset in PAPER_PAIRS:
            values = {"model": model, "dataset": dataset, "results": "phase-results/one"}
            pairs = pairs_of(project, substitute_variables(arguments, values))
            assert len(pairs) == 1
            assert pairs <= PAPER_PAIRS
            recorded |= pairs if "--phase-update-new" in arguments else set()
    assert recorded == PAPER_PAIRS
    loops = dict(re.findall(r"for (\w+) in ([^;]+);", shell(page)))
    assert set(product(loops["model"].split(), loops["dataset"].split())) == PAPER_PAIRS
    names = {"VLM_PHASE_GPU", "VLM_PHASE_KEPT", "HF_TOKEN", *(d.variable for d in DATASETS.values() if d.variable)}
    text = page.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in names)


def test_the_script_runs_markers_that_exist(project: pytest.Pytester) -> None:
    known = {line.partition(":")[0] for line in PROJECT["tool"]["pytest"]["markers"]}
    calls = list(pytest_calls(ROOT / ".ci" / "run"))
    assert len(calls) == 1
    for arguments in calls:
        read_options(project.parseconfig(*arguments))
        markers = [arguments[i + 1] for i, argument in enumerate(arguments) if argument == "-m"]
        assert {word for text in markers for word in text.split()} - {"and", "or", "not"} <= known


@pytest.mark.parametrize(
    "path", [*WORKFLOWS, *DOCS, ROOT / ".ci" / "run"], ids=lambda path: str(path.relative_to(ROOT))
)
def test_every_named_option_extra_and_module_exists(path: Path, project: pytest.Pytester) -> None:
    text = path.read_text(encoding="utf-8")
    config = project.parseconfig()
    for option in set(re.findall(r"--phase-[a-z]+(?:-[a-z]+)*", text)):
        config.getoption(option)  # raises for an unknown option
    extras = {name.strip() for names in re.findall(r"\.\[([\w,]+)\]", text) for name in names.split(",")}
    assert extras <= PROJECT["project"]["optional-dependencies"].keys()
    for module in set(re.findall(r"python3? -m (harness[\w.]*)", text)):
        assert importlib.util.find_spec(module), module
