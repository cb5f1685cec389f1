"""Fixtures that all tests of the harness share, and the settings of hypothesis; `conftest.py` registers them."""

from __future__ import annotations

import gc
import pkgutil
from collections.abc import Iterator
from importlib import import_module

# pytester drops modules that a run imports first; these do not survive it.
import fontTools.subset  # noqa: F401
import hypothesis
import pytest
import transformers.models.llama.modeling_llama  # noqa: F401

import harness
from harness.data.datasets import DATASETS
from harness.data.sample import Dataset, Sample
from harness.interface import PYTEST, PYTHON, use
from harness.models.vlm import Vlm
from harness.tests.support.case_runs import cases, recorded
from harness.tests.support.drawings import svg_only
from harness.tests.support.hub_model import empty_hub, hub, hub_cache, unlist
from harness.tests.support.projects import project
from harness.tests.support.tiny import tiny_samples, tiny_vlm

__all__ = ["cases", "empty_hub", "hub", "hub_cache", "project", "recorded", "svg_only", "unlist"]

hypothesis.settings.register_profile(
    "harness",
    derandomize=True,
    deadline=None,
    max_examples=30,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("harness")

# Programs, and the tests themselves: no run of pytest imports them.
NOT_IN_RUNS = ("harness.tests", "harness.lab", "harness.releases", "harness.__main__")


def pytest_collection_finish() -> None:
    freeze_objects()


def pytest_unconfigure() -> None:
    # Extension modules report objects that are frozen at exit as leaks.
    gc.unfreeze()


def freeze_objects() -> None:
    """Hide all present objects from the garbage collector, which each inner run calls, so that it scans few."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the terminal, PYTEST_ADDOPTS and xdist from the pytest runs inside a test."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("PY_COLORS", "0")
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def words_of_pytest(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let messages name the options of pytest, as in a run of the cases; the command starts with Python's words."""
    before = use(PYTHON if request.path.parent.name == "command" else PYTEST)
    yield
    use(before)


@pytest.fixture(scope="session")
def imported_harness() -> None:
    """Import all modules that runs of pytest use, because pytester drops those that a run imports first."""
    for module in pkgutil.walk_packages(harness.__path__, "harness."):
        if not module.name.startswith(NOT_IN_RUNS):
            import_module(module.name)
    freeze_objects()


@pytest.fixture
def pytester(imported_harness: None, pytester: pytest.Pytester) -> pytest.Pytester:
    """The fixture of pytest, with the harness imported."""
    return pytester


@pytest.fixture(scope="session")
def vlm() -> Vlm:
    """A tiny LLaVA in float32 with sdpa attention, biases and grouped KV heads. Tests must not modify it."""
    return tiny_vlm()


@pytest.fixture
def fresh_vlm() -> Vlm:
    """A fresh copy of the same model, which the test may modify."""
    return tiny_vlm()


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    """Samples with instructions of different lengths, so that a batch of them is padded."""
    return tiny_samples(4)


@pytest.fixture
def tiny_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dataset `tiny`, and `tiny-reversed` with the same samples in the other order."""
    for name, order in (("tiny", 1), ("tiny-reversed", -1)):

        def draw(n: int, *_: object, order: int = order) -> list[Sample]:
            return tiny_samples(n)[::order]

        monkeypatch.setitem(DATASETS, name, Dataset(name, "samples of the tests", draw))
