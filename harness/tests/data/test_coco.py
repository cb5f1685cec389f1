"""COCO Captions in the official layout: samples, their order, and the reasons of excluded samples."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from harness.data.coco import PARTS
from harness.data.datasets import find_dataset
from harness.tests.support.coco_files import draw, draw_error, image_file_name, write_split
from harness.tests.support.photographs import (
    encode_image,
    find_real_data,
    needs_real_data,
    random_pixels,
    write_coco_layout,
    write_images,
)


def test_coco_defaults_to_the_sample_count_of_the_paper() -> None:
    dataset = find_dataset("coco-captions")
    assert (dataset.samples, dataset.paired, dataset.variable) == (400, False, "VLM_PHASE_COCO")


@pytest.mark.parametrize("part", PARTS)
def test_each_official_part_is_read(tmp_path: Path, part: str) -> None:
    folder = write_split(tmp_path, part)
    samples, left_out = draw(tmp_path)
    assert not left_out
    assert {s.id for s in samples} == {f"coco-{k}" for k in range(1, 9)}
    for sample in samples:
        number = int(sample.id.removeprefix("coco-"))
        assert sample.cluster == sample.id
        assert sample.instruction == "Describe the image."
        assert sample.captions == (f"{part} {number} number 0", f"{part} {number} number 1")
        (folder / image_file_name(part, number)).write_bytes(encode_image("later", "PNG"))
        assert (np.asarray(sample.load_image()) == random_pixels("later")).all(), (
            "the image was opened before it was requested"
        )


def test_the_first_part_with_images_is_read(tmp_path: Path) -> None:
    assert PARTS == ("val2017", "val2014", "train2017", "train2014")
    for part in PARTS:
        write_split(tmp_path, part)
    for k, part in enumerate(PARTS):
        samples, _ = draw(tmp_path, 1)
        assert samples[0].captions[0].startswith(part)
        if k % 2:
            (tmp_path / "annotations" / f"captions_{part}.json").unlink()
        else:
            shutil.rmtree(tmp_path / part)


def test_the_order_depends_on_the_seed_only(tmp_path: Path) -> None:
    numbers = {k: image_file_name("val2017", k) for k in range(1, 41)}
    captions = [(k, f"caption {k}") for k in numbers]
    write_coco_layout(tmp_path / "a", "val2017", numbers, captions)
    write_coco_layout(tmp_path / "b", "val2017", dict(reversed(numbers.items())), captions[::-1])
    ids = [s.id for s in draw(tmp_path / "a")[0]]
    assert [s.id for s in draw(tmp_path / "b")[0]] == ids
    assert sorted(ids) == sorted(f"coco-{k}" for k in numbers)
    assert [s.id for s in draw(tmp_path / "a", seed=1)[0]] != ids
    assert ids != sorted(ids, key=lambda name: int(name.removeprefix("coco-")))
    for n in (0, 1, 7, 40):
        assert [s.id for s in draw(tmp_path / "a", n)[0]] == ids[:n]


def test_stray_spaces_and_empty_captions_are_removed(tmp_path: Path) -> None:
    texts = ["A  cat\n on\ta mat. ", " ", "", "A cat on a mat.", " Two cats"]
    write_coco_layout(tmp_path, "val2017", {5: "5.jpg"}, [(5, text) for text in texts])
    assert draw(tmp_path)[0][0].captions == ("A cat on a mat.", "Two cats")


def test_unusable_samples_are_listed_with_the_reason(tmp_path: Path) -> None:
    write_images(tmp_path, {"secret.jpg": encode_image("secret", "JPEG")})
    bad = {1: "../secret.jpg", 2: str(tmp_path / "secret.jpg"), 3: "a/../../secret.jpg", 4: "..\\secret.jpg", 5: ""}
    good = {k: f"{k}.jpg" for k in range(10, 16)}
    captions = [(k, f"caption {k}") for k in (*bad, *good, 99) if k not in (10, 11)] + [(11, "  ")]
    folder = write_coco_layout(tmp_path, "val2014", bad | good, captions, folder=False)
    write_images(folder, {name: encode_image(name, "JPEG") for name in good.values()})
    (folder / "12.jpg").unlink()
    (folder / "13.jpg").write_bytes((folder / "13.jpg").read_bytes()[:-200])
    (folder / "14.jpg").write_bytes(b"no picture")
    samples, left_out = draw(tmp_path)
    assert [s.id for s in samples] == ["coco-15"]
    assert {k: v.split("(")[0].strip() for k, v in left_out.items()} == {
        **{f"coco-{k}": f"the file name {name!r} leads out of val2014/" for k, name in bad.items()},
        "coco-10": "no captions",
        "coco-11": "no captions",
        "coco-12": "12.jpg is missing in val2014/",
        "coco-13": "13.jpg is broken or truncated",
        "coco-14": "14.jpg is not an image in a supported format",
        "coco-99": "captions_val2014.json names no file for it",
    }


def test_unusable_images_after_the_last_drawn_sample_are_not_listed(tmp_path: Path) -> None:
    folder = write_split(tmp_path, "val2017", range(1, 21))
    complete, _ = draw(tmp_path)
    for sample in complete[::2]:
        (folder / image_file_name("val2017", int(sample.id.removeprefix("coco-")))).unlink()
    samples, left_out = draw(tmp_path, 3)
    assert [s.id for s in samples] == [s.id for s in complete[1:6:2]]
    assert list(left_out) == [s.id for s in complete[0:5:2]]


def test_greyscale_and_cmyk_photographs_are_usable(tmp_path: Path) -> None:
    folder = write_coco_layout(tmp_path, "val2017", {1: "1.jpg", 2: "2.jpg"}, [(1, "one"), (2, "two")])
    write_images(folder, {"1.jpg": encode_image("1", "JPEG", "L"), "2.jpg": encode_image("2", "JPEG", "CMYK")})
    samples, left_out = draw(tmp_path)
    assert not left_out
    assert [s.load_image().mode for s in samples] == ["RGB", "RGB"]


def test_a_directory_without_a_layout_says_what_was_looked_for(tmp_path: Path) -> None:
    message = draw_error(tmp_path)
    for word in (str(tmp_path), "annotations/captions_PART.json", *PARTS, "parquet", "give the directory"):
        assert word in message
    assert "is not a directory" in draw_error(tmp_path / "nowhere")


def test_captions_without_their_images_name_the_folder_that_is_missing(tmp_path: Path) -> None:
    write_coco_layout(tmp_path, "val2017", {1: "1.jpg"}, [(1, "one")], folder=False)
    assert f"unpack the images of that part into {tmp_path / 'val2017'}" in draw_error(tmp_path)


def test_no_usable_image_at_all_is_an_error_with_an_example(tmp_path: Path) -> None:
    folder = write_split(tmp_path, "val2017")
    for path in folder.iterdir():
        path.unlink()
    message = draw_error(tmp_path)
    assert f"{tmp_path}: none of its 8 images can be used, for example coco-" in message
    assert "is missing" in message


@pytest.mark.parametrize(
    "content",
    ["{", "[]", json.dumps({"images": [{"id": 1}], "annotations": []}), '{"images": [], "annotations": [{"bbox": 1}]}'],
)
def test_annotations_of_another_kind_are_an_error(tmp_path: Path, content: str) -> None:
    write_split(tmp_path, "val2017")
    (tmp_path / "annotations" / "captions_val2017.json").write_text(content)
    assert "captions_val2017.json is not a COCO captions file" in draw_error(tmp_path)


@needs_real_data
def test_real_photographs_have_their_captions(tmp_path: Path) -> None:
    notes = json.loads((find_real_data("coco") / "annotations" / "captions_train2017.json").read_bytes())
    written = {(f"coco-{a['image_id']}", " ".join(a["caption"].split())) for a in notes["annotations"]}
    files = {path.name for path in (find_real_data("coco") / "train2017").iterdir()}
    samples, left_out = draw(find_real_data("coco"), 400)
    assert len(samples) + len(left_out) == len(notes["images"])
    assert len(samples) == len(files & {image["file_name"] for image in notes["images"]}) > 0
    assert all(reason.endswith("is missing in train2017/") for reason in left_out.values())
    assert {(s.id, text) for s in samples for text in s.captions} == {w for w in written if w[0] not in left_out}
    sizes = {f"coco-{image['id']}": (image["width"], image["height"]) for image in notes["images"]}
    for sample in samples:
        picture = sample.load_image()
        assert (picture.mode, picture.size) == ("RGB", sizes[sample.id])
        assert np.asarray(picture).std() > 10
    assert [s.id for s in draw(find_real_data("coco"), 10)[0]] == [s.id for s in samples[:10]]
