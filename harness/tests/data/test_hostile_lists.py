"""Hostile lists of samples: wrong types, too many values, and paths that are not regular files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.data.selection import find_captions_fault
from harness.tests.support.hostile_data import ESCAPE, draw, draw_error, write_coco
from harness.tests.support.winoground_files import make_example, write_jsonl

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "content",
    [
        DEEP,
        '{"images": [{"id": NaN, "file_name": "7.jpg"}], "annotations": []}',
        '{"images": [{"id": 1e999, "file_name": "7.jpg"}], "annotations": []}',
        '{"images": [{"id": ' + "9" * 5000 + ', "file_name": "7.jpg"}], "annotations": []}',
        '{"images": [{"id": ' + "9" * 4000 + ', "file_name": "7.jpg"}], "annotations": []}',
        '{"images": [{"id": {"a": 1}, "file_name": "7.jpg"}], "annotations": []}',
        '{"images": {"id": 7}, "annotations": 7}',
        '{"images": 7}',
    ],
    ids=["deep", "nan", "infinite", "gigantic", "large", "object", "shape", "count"],
)
def test_malformed_annotations_are_an_error_with_one_sentence(tmp_path: Path, content: str) -> None:
    write_coco(tmp_path, [])
    (tmp_path / "annotations" / "captions_val2017.json").write_text(content)
    assert "captions_val2017.json is not a COCO captions file" in draw_error("coco-captions", tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        DEEP,
        "7",
        json.dumps(make_example(0, id=None)),
    ],
    ids=["deep", "number", "no-id"],
)
def test_a_malformed_list_is_an_error_with_one_sentence(tmp_path: Path, line: str) -> None:
    write_jsonl(tmp_path, [make_example(1)])
    (tmp_path / "examples.jsonl").write_text(line)
    assert "examples.jsonl line 1 is not a Winoground example" in draw_error("winoground", tmp_path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[]", "none of its 0 items"),
        (json.dumps(make_example(0, image_0={"path": "/etc/passwd"})), "image_0 is not a file name"),
        (json.dumps(make_example(0, caption_0=[ESCAPE])), "caption_0 is not text"),
    ],
)
def test_an_entry_with_wrong_types_excludes_its_item(tmp_path: Path, line: str, reason: str) -> None:
    write_jsonl(tmp_path, [make_example(1)])
    (tmp_path / "examples.jsonl").write_text(line)
    assert reason in draw_error("winoground", tmp_path)


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_endless_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def replace_by_huge_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1_000_000_001)


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


NO_FILES = {
    replace_by_pipe: "it is a pipe or a device",
    replace_by_endless_device: "it is a pipe or a device",
    replace_by_huge_file: "it is larger than 1,000,000,000 bytes",
    replace_by_directory: "it is a directory",
}
needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes and devices with paths")


@needs_pipes
@pytest.mark.parametrize("make", NO_FILES)
def test_a_list_that_is_not_a_regular_file_is_an_error_with_one_sentence(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    write_coco(tmp_path / "coco", [])
    make(tmp_path / "coco" / "annotations" / "captions_val2017.json")
    write_jsonl(tmp_path / "winoground", [make_example(1)])
    make(tmp_path / "winoground" / "examples.jsonl")
    for name, file in (("coco-captions", "captions_val2017.json"), ("winoground", "examples.jsonl")):
        message = draw_error(name, tmp_path / name.removesuffix("-captions"))
        assert f"{file} cannot be read ({NO_FILES[make]}): " in message


@needs_pipes
def test_images_that_are_not_regular_files_exclude_their_samples(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco", [{"id": 8, "file_name": "8.jpg"}, {"id": 9, "file_name": "9.jpg"}])
    os.mkfifo(tmp_path / "coco" / "val2017" / "8.jpg")
    os.mkfifo(tmp_path / "coco" / "val2017" / "other.jpg")
    (tmp_path / "coco" / "val2017" / "9.jpg").symlink_to("/dev/zero")
    samples, left_out = draw("coco-captions", tmp_path / "coco")
    assert [sample.id for sample in samples] == ["coco-7"]
    assert left_out == {f"coco-{k}": f"{k}.jpg cannot be read (it is a pipe or a device)" for k in (8, 9)}


def test_a_list_with_too_many_values_is_an_error_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_coco(tmp_path / "coco", [])
    (tmp_path / "coco" / "annotations" / "captions_val2017.json").write_text("[" + "[]," * 2000 + "[]]")
    write_jsonl(tmp_path / "winoground", [make_example(1)])
    (tmp_path / "winoground" / "examples.jsonl").write_text("\n" * 5000)
    monkeypatch.setattr("harness.data.local_copy.MOST_VALUES", 1000)
    assert "it has 4,002 values or lines, more than the limit of 1,000" in draw_error(
        "coco-captions", tmp_path / "coco"
    )
    assert "it has 5,000 values or lines, more than the limit of 1,000" in draw_error(
        "winoground", tmp_path / "winoground"
    )


LONG = "x" * 10_001


@pytest.mark.parametrize(
    ("captions", "reason"),
    [
        (["a dog", "dog " * 12_000_000], "a caption has more than 10,000 characters"),
        (["a dog", LONG], "a caption has more than 10,000 characters"),
        ([f"{k} " * 2000 for k in range(11, 40)], "its captions have more than 100,000 characters together"),
        ([str(k) for k in range(1001)], "it has 1,001 captions, more than 1,000"),
        ([[[[[[[[[["a dog"]]]]]]]]]], "no caption is text"),
        ([json.loads(DEEP[99_600:100_400])], "no caption is text"),
    ],
    ids=["48-megabytes", "long", "together", "many", "deep", "deeper"],
)
def test_an_image_with_too_long_captions_is_excluded(tmp_path: Path, captions: list[Any], reason: str) -> None:
    write_coco(tmp_path, [])
    path = tmp_path / "annotations" / "captions_val2017.json"
    content = json.loads(path.read_text())
    content["images"].append({"id": 8, "file_name": "7.jpg"})
    content["annotations"] += [{"image_id": 8, "caption": caption} for caption in captions]
    path.write_text(json.dumps(content))
    samples, left_out = draw("coco-captions", tmp_path)
    assert ([sample.id for sample in samples], left_out) == (["coco-7"], {"coco-8": reason})


def test_captions_at_the_length_limits_are_accepted(tmp_path: Path) -> None:
    captions = [f"{k} {'dog ' * 2000}" for k in range(12)]
    assert find_captions_fault([*captions, "x" * 3000]) == ""
    assert find_captions_fault(["x" * 10_000]) == ""
    assert find_captions_fault([str(k) for k in range(1000)]) == ""


def test_a_winoground_item_with_a_too_long_caption_is_excluded(tmp_path: Path) -> None:
    write_jsonl(
        tmp_path,
        [make_example(1), make_example(2, caption_1="dog " * 3_000_000), make_example(3, tag="x" * 1_000_000)],
    )
    samples, left_out = draw("winoground", tmp_path)
    assert {sample.cluster for sample in samples} == {"winoground-1", "winoground-3"}
    assert left_out["winoground-2-0"] == "caption_1: a caption has more than 10,000 characters"
