"""A model that is let go is gone before the next one is loaded, whatever went wrong with it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.models.registry import MODELS, ModelEntry
from harness.options import Pair, read_options
from harness.session import PhaseSession
from harness.tests.tiny import tiny_vlm

CONFTEST = 'pytest_plugins = ["harness.pytest_plugin"]'
NAMES = ("one", "other")


def load_tiny(cache: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    vlm = tiny_vlm(dtype=dtype)
    return vlm.model, vlm.processor


@pytest.fixture
def two_models(tiny_data: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        entry = ModelEntry(name, "tiny", f"{__name__}:load_tiny", ("tiny",), embedded=True)
        monkeypatch.setitem(MODELS, name, entry)


@pytest.fixture
def session(pytester: pytest.Pytester, two_models: None) -> Iterator[PhaseSession]:
    """A session with two models on tiny samples."""
    pytester.makeconftest(CONFTEST)
    asked = ("--phase-samples", "2", "--phase-controls", "none", "--phase-no-cache")
    session = PhaseSession(read_options(pytester.parseconfig(*asked)), say=lambda _: None)
    yield session
    session.release()


def test_the_model_before_is_gone_when_the_next_is_loaded(session: PhaseSession) -> None:
    session.profile(Pair("one", "tiny"))
    gone = weakref.ref(session.vlm("one").model)
    there: list[bool] = []
    session.loaded.on_load = lambda _: there.append(gone() is not None)
    last = weakref.ref(session.vlm("other").model)
    assert there == [False]
    session.release()
    assert last() is None
