"""Python's own interface: names with a suggestion, one name as a text, models in one line, errors about arguments."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import harness
from harness.data.coco import COPY
from harness.data.sample import Source
from harness.interface import PYTHON, expand_options, measure_command, option_text, use
from harness.measurement.plan import MeasureError
from harness.models.vlm import Vlm
from harness.profile.profile import UnknownMeasureError
from harness.tests.support.saved_checkpoints import save_tiny_checkpoint
from harness.tests.support.synthetic_profiles import synthetic_profile
from harness.tests.support.tiny import tiny_vlm


@pytest.fixture
def python_words() -> Iterator[None]:
    before = use(PYTHON)
    yield
    use(before)


def test_public_names_are_listed_and_importable() -> None:
    names = dir(harness)
    assert {"measure", "Vlm", "read_baseline", "report_from_record", "PhaseError", "__version__"} <= set(names)
    assert all(getattr(harness, name) is not None for name in names)


@pytest.mark.parametrize(
    ("call", "error", "suggestion"),
    [
        (lambda: harness.measure("scenes-lava", "scenes"), LookupError, "scenes-llava"),
        (lambda: harness.measure(tiny_vlm(), "scene"), LookupError, "scenes"),
        (lambda: harness.measure(tiny_vlm(), "scenes", controls="nose"), MeasureError, "noise"),
        (lambda: synthetic_profile()["intr"], UnknownMeasureError, "inter"),
        (lambda: harness.plot(synthetic_profile(), "recal"), LookupError, "recall"),
    ],
    ids=["model", "dataset", "control", "measure", "figure"],
)
def test_a_wrong_name_suggests_the_right_one(
    call: Callable[[], object], error: type[Exception], suggestion: str
) -> None:
    with pytest.raises(error) as raised:
        call()
    assert f"; did you mean {suggestion!r}?" in str(raised.value)


def test_a_measure_that_was_left_out_states_the_reason() -> None:
    profile = synthetic_profile()
    arrays = {name: array for name, array in profile.arrays.items() if "hits" not in name and "words" not in name}
    declared = {**profile.declared, "recall_left_out": "the captions are not English"}
    left_out = dataclasses.replace(profile, arrays=arrays, declared=declared)
    with pytest.raises(UnknownMeasureError, match="recall is left out, because the captions are not English"):
        left_out["recall_5"]


def test_a_checkpoint_is_measured_by_its_path_with_one_control_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "my-vlm"
    save_tiny_checkpoint(folder)
    profile = harness.measure(str(folder), "scenes", samples=2, controls="blank", dtype="fp32", device="cpu")
    assert (profile.model, tuple(profile.controls), profile.environment.dtype) == ("my-vlm", ("blank",), "float32")


def test_a_model_in_memory_needs_no_anatomy() -> None:
    tiny = tiny_vlm()
    vlm = Vlm("mine", tiny.model, tiny.processor)
    assert vlm.anatomy.layers == tiny.anatomy.layers
    with pytest.raises(MeasureError, match="mine is loaded: dtype is for a model that is named"):
        harness.measure(vlm, "scenes", dtype="bf16")


@pytest.mark.usefixtures("python_words")
def test_options_of_python_are_arguments_and_others_belong_to_the_command() -> None:
    assert option_text("trust_code", "ORG/NAME") == "trust_code=True"
    assert option_text("device", "cpu") == "device='cpu'"
    assert option_text("no_cache", "True") == "cache=None"
    assert option_text("update", "True") == "vlm-phase measure --update"
    assert expand_options("add [[download True]], or raise [[samples]]") == "add download=True, or raise samples"
    command = measure_command("my vlm", "scenes", option_text("update", "True"), option_text("calibrate", "True"))
    assert command == "vlm-phase measure 'my vlm' --dataset scenes --update --calibrate"


@pytest.mark.usefixtures("python_words")
def test_missing_data_names_the_arguments_of_python(tmp_path: Path) -> None:
    reason = COPY.unavailable(Source(tmp_path / "none"))
    assert reason is not None
    assert "source=harness.Source(DIR)" in reason
    assert "download=True" in reason
    assert "--phase" not in reason


@pytest.mark.usefixtures("python_words")
def test_missing_weights_name_the_argument_of_python() -> None:
    with pytest.raises(harness.PhaseError, match="ORG/NAME is not in the local cache") as raised:
        harness.Vlm.load("ORG/NAME")
    assert str(raised.value).endswith("add download=True")
