"""A released model is freed before the next one is loaded, even after errors."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import PhaseError
from harness.measurement import measure as measurement
from harness.models import vlm as vlm_module
from harness.models.registry import MODELS, ModelEntry
from harness.models.vlm import Vlm
from harness.plugin.fixtures import SESSION
from harness.profile.pair import Pair
from harness.run.options import read_options
from harness.run.session import PhaseSession
from harness.tests.support.tiny import tiny_vlm

CONFTEST = 'pytest_plugins = ["harness.plugin.hooks"]'
NAMES = ("one", "other")


def load_tiny(cache: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    vlm = tiny_vlm(dtype=dtype)
    return vlm.model, vlm.processor


@pytest.fixture
def two_models(tiny_data: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        entry = ModelEntry(name, "tiny", f"{__name__}:load_tiny", ("tiny",), bundled=True)
        monkeypatch.setitem(MODELS, name, entry)


@pytest.fixture
def session(pytester: pytest.Pytester, two_models: None) -> Iterator[PhaseSession]:
    """A session with two models on tiny samples."""
    pytester.makeconftest(CONFTEST)
    arguments = ("--phase-samples", "2", "--phase-controls", "none", "--phase-no-cache")
    session = PhaseSession(read_options(pytester.parseconfig(*arguments)), say=lambda _: None)
    yield session
    session.loaded.release()


@pytest.mark.slow
def test_the_previous_model_is_freed_before_the_next_is_loaded(session: PhaseSession) -> None:
    session.measured.profile(Pair("one", "tiny"))
    gone = weakref.ref(session.loaded.vlm("one").model)
    there: list[bool] = []
    session.loaded.on_load = lambda _: there.append(gone() is not None)
    last = weakref.ref(session.loaded.vlm("other").model)
    assert there == [False]
    session.loaded.release()
    assert last() is None


def refused(vlm: Vlm, *_: Any, **__: Any) -> None:
    weights = vlm.model.state_dict()
    raise PhaseError(f"a model of {len(weights)} tensors cannot be measured")


def broken(vlm: Vlm, *_: Any, **__: Any) -> None:
    weights = vlm.model.state_dict()
    raise ZeroDivisionError(f"an unexpected fault, with {len(weights)} tensors")


@pytest.mark.parametrize("fails", [refused, broken])
def test_a_failed_measurement_does_not_keep_its_model(
    session: PhaseSession, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., None]
) -> None:
    """The session stores the error for the other tests of the pair, without its frames."""
    monkeypatch.setattr(measurement, "measure", fails)
    for _ in range(2):
        with pytest.raises((PhaseError, ZeroDivisionError), match="tensors"):
            session.measured.profile(Pair("one", "tiny"))
    gone = weakref.ref(session.loaded.vlm("one").model)
    session.loaded.release()
    assert gone() is None


def test_a_refused_model_is_freed(session: PhaseSession, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Any] = []

    def refuses(model: Any) -> None:
        loaded.append(weakref.ref(model))
        raise PhaseError("the model has no part of the kind that a measurement needs")

    monkeypatch.setattr(vlm_module, "find_anatomy", refuses)
    for _ in range(2):
        with pytest.raises(PhaseError, match="no part of the kind"):
            session.loaded.vlm("one")
    session.loaded.release()
    assert [gone() for gone in loaded] == [None]


class Watching:
    """A plugin that records at each load which previous models are still alive.

    pytester would keep the arguments of every hook call, so pytest runs without it.
    """

    def __init__(self) -> None:
        self.loaded: list[weakref.ref[Any]] = []
        self.there: list[bool] = []

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[SESSION].loaded.on_load = self.note

    def note(self, vlm: Vlm) -> None:
        self.there += [gone() is not None for gone in self.loaded]
        self.loaded.append(weakref.ref(vlm.model))


@pytest.mark.slow
def test_a_failed_test_does_not_keep_its_model(
    two_models: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python and pytest keep the last traceback, which references the test's arguments."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_holding.py").write_text("def test_holding(vlm, pair):\n    assert vlm is None\n")
    watching = Watching()
    models = [part for name in NAMES for part in ("--phase-model", name)]
    plainly = ["-c", os.devnull, "--assert=plain", "--import-mode=importlib", "-p", "no:cacheprovider", "--capture=no"]
    pytest.main([*models, *plainly, "-p", "harness.plugin.hooks", "test_holding.py"], plugins=[watching])
    assert "2 failed" in capsys.readouterr().out
    assert watching.there == [False]
