"""Hostile datasets: file names that are paths, images of excessive size, and ids with control characters."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.baselines.store import BaselineError, read_baseline, write_baseline
from harness.baselines.stored_files import model_directory
from harness.data.photograph import MOST_BYTES, find_fault
from harness.data.sample import Source
from harness.data.selection import item_name, tidy_captions
from harness.judgement.phases import phases_of
from harness.tests.support.case_runs import find_arrays
from harness.tests.support.hostile_data import ESCAPE, draw, draw_error, write_coco
from harness.tests.support.photographs import encode_image, needs_pyarrow, write_images, write_table
from harness.tests.support.tiny import tiny_profile, tiny_vlm
from harness.tests.support.winoground_files import make_example, write_jsonl


@pytest.mark.parametrize(
    "name",
    [
        "../../../../../../etc/passwd",
        "../outside.jpg",
        "/etc/passwd",
        "C:\\Windows\\win.ini",
        "..\\outside.jpg",
        "\\\\server\\share\\a.jpg",
        "a/../../outside.jpg",
        "7.jpg\0",
        "7.jpg\0/../../outside.jpg",
        "x" * 100_000,
        "x/" * 10_000,
        f"{ESCAPE}.jpg",
        ".",
        "",
    ],
)
def test_a_file_name_cannot_lead_out_of_the_image_folder(tmp_path: Path, name: str) -> None:
    write_coco(tmp_path, [{"id": 8, "file_name": name}])
    samples, left_out = draw("coco-captions", tmp_path)
    assert [sample.id for sample in samples] == ["coco-7"]
    assert list(left_out) == ["coco-8"]
    assert left_out["coco-8"].isprintable()
    assert len(left_out["coco-8"]) < 400


def test_the_image_folder_and_files_in_it_may_be_links(tmp_path: Path) -> None:
    """Content stores link to their files. The target of a link is only ever decoded as a photograph."""
    write_coco(tmp_path / "kept", [{"id": 8, "file_name": "8.jpg"}, {"id": 9, "file_name": "9.jpg"}])
    (tmp_path / "kept" / "val2017" / "8.jpg").symlink_to(tmp_path / "kept" / "outside.jpg")
    (tmp_path / "kept" / "val2017" / "9.jpg").symlink_to("/etc/passwd")
    (tmp_path / "annotations").symlink_to(tmp_path / "kept" / "annotations")
    (tmp_path / "val2017").symlink_to(tmp_path / "kept" / "val2017")
    samples, left_out = draw("coco-captions", tmp_path)
    assert sorted(sample.id for sample in samples) == ["coco-7", "coco-8"]
    assert list(left_out) == ["coco-9"]
    assert left_out["coco-9"].startswith("9.jpg is not an image")


def test_pipes_devices_and_oversized_files_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    assert find_fault(tmp_path / "pipe.jpg") == "pipe.jpg cannot be read (it is a pipe or a device)"
    assert find_fault(tmp_path / "zero.jpg") == "zero.jpg cannot be read (it is a pipe or a device)"
    assert "it is larger than 256,000,000 bytes" in (find_fault(tmp_path / "sparse.jpg") or "")


def png(width: int, height: int) -> bytes:
    """Return a PNG that claims this size but contains only 1,000 zero bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_001, 20_000, 2**31 - 1])
def test_an_image_that_claims_too_many_pixels_is_excluded(tmp_path: Path, side: int) -> None:
    write_coco(tmp_path, [{"id": 8, "file_name": "8.png"}])
    (tmp_path / "val2017" / "8.png").write_bytes(png(side, side))
    _, left_out = draw("coco-captions", tmp_path)
    enormous = "8.png claims more than 100,000,000 pixels, so it is not a photograph"
    assert left_out == {"coco-8": enormous}


def test_a_postscript_program_is_not_an_image(tmp_path: Path) -> None:
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(mark) (w) file closefile\n%%EOF\n"
    (tmp_path / "a.jpg").write_bytes(program)
    assert (find_fault(tmp_path / "a.jpg") or "").startswith("a.jpg is not an image")


NAMES = {
    "../../up": "../../up",
    "a/b": "a/b",
    "line\nbreak": r"line\nbreak",
    ESCAPE: r"\x1b]0;owned\x07\x1b[2J",
    "\x9b2J": r"\x9b2J",
    "right\u202eleft": r"right\u202eleft",
    "half\ud800": r"half\ud800",
    r"\x07": r"\x07",
    "\x07\\": r"\x07\\",
    "münchen": "münchen",
    42: "42",
}


def test_control_characters_in_ids_are_escaped_and_ids_stay_different() -> None:
    assert {name: item_name(name) for name in NAMES} == NAMES
    spelled = [item_name(name) for name in ("\x07\\", "\x07\\\\", "\x07\\x07", "\x07\x07", "\x07n", "\x07\n")]
    assert len(set(spelled)) == len(spelled)
    for value in ("", "x" * 201, 10**300, None, 1.5, float("nan"), [1], {"a": 1}, b"x"):
        with pytest.raises(ValueError, match="an id "):
            item_name(value)


def test_control_characters_are_removed_from_captions() -> None:
    assert tidy_captions([f" a {ESCAPE}red\0circle\ud800 ", "a\u200bred caf\u00e9"]) == (
        "a ]0;owned [2Jred circle",
        "a\u200bred caf\u00e9",
    )


def test_ids_in_profile_messages_and_baseline_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [name for name in NAMES if isinstance(name, str)]
    examples = [make_example(0, id=name, caption_0="a red circle", caption_1="circle a red") for name in names]
    write_jsonl(tmp_path / "data", [*examples, make_example(1, id=f"{ESCAPE}-no-pictures")])
    (tmp_path / "data" / "images" / "ex_1_img_0.png").unlink()
    lines: list[str] = []
    source = Source(tmp_path / "data")
    cache, root = tmp_path / "cache", tmp_path / "kept" / "baselines"
    profile = tiny_profile(
        tiny_vlm(), "winoground", samples=100, source=source, cache=cache, word_order=False, say=lines.append
    )
    shown = {f"winoground-{name}" for name in NAMES.values() if name != "42"}
    assert set(profile.clusters) == shown
    assert lines[0].startswith(
        "winoground: left out 2 (image ex_1_img_0 is missing in images/): winoground-\\x1b]0;owned"
    )
    assert all(line.isprintable() for line in (*lines, *profile.sample_ids, *profile.left_out))
    assert {path.suffix for path in cache.rglob("*") if path.is_file()} <= {".npz", ".json"}
    assert all(set(path.stem) <= set("0123456789abcdefky") for path in cache.rglob("*.*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.baselines.store.LEAST_SAMPLES", 2)
        stored = read_baseline(write_baseline(root, profile, {}, phases_of(profile)))
    assert stored.profile.sample_ids == profile.sample_ids
    assert {path.relative_to(tmp_path / "kept").as_posix() for path in root.rglob("*.*")} == {
        "baselines/tiny-llava/winoground.json",
        f"baselines/tiny-llava/{find_arrays(stored.path).name}",
    }


@pytest.mark.parametrize("name", ["../../up", "/etc/up", "..", ".", "", "a/b", "a\\b", "C:up"])
def test_a_model_named_like_a_path_cannot_have_baselines(tmp_path: Path, name: str) -> None:
    with pytest.raises(BaselineError, match="use a name instead of a path"):
        model_directory(tmp_path, name)


@pytest.mark.parametrize("stem", ["../../outside", "/etc/passwd", "..", f"{ESCAPE}", "x" * 100_000, "a\0b"])
def test_an_image_stem_is_not_used_as_a_path(tmp_path: Path, stem: str) -> None:
    write_jsonl(tmp_path, [make_example(1)])
    write_images(tmp_path, {"outside.png": encode_image("outside")})
    (tmp_path / "examples.jsonl").write_text(
        json.dumps(make_example(1)) + "\n" + json.dumps(make_example(2, image_0=stem))
    )
    samples, left_out = draw("winoground", tmp_path)
    assert {sample.cluster for sample in samples} == {"winoground-1"}
    assert set(left_out) == {"winoground-2-0", "winoground-2-1"}
    assert all(reason.isprintable() and len(reason) < 400 for reason in left_out.values())


@needs_pyarrow
@pytest.mark.parametrize(
    "alter",
    [
        lambda table: table | {"file_name": [None, None]},
        lambda table: table | {"file_name": ["9" * 5000, "8" * 5000]},
        lambda table: table | {"file_name": [{"a": 1}, {"a": 2}]},
        lambda table: table | {"file_name": [1.5, 2.5]},
    ],
    ids=["missing", "long", "structure", "fraction"],
)
def test_a_table_with_invalid_ids_is_an_error_with_one_sentence(tmp_path: Path, alter: Callable[[Any], Any]) -> None:
    picture = {"bytes": encode_image("a"), "path": "../../outside.png"}
    table = {"file_name": ["8.jpg", "9.jpg"], "image": [picture, picture], "answer": [["a red circle"]] * 2}
    write_table(tmp_path / "data" / "val.parquet", alter(table))
    assert "row 0 of row group 0: the row has no file_name (" in draw_error("coco-captions", tmp_path)


@needs_pyarrow
@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        ("image", ["../../etc/passwd", "/etc/passwd"], "holds no bytes"),
        ("image", [7, 8], "holds no bytes"),
        ("image", [{"bytes": None, "path": "/etc/passwd"}] * 2, "holds no bytes"),
        ("answer", [7, 8], "no caption is text"),
        ("answer", [[[["a"]]], [[["a"]]]], ""),
    ],
)
def test_rows_with_wrong_column_types_are_excluded(tmp_path: Path, column: str, values: list[Any], reason: str) -> None:
    picture = {"bytes": encode_image("a"), "path": "a.png"}
    table = {"file_name": ["8.jpg", "9.jpg"], "image": [picture, picture], "answer": [["a red circle"]] * 2}
    write_table(tmp_path / "data" / "val.parquet", table | {column: values})
    if not reason:
        assert len(draw("coco-captions", tmp_path)[0]) == 2
        return
    assert reason in draw_error("coco-captions", tmp_path)
