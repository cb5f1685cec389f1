"""Faulty entries of real lists: each excludes only its own sample, and captions of two images are never mixed."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.data.datasets import find_dataset
from harness.data.sample import Sample, Source
from harness.tests.support.photographs import encode_image, needs_pyarrow, write_coco_layout, write_table
from harness.tests.support.winoground_files import make_example, write_jsonl, write_parquet

ENCODINGS = {
    "utf-8-sig": lambda text: codecs.BOM_UTF8 + text.encode(),
    "utf-16": lambda text: text.encode("utf-16"),
    "crlf": lambda text: text.replace("\n", "\r\n").encode(),
}


def draw(dataset: str, directory: Path) -> tuple[list[Sample], dict[str, str]]:
    source = Source(directory)
    return list(find_dataset(dataset).draw(100, 0, source)), source.left_out


def coco(directory: Path, change: Callable[[dict[str, Any]], None]) -> tuple[dict[str, Sample], dict[str, str]]:
    """Return the samples of three photographs with two captions each, after a change of the annotations."""
    names = {k: f"{k}.jpg" for k in (1, 2, 3)}
    write_coco_layout(directory, "val2017", names, [(k, f"a circle {j} of {k}") for k in names for j in "ab"])
    path = directory / "annotations" / "captions_val2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    samples, left_out = draw("coco-captions", directory)
    return {sample.id: sample for sample in samples}, left_out


def caption(value: Any, *, every: bool = True) -> Callable[[dict[str, Any]], None]:
    """Return a function that sets both captions of the first photograph, or only the first caption."""

    def change(content: dict[str, Any]) -> None:
        for note in content["annotations"][: 2 if every else 1]:
            note["caption"] = value

    return change


@pytest.mark.parametrize(
    ("value", "reason"),
    [(None, "no caption is text"), (7, "no caption is text"), ("", "no captions"), (" \n", "no captions")],
)
def test_a_photograph_without_a_caption_is_excluded(tmp_path: Path, value: Any, reason: str) -> None:
    samples, left_out = coco(tmp_path / "every", caption(value))
    assert (sorted(samples), left_out) == (["coco-2", "coco-3"], {"coco-1": reason})
    samples, left_out = coco(tmp_path / "one", caption(value, every=False))
    assert (samples["coco-1"].captions, left_out) == (("a circle b of 1",), {})


def test_a_list_of_captions_is_read(tmp_path: Path) -> None:
    samples, _ = coco(tmp_path, caption(["a dog", None, "a cat"], every=False))
    assert samples["coco-1"].captions == ("a dog", "a cat", "a circle b of 1")


def test_two_images_with_the_same_id_are_excluded_and_named(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["images"][1]["id"] = 1
        for note in content["annotations"][2:4]:
            note["image_id"] = 1

    samples, left_out = coco(tmp_path, change)
    assert sorted(samples) == ["coco-3"]
    assert left_out == {"coco-1": "several images have this id: 1.jpg and 2.jpg; give each image its own id"}


@pytest.mark.parametrize("name", ["1.jpg", "val2017/1.jpg", "copy.jpg"])
def test_an_image_listed_twice_is_one_sample(tmp_path: Path, name: str) -> None:
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017" / "copy.jpg").write_bytes(encode_image("1.jpg", "JPEG"))
    samples, left_out = coco(tmp_path, lambda content: content["images"].append({"id": "1", "file_name": name}))
    assert (len(samples), left_out) == (3, {})
    assert samples["coco-1"].captions == ("a circle a of 1", "a circle b of 1")


@pytest.mark.parametrize("as_other", [str, float])
def test_ids_as_text_and_as_numbers_are_equal(tmp_path: Path, as_other: Callable[[int], Any]) -> None:
    def change(content: dict[str, Any]) -> None:
        for note in content["annotations"]:
            note |= {"image_id": as_other(note["image_id"]), "id": 0}

    samples, left_out = coco(tmp_path, change)
    assert ({sample.id: len(sample.captions) for sample in samples.values()}, left_out) == (
        {f"coco-{k}": 2 for k in (1, 2, 3)},
        {},
    )


def test_a_photograph_whose_file_name_is_null_is_excluded(tmp_path: Path) -> None:
    samples, left_out = coco(tmp_path, lambda content: content["images"][0].update(file_name=None))
    assert (sorted(samples), left_out) == (["coco-2", "coco-3"], {"coco-1": "its file name is None"})


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (None, "TypeError: "),
        ({"caption": "a dog"}, "KeyError: 'image_id'"),
        ({"image_id": None, "caption": "a dog"}, "ValueError: an id is None"),
        ({"image_id": float("nan"), "caption": "a dog"}, "ValueError: an id is nan"),
        ({"image_id": 1}, "KeyError: 'caption'"),
    ],
    ids=["null", "no-id", "null-id", "nan-id", "no-caption"],
)
def test_an_unreadable_entry_excludes_no_other_sample(tmp_path: Path, entry: Any, reason: str) -> None:
    samples, left_out = coco(tmp_path, lambda content: content["annotations"].insert(1, entry))
    assert {sample.id: len(sample.captions) for sample in samples.values()} == {f"coco-{k}": 2 for k in (1, 2, 3)}
    assert list(left_out) == ["coco-annotations[1]"]
    assert left_out["coco-annotations[1]"].startswith(f"the entry cannot be read ({reason}")


def test_an_image_without_id_excludes_no_other_sample(tmp_path: Path) -> None:
    samples, left_out = coco(tmp_path, lambda content: content["images"][0].update(id=None))
    assert sorted(samples) == ["coco-2", "coco-3"]
    assert left_out == {
        "coco-1": "captions_val2017.json names no file for it",
        "coco-images[0]": "the entry cannot be read (ValueError: an id is None, neither a number nor text)",
    }


def test_html_entities_are_decoded(tmp_path: Path) -> None:
    samples, _ = coco(tmp_path, caption("a man &amp; a dog&#39;s &quot;bone&quot;"))
    assert samples["coco-1"].captions == ('a man & a dog\'s "bone"',)


@needs_pyarrow
def test_a_row_without_id_is_excluded_and_ids_keep_their_letters(tmp_path: Path) -> None:
    names = [None, "00a1b2.jpg", "0c2.jpg", "COCO_val2014_000000000042.jpg"]
    columns: dict[str, list[Any]] = {
        "file_name": names,
        "image": [{"bytes": encode_image(str(name)), "path": None} for name in names],
        "answer": [["a dog"]] * 4,
    }
    write_table(tmp_path / "a.parquet", columns)
    samples, left_out = draw("coco-captions", tmp_path)
    assert {sample.id for sample in samples} == {"coco-00a1b2", "coco-0c2", "coco-42"}
    assert list(left_out) == ["coco-a.parquet row 0 of row group 0"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_coco_is_read_in_the_encodings_of_other_systems(tmp_path: Path, encoding: str) -> None:
    coco(tmp_path, lambda content: None)
    path = tmp_path / "annotations" / "captions_val2017.json"
    path.write_bytes(ENCODINGS[encoding](json.dumps(json.loads(path.read_text()), indent=1)))
    assert len(draw("coco-captions", tmp_path)[0]) == 3


@needs_pyarrow
def test_rows_with_the_same_id_are_merged_or_excluded(tmp_path: Path) -> None:
    """Both rows with id 1 hold the same image, those with id 2 different images, and row 4 has no captions."""
    names, pictures = ["1", "1", "2", "2", "3", "4"], ["1", "1", "2", "other", "3", "4"]
    captions: list[Any] = [["a dog"], ["a cat"], ["a hat"], ["a bat"], [None, "a rat"], None]
    columns = {
        "file_name": [f"{name}.jpg" for name in names],
        "image": [{"bytes": encode_image(name), "path": None} for name in pictures],
        "answer": captions,
    }
    write_table(tmp_path / "a.parquet", columns)
    samples, left_out = draw("coco-captions", tmp_path)
    assert {sample.id: sample.captions for sample in samples} == {"coco-1": ("a dog", "a cat"), "coco-3": ("a rat",)}
    assert left_out == {
        "coco-2": "several images have this id: a.parquet row group 0 row 2 image and a.parquet row group 1 row 0 "
        "image; give each image its own id",
        "coco-4": "no caption is text",
    }


EXAMPLES = [
    make_example(0),
    make_example("1"),
    make_example(2, caption_1=None),
    make_example(3),
    make_example(0),
    make_example(3, caption_0="else"),
]
LEFT_OUT = {
    "winoground-2": "caption_1 is not text",
    "winoground-3": "differ and have this id",
}


def check_items(directory: Path) -> None:
    samples, left_out = draw("winoground", directory)
    assert {sample.cluster for sample in samples} == {"winoground-0", "winoground-1"}
    assert len(samples) == 4
    assert set(left_out) == {f"{name}-{side}" for name in LEFT_OUT for side in (0, 1)}
    assert all(LEFT_OUT[name[:-2]] in reason for name, reason in left_out.items())


@pytest.mark.parametrize("encoding", [*ENCODINGS, "list", "indented"])
def test_winoground_is_read_in_the_encodings_of_other_systems(tmp_path: Path, encoding: str) -> None:
    write_jsonl(tmp_path, EXAMPLES)
    path = tmp_path / "examples.jsonl"
    if encoding in ENCODINGS:
        path.write_bytes(ENCODINGS[encoding](path.read_text()))
    else:
        path.unlink()
        (tmp_path / "examples.json").write_text(json.dumps(EXAMPLES, indent=1 if encoding == "indented" else None))
    check_items(tmp_path)


@needs_pyarrow
def test_winoground_as_parquet_excludes_the_same_items(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [entry | {"id": str(entry["id"])} for entry in EXAMPLES])
    check_items(tmp_path)
    _, left_out = draw("winoground", tmp_path)
    assert left_out["winoground-3-0"].startswith("a.parquet row 0 of row group 1 and a.parquet row 2 of row group 1")
