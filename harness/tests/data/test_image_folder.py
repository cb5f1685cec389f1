"""Lookup of file names that differ from the files in folder, case or level."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.data.datasets import find_dataset
from harness.data.image_folder import Absent, ImageFolder
from harness.data.sample import DataError, Sample, Source
from harness.tests.support.photographs import encode_image, write_coco_layout, write_images
from harness.tests.support.winoground_files import make_example, write_jsonl


def folder_with(tmp_path: Path, *names: str) -> ImageFolder:
    root = tmp_path / "coco"
    for name in names:
        path = root / "train2017" / name
        write_images(path.parent, {path.name: b"bytes"})
    (root / "train2017").mkdir(parents=True, exist_ok=True)
    return ImageFolder(root / "train2017", root)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("1.jpg", "1.jpg"),
        ("1.jpg", "train2017/1.jpg"),
        ("1.jpg", "coco/train2017/1.jpg"),
        ("1.jpg", "Train2017\\1.jpg"),
        ("1.jpg", "./1.jpg"),
        ("1.jpg", "1.JPG"),
        ("1.JPG", "train2017/1.jpg"),
        ("train2017/1.jpg", "1.jpg"),
        ("train2017/1.jpg", "train2017/1.jpg"),
        ("a/b/1.jpg", "1.jpg"),
        ("a/b/1.jpg", "B\\1.jpg"),
        ("1.jpg", "images/train2017/1.jpg"),
        ("1.jpg", "/data/other/train2017/1.jpg"),
        ("1.jpg", "C:\\data\\train2017\\1.jpg"),
        ("1.jpg", "http://images.example/train2017/1.jpg"),
        ("caf\u00e9.jpg", "cafe\u0301.jpg"),
        ("cafe\u0301.jpg", "caf\u00e9.jpg"),
        ("a cat.jpg", "a%20cat.jpg"),
        ("a%20cat.jpg", "a cat.jpg"),
        ("1.bmp", "1"),
    ],
)
def test_a_file_is_found_in_another_folder_or_case(tmp_path: Path, file: str, name: str) -> None:
    folder = folder_with(tmp_path, file)
    assert folder.find(name) == folder.folder / file


def test_an_exact_match_of_the_name_is_preferred(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "a.jpg", "A.jpg", "b/a.jpg")
    for name in ("a.jpg", "A.jpg", "b/a.jpg"):
        assert folder.find(name) == folder.folder / name


def reason(folder: ImageFolder, name: str) -> str:
    file = folder.find(name)
    assert isinstance(file, Absent)
    with pytest.raises(DataError):
        file.read_bytes()
    return file.reason


def test_an_ambiguous_name_matches_no_file(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "a/1.jpg", "b/1.jpg")
    assert reason(folder, "1.jpg") == "1.jpg may be train2017/a/1.jpg or train2017/b/1.jpg: give one of them in full"
    assert folder.find("b/1.jpg") == folder.folder / "b" / "1.jpg"


def test_an_image_of_another_part_is_not_used(tmp_path: Path) -> None:
    """Each part numbers its images separately, so the same name in another part is another image."""
    folder = folder_with(tmp_path, "2.jpg", "b/1.jpg")
    write_images(folder.root / "val2017", {"3.jpg": b"", "1.jpg": b""})
    assert reason(folder, "a/1.jpg").startswith("a/1.jpg is missing in train2017/")
    assert reason(folder, "3.jpg") == "3.jpg is missing in train2017/, a file with that name is in val2017/"
    assert folder.find("val2017/1.jpg") == folder.root / "val2017" / "1.jpg"
    assert reason(folder, "4.jpg") == "4.jpg is missing in train2017/"
    assert reason(folder, "2.png") == "2.png is missing in train2017/, 2.jpg is in train2017/"
    assert reason(folder, "/etc/passwd") == "/etc/passwd is missing in train2017/"
    assert reason(folder, "/x/train2017/../../2.jpg").endswith("is missing in train2017/")


def draw(dataset: str, directory: Path) -> tuple[list[Sample], dict[str, str]]:
    source = Source(directory)
    return list(find_dataset(dataset).draw(100, 0, source)), source.left_out


def test_coco_file_names_with_folders_match_images_one_level_deeper(tmp_path: Path) -> None:
    names = {k: f"train2017/{k}.JPG" for k in range(3)}
    write_coco_layout(tmp_path, "train2017", names, [(k, "a red circle") for k in names], folder=False)
    write_images(tmp_path / "train2017" / "train2017", {f"{k}.jpg": encode_image(str(k)) for k in names})
    samples, left_out = draw("coco-captions", tmp_path)
    assert (len(samples), left_out) == (3, {})


def test_coco_images_are_found_below_a_folder_named_images(tmp_path: Path) -> None:
    write_coco_layout(tmp_path, "train2017", {1: "1.jpg"}, [(1, "a red circle")], folder=False)
    write_images(tmp_path / "images" / "train2017", {"1.jpg": encode_image("1")})
    assert [sample.id for sample in draw("coco-captions", tmp_path)[0]] == ["coco-1"]


def test_a_directory_too_high_or_too_low_is_an_error_that_names_the_right_one(tmp_path: Path) -> None:
    write_coco_layout(tmp_path / "data" / "coco", "train2017", {1: "1.jpg"}, [(1, "a red circle")])
    for given in (tmp_path, tmp_path / "data", tmp_path / "data" / "coco" / "annotations"):
        with pytest.raises(
            DataError, match=f"the directory that contains annotations/: there is {tmp_path / 'data/coco'}"
        ):
            draw("coco-captions", given)
    nested = tmp_path / "data" / "coco" / "a" / "b"
    nested.mkdir(parents=True)
    (tmp_path / "data" / "coco" / "train2017").rename(nested / "train2017")
    with pytest.raises(DataError, match=f"unpack .* into .*: there is {nested / 'train2017'}"):
        draw("coco-captions", tmp_path / "data" / "coco")


def test_winoground_images_are_found_one_level_deeper_and_in_other_case(tmp_path: Path) -> None:
    folder = write_jsonl(tmp_path, [make_example(1)], images="images/images")
    (folder / "ex_1_img_0.png").rename(folder / "EX_1_IMG_0.PNG")
    examples = [make_example(1, image_1="images/ex_1_img_1.png")]
    (tmp_path / "examples.jsonl").write_text("\n".join(map(json.dumps, examples)))
    samples, left_out = draw("winoground", tmp_path)
    assert (len(samples), left_out) == (2, {})
