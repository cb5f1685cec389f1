"""Problems that are known before any measurement give one usage error with exit code 4, and no test runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from harness.models.checkpoints.checkpoint_directory import directory_problem
from harness.tests.support.case_runs import PAIR, Cases
from harness.tests.support.photographs import needs_pyarrow, write_coco_layout, write_table
from harness.tests.support.saved_checkpoints import (
    change_settings,
    checkpoint,
    checkpoint_templates,
    sharded_checkpoint,
)

__all__ = ["checkpoint", "checkpoint_templates", "sharded_checkpoint"]

TINY = PAIR[:2]


def refused(cases: Cases, *pair: str) -> str:
    """Return the error message of a run that is refused at collection."""
    result = cases.run(pair=pair)
    assert result.ret == pytest.ExitCode.USAGE_ERROR, result.stdout.str()
    assert result.parseoutcomes().keys() <= {"deselected"}
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    lines = [line for line in result.stderr.lines if line.startswith("ERROR: ")]
    assert len(lines) == 1
    return lines[0]


def directory(tmp_path: Path, kind: str) -> Path:
    """Return a directory without valid COCO Captions."""
    path = tmp_path / "coco"
    if kind == "no images":
        (path / "annotations").mkdir(parents=True)
        (path / "annotations" / "captions_val2017.json").write_text(json.dumps({"images": [], "annotations": []}))
    elif kind == "other columns":
        path.mkdir()
        write_table(path / "a.parquet", {"question": ["a"]}, 1)
    elif kind == "empty":
        path.mkdir()
    elif kind in ("no files", "cut"):
        folder = write_coco_layout(path, "val2017", {1: "1.jpg"}, [(1, "a red circle")])
        if kind == "no files":
            (folder / "1.jpg").rename(folder / "2.jpg")
        else:
            (path / "annotations" / "captions_val2017.json").write_text('{"images": [')
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("not there", "coco, the path for coco-captions, is not a directory: give the official layout with "),
        ("empty", "coco contains no COCO Captions: expected annotations/captions_PART.json"),
        ("no images", "coco has captions but no images: unpack the images of that part into "),
        (
            "no files",
            "coco: none of its 1 images can be used, for example coco-1: 1.jpg is missing in val2017/; check ",
        ),
        ("cut", "captions_val2017.json is not a COCO captions file (JSONDecodeError: "),
        pytest.param("other columns", "a.parquet has the columns question; COCO captions ", marks=needs_pyarrow),
    ],
)
@pytest.mark.parametrize("way", ["option", "variable"])
def test_a_directory_without_the_data_is_refused(
    cases: Cases, empty_hub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, message: str, way: str
) -> None:
    path = directory(tmp_path, kind)
    options = ("--phase-data", f"coco-captions={path}")
    if way == "variable":
        monkeypatch.setenv("VLM_PHASE_COCO", str(path))
        options = ()
    sentence = refused(cases, *TINY, "--phase-dataset", "coco-captions", *options)
    assert "coco-captions was requested and cannot be measured here: " in sentence
    assert message in sentence


def test_a_missing_directory_is_refused_if_only_the_data_is_named(
    cases: Cases, empty_hub: None, tmp_path: Path
) -> None:
    """Missing weights alone would only skip the tests of these pairs."""
    path = tmp_path / "nowhere"
    for name in ("coco-captions", "winoground"):
        assert f"{path}, the path for {name}, is not a directory" in refused(cases, "--phase-data", f"{name}={path}")


@pytest.mark.slow
def test_directories_of_unselected_datasets_are_not_checked(cases: Cases, tmp_path: Path) -> None:
    result = cases.run("-k", "test_four_phases", "--phase-data", f"winoground={tmp_path / 'nowhere'}")
    assert result.ret in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    assert "nowhere" not in result.stderr.str()


def test_a_checkpoint_without_processor_is_refused(cases: Cases, checkpoint: Path) -> None:
    for name in ("processor_config.json", "preprocessor_config.json"):
        (checkpoint / name).unlink(missing_ok=True)
    sentence = refused(cases, "--phase-model", str(checkpoint), "--phase-dataset", "scenes")
    assert re.search(r"has no image processor .*copy the processor's files", sentence)


def test_an_unsupported_type_is_reported_before_missing_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mllama"}))
    problem = directory_problem(tmp_path, "mine", unused=False)
    assert problem is not None
    assert problem.startswith("the checkpoint mine has the type mllama, which cannot be measured: image features ")


@pytest.mark.parametrize(
    "settings",
    [
        {"model_type": "udop", "is_encoder_decoder": True},
        {"model_type": "instructblip", "use_decoder_only_language_model": False},
    ],
)
def test_an_encoder_decoder_is_reported_before_missing_files(tmp_path: Path, settings: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps(settings))
    problem = directory_problem(tmp_path, "mine", unused=False)
    assert problem is not None
    assert problem.startswith("the checkpoint mine is an encoder-decoder: image and instruction tokens do not share ")


def test_a_processor_that_cannot_be_loaded_is_refused(cases: Cases, checkpoint: Path) -> None:
    change_settings(checkpoint / "processor_config.json", lambda content: content.update({"patch_size": [], "x": 1}))
    (checkpoint / "tokenizer.json").write_text("{}")
    sentence = refused(cases, "--phase-model", str(checkpoint), "--phase-dataset", "scenes")
    assert f"the checkpoint {checkpoint} cannot be loaded (" in sentence


@pytest.mark.parametrize("model", ["measured", "against"])
def test_a_library_that_is_missing_is_refused(
    cases: Cases, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    def lacking(*_: object, **__: object) -> None:
        raise ImportError("TheProcessor requires the Torchvision library but it was not found. Install it.")

    monkeypatch.setattr("transformers.LlavaProcessor.from_pretrained", lacking)
    named = ("--phase-model", str(checkpoint)) if model == "measured" else (*TINY, "--phase-against", str(checkpoint))
    sentence = refused(cases, *named, "--phase-dataset", "scenes")
    assert sentence.startswith(f"ERROR: {checkpoint.name} was requested and cannot be measured here: the checkpoint ")
    assert sentence.endswith("; run `pip install torchvision` and try again")
