"""Runs of the project's cases on a tiny pair, intact or damaged; defines the fixtures `cases` and `recorded`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.baselines.stored_files import arrays_path, read_json
from harness.data.datasets import DATASETS
from harness.data.sample import Dataset
from harness.models.registry import MODELS, ModelEntry
from harness.models.vlm import Vlm
from harness.tests.support.faults import Change
from harness.tests.support.tiny import tiny_samples, tiny_vlm

ROOT = Path(__file__).parents[3]
PAIR = ("--phase-model", "tiny-llava", "--phase-dataset", "tiny")
REGRESSION = ("-m", "regression")
ACCEPT = ("--phase-update", "--phase-reason", "a new release")


def load_tiny(cache: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    vlm = tiny_vlm(layers=6, dtype=dtype)
    return vlm.model, vlm.processor


def find_arrays(path: Path) -> Path:
    """Return the arrays that a baseline's JSON names."""
    return arrays_path(path, read_json(path))


class FaultPlugin:
    """A plugin that damages the loaded model and undoes its patches at the end of the run."""

    def __init__(self, damage: Change) -> None:
        self._damage, self._patch = damage, pytest.MonkeyPatch()

    def pytest_phase_model_loaded(self, vlm: Vlm) -> None:
        with torch.no_grad():
            self._damage(vlm, self._patch)

    def pytest_unconfigure(self) -> None:
        self._patch.undo()


class Cases:
    """A runner of the project's cases on the tiny pair, with separate baselines and cache."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester
        self.baselines, self.cache = pytester.path / "stored", pytester.path / "kept"

    def run(self, *arguments: str, pair: tuple[str, ...] = PAIR, plugins: tuple[Any, ...] = ()) -> pytest.RunResult:
        return self._pytester.runpytest_inprocess(
            str(ROOT / "cases"),
            "-p",
            "no:cacheprovider",
            # The tests check the order of the cases.
            "-p",
            "no:randomly",
            "-W",
            "error",
            "--phase-baselines",
            str(self.baselines),
            "--phase-cache",
            str(self.cache),
            "--phase-samples",
            "64",
            *pair,
            *arguments,
            plugins=list(plugins),
        )

    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.baselines)): path.read_bytes() for path in self.baselines.rglob("*.*")}


@pytest.fixture
def cases(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Cases:
    entry = ModelEntry("tiny-llava", "tiny", "harness.tests.support.case_runs:load_tiny", ("tiny",), bundled=True)
    monkeypatch.setitem(MODELS, "tiny-llava", entry)
    monkeypatch.setitem(DATASETS, "tiny", Dataset("tiny", "tiny", lambda n, *_: tiny_samples(n)))
    return Cases(pytester)


@pytest.fixture
def recorded(cases: Cases, tmp_path_factory: pytest.TempPathFactory) -> Cases:
    """The cases with a baseline of the tiny pair and cached readings, which are made once and copied for each test."""
    first = tmp_path_factory.getbasetemp() / "recorded-once"
    copies = {first / "stored": cases.baselines, first / "kept": cases.cache}
    if not first.exists():
        result = cases.run("--phase-update-new", *REGRESSION)
        assert result.ret == pytest.ExitCode.OK, result.stdout.str()
        for copy, made in copies.items():
            shutil.copytree(made, copy)
    else:
        # Each test has its own copy, because some damage the model or the images.
        for copy, own in copies.items():
            shutil.copytree(copy, own)
    return cases
