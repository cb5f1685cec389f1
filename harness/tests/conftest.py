"""Fixtures that all tests of the harness share, and the settings of hypothesis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

# pytester drops modules that a run imports first; these do not survive it.
import fontTools.subset  # noqa: F401
import hypothesis
import pytest
import transformers.models.llama.modeling_llama  # noqa: F401

from harness.data.datasets import DATASETS
from harness.data.sample import Dataset, Sample
from harness.interface import PYTEST, PYTHON, use
from harness.models.vlm import Vlm
from harness.tests.support.case_runs import cases, recorded
from harness.tests.support.hub_model import empty_hub, hub, hub_cache, unlist
from harness.tests.support.projects import project
from harness.tests.support.tiny import tiny_samples, tiny_vlm

__all__ = ["cases", "empty_hub", "hub", "hub_cache", "project", "recorded", "unlist"]

hypothesis.settings.register_profile(
    "harness",
    derandomize=True,
    deadline=None,
    max_examples=30,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("harness")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Turn warnings in the harness's tests into errors; filters of a single test take precedence."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings("error"), append=False)


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
