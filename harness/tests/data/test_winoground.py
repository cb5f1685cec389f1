from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from harness.data.datasets import find_dataset
from harness.data.sample import DataError, Sample, Source
from harness.tests.support.photographs import (
    encode_image,
    find_real_data,
    needs_pyarrow,
    needs_real_data,
    random_pixels,
    write_images,
    write_table,
)
from harness.tests.support.winoground_files import make_example, write_jsonl, write_parquet


def draw(directory: Path, n: int = 100, seed: int = 0) -> tuple[list[Sample], dict[str, str]]:
    source = Source(directory)
    return list(find_dataset("winoground").draw(n, seed, source)), source.left_out


def check_pairs(samples: Sequence[Sample]) -> None:
    for k, sample in enumerate(samples):
        number = sample.cluster.removeprefix("winoground-")
        assert sample.cluster == samples[k - k % 2].cluster
        assert sample.id == f"{sample.cluster}-{k % 2}"
        assert sample.instruction == "Describe the image."
        assert sample.captions == (
            (f"the dog {number} sees the cat",) if k % 2 == 0 else (f"the cat sees the dog {number}",)
        )
        assert (np.asarray(sample.load_image()) == random_pixels(f"ex_{number}_img_{k % 2}")).all()


def test_winoground_is_registered_as_paired() -> None:
    dataset = find_dataset("winoground")
    assert (dataset.samples, dataset.paired, dataset.variable) == (400, True, "VLM_PHASE_WINOGROUND")


@pytest.mark.parametrize(
    ("folder", "images"), [("data", "images"), (".", "images"), ("data", "../images"), (".", "data/images")]
)
def test_list_and_images_are_found_at_the_root_and_in_data(tmp_path: Path, folder: str, images: str) -> None:
    write_jsonl(tmp_path / folder, [make_example(k) for k in range(5)], images=images)
    samples, left_out = draw(tmp_path)
    assert not left_out
    assert len(samples) == 10
    check_pairs(samples)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp", "JPG"])
def test_images_are_found_by_stem_with_any_extension(tmp_path: Path, suffix: str) -> None:
    folder = write_jsonl(tmp_path, [make_example(3)], suffix.lower())
    for path in list(folder.iterdir()):
        path.rename(path.with_suffix(f".{suffix}"))
    samples, left_out = draw(tmp_path)
    assert not left_out
    assert [s.load_image().size for s in samples] == [(24, 24), (24, 24)]


def test_an_image_name_with_an_extension_matches_exactly(tmp_path: Path) -> None:
    folder = write_jsonl(tmp_path, [make_example(3)])
    (folder / "ex_3_img_0.jpg").write_bytes(b"a thumbnail of another program")
    (tmp_path / "examples.jsonl").write_text(json.dumps(make_example(3, image_1="ex_3_img_1.png")))
    samples, left_out = draw(tmp_path)
    assert not left_out
    check_pairs(samples)


@needs_pyarrow
def test_parquet_gives_the_same_samples_as_the_list(tmp_path: Path) -> None:
    examples = [make_example(k) for k in range(8)]
    write_jsonl(tmp_path / "list" / "data", examples)
    write_parquet(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet", examples[::-1])
    listed, tabled = draw(tmp_path / "list")[0], draw(tmp_path / "hub")[0]
    check_pairs(tabled)
    assert [(s.id, s.captions) for s in tabled] == [(s.id, s.captions) for s in listed]


def test_a_longer_draw_extends_a_shorter_one_and_keeps_the_pairs(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a", [make_example(k) for k in range(12)])
    write_jsonl(tmp_path / "b", [make_example(k) for k in reversed(range(12))])
    ids = [s.id for s in draw(tmp_path / "a")[0]]
    assert len(set(ids)) == 24
    assert [s.id for s in draw(tmp_path / "b")[0]] == ids
    assert [s.id for s in draw(tmp_path / "a", seed=1)[0]] != ids
    for n in (0, 1, 7, 24):
        samples, _ = draw(tmp_path / "a", n)
        assert [s.id for s in samples] == ids[:n]
        check_pairs(samples)


def test_an_item_with_an_unusable_side_is_excluded(tmp_path: Path) -> None:
    write_images(tmp_path, {"secret.png": encode_image("secret")})
    examples = [make_example(k) for k in range(6)] + [
        make_example(6, caption_1="  "),
        make_example(7, image_0="../secret"),
    ]
    examples[7]["image_1"] = "ex_0_img_1"
    folder = write_jsonl(tmp_path, examples[:7])
    (tmp_path / "examples.jsonl").write_text("\n".join(map(json.dumps, examples)))
    (folder / "ex_1_img_0.png").unlink()
    (folder / "ex_2_img_1.png").write_bytes((folder / "ex_2_img_1.png").read_bytes()[:-300])
    (folder / "ex_3_img_0.png").write_bytes(b"")
    (folder / "ex_3_img_1.png").write_bytes(b"no picture")
    samples, left_out = draw(tmp_path)
    check_pairs(samples)
    assert {s.cluster for s in samples} == {f"winoground-{k}" for k in (0, 4, 5)}
    assert set(left_out) == {f"winoground-{k}-{side}" for k in (1, 2, 3, 6, 7) for side in (0, 1)}
    for side in (0, 1):
        assert left_out[f"winoground-1-{side}"] == "image ex_1_img_0 is missing in images/"
        assert left_out[f"winoground-2-{side}"].startswith("ex_2_img_1.png is broken or truncated")
        assert left_out[f"winoground-3-{side}"].startswith("ex_3_img_0.png is empty; ex_3_img_1.png is not an image")
        assert left_out[f"winoground-6-{side}"] == "caption_1 is empty"
        assert left_out[f"winoground-7-{side}"] == "image ../secret is missing in images/"


@needs_pyarrow
def test_an_item_with_an_unusable_image_in_parquet_is_excluded(tmp_path: Path) -> None:
    images = [encode_image("a"), encode_image("b")[:-300], None]
    columns = {
        "id": [0, 1, 2],
        "image_0": [{"bytes": encode_image("c")}] * 3,
        "image_1": [{"bytes": content} for content in images],
        "caption_0": ["one"] * 3,
        "caption_1": ["two"] * 3,
    }
    write_table(tmp_path / "test.parquet", columns)
    samples, left_out = draw(tmp_path)
    assert [s.cluster for s in samples] == ["winoground-0"] * 2
    assert (
        left_out["winoground-2-0"]
        == left_out["winoground-2-1"]
        == "test.parquet row group 0 row 2 image_1 holds no bytes"
    )
    assert "row 1 image_1 is broken or truncated" in left_out["winoground-1-0"]


def refused(directory: Path) -> str:
    with pytest.raises(DataError) as error:
        draw(directory)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_packed_images_are_an_error_that_requests_unzipping(tmp_path: Path) -> None:
    folder = write_jsonl(tmp_path / "data", [make_example(0)])
    with zipfile.ZipFile(tmp_path / "data" / "images.zip", "w") as packed:
        for path in folder.iterdir():
            packed.write(path, f"images/{path.name}")
    shutil.rmtree(folder)
    assert f"{tmp_path / 'data' / 'images.zip'} is still packed: unzip it" in refused(tmp_path)
    with zipfile.ZipFile(tmp_path / "data" / "images.zip") as packed:
        packed.extractall(tmp_path / "data")
    check_pairs(draw(tmp_path)[0])


def test_errors_name_the_directory_and_the_remedy(tmp_path: Path) -> None:
    message = refused(tmp_path)
    for word in (str(tmp_path), "examples.jsonl", "images/", "parquet", "give the directory"):
        assert word in message
    shutil.rmtree(write_jsonl(tmp_path, [make_example(0)]))
    assert "has no images: put the folder images/" in refused(tmp_path)
    (tmp_path / "images").mkdir()
    assert "none of its 1 items can be used, for example winoground-0: image ex_0_img_0 is missing" in refused(tmp_path)


def test_a_truncated_line_is_an_error_with_its_number(tmp_path: Path) -> None:
    write_jsonl(tmp_path, [make_example(0)])
    (tmp_path / "examples.jsonl").write_text(f"{json.dumps(make_example(0))}\n\n{{\n")
    assert "examples.jsonl line 3 is not a Winoground example" in refused(tmp_path)


@pytest.mark.parametrize(
    "line", ["[]", "3", "null", '{"id": 1}', json.dumps(make_example([1])), json.dumps(make_example(None))]
)
def test_a_malformed_line_excludes_its_item(tmp_path: Path, line: str) -> None:
    write_jsonl(tmp_path, [make_example(0)])
    (tmp_path / "examples.jsonl").write_text(f"{json.dumps(make_example(0))}\n\n{line}\n")
    samples, left_out = draw(tmp_path)
    check_pairs(samples)
    assert (len(samples), list(left_out)) == (2, ["winoground-line 3-0", "winoground-line 3-1"])
    assert left_out["winoground-line 3-0"].startswith("the entry cannot be read (")


def test_an_item_with_identical_sides_is_excluded(tmp_path: Path) -> None:
    """A tie counts against the model, so such an item would lower its scores."""
    twice = make_example(2, image_1="ex_2_img_0")
    same = make_example(3, caption_0="a dog &amp; a cat", caption_1=" a dog & a  cat")
    write_jsonl(tmp_path, [make_example(1), twice, same, make_example(4, caption_0="A dog", caption_1="a dog")])
    samples, left_out = draw(tmp_path)
    assert {sample.cluster for sample in samples} == {"winoground-1", "winoground-4"}
    assert left_out["winoground-2-0"] == "image_0 and image_1 are the same image"
    assert left_out["winoground-3-1"] == "caption_0 and caption_1 are the same"


def test_a_line_separator_in_a_caption_does_not_end_the_line(tmp_path: Path) -> None:
    write_jsonl(tmp_path, [make_example(0)])
    text = json.dumps(make_example(0, caption_0="the dog\u2028barks"), ensure_ascii=False)
    (tmp_path / "examples.jsonl").write_text(text, encoding="utf-8")
    assert draw(tmp_path)[0][0].captions == ("the dog barks",)


@needs_pyarrow
def test_unknown_columns_are_an_error_with_actual_and_expected_columns(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", {"image": [b""], "answer": [["a cat"]]})
    message = refused(tmp_path)
    for word in ("a.parquet", "image, answer", "caption_0", "image_1"):
        assert word in message


@needs_pyarrow
def test_gated_access_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.hub.cache_problem", lambda *_, **__: "not cached")
    dataset = find_dataset("winoground")
    reason = dataset.unavailable(Source()) or ""
    assert reason.startswith("no directory was given and facebook/winoground is not in the local cache")
    for word in (
        "--phase-data winoground=DIR",
        "VLM_PHASE_WINOGROUND",
        "gated",
        "licence",
        "token",
        "--phase-download",
    ):
        assert word in reason
    assert "contains no Winoground" in (dataset.unavailable(Source(tmp_path)) or "")
    assert dataset.unavailable(Source(download=True)) is None


@needs_pyarrow
@needs_real_data
def test_real_items_are_the_same_from_files_and_from_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").symlink_to(find_real_data("winoground") / "data" / "test-00000-of-00001.parquet")
    listed, left_out = draw(find_real_data("winoground"), 400)
    tabled, none = draw(tmp_path, 400)
    assert not left_out
    assert not none
    assert len(listed) == 16
    assert [(s.id, s.captions, s.cluster) for s in listed] == [(s.id, s.captions, s.cluster) for s in tabled]
    for k, (file, cell) in enumerate(zip(listed, tabled, strict=True)):
        assert file.id == f"{listed[k - k % 2].cluster}-{k % 2}"
        assert (np.asarray(file.load_image()) == np.asarray(cell.load_image())).all()
    assert len({s.load_image().tobytes() for s in listed}) == 16


@needs_real_data
def test_packed_real_images_are_an_error_that_requests_unzipping(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("examples.jsonl", "images.zip"):
        (tmp_path / "data" / name).symlink_to(find_real_data("winoground") / "data" / name)
    assert "unzip it there" in refused(tmp_path)
    with zipfile.ZipFile(tmp_path / "data" / "images.zip") as packed:
        packed.extractall(tmp_path / "data")
    unpacked, listed = draw(tmp_path)[0], draw(find_real_data("winoground"))[0]
    assert [s.load_image().tobytes() for s in unpacked] == [s.load_image().tobytes() for s in listed]
