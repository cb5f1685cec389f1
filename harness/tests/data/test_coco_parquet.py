"""COCO Captions from the parquet files of the hub, in both layouts."""

from __future__ import annotations

import importlib.util
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.data.datasets import find_dataset
from harness.data.parquet import TableSize, read_rows
from harness.data.sample import DataError, Source
from harness.hub import Snapshot
from harness.tests.support.coco_files import draw, draw_error, image_file_name, write_split
from harness.tests.support.photographs import encode_image, find_real_data, needs_pyarrow, needs_real_data, write_table

pytestmark = needs_pyarrow


def decoded(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def row(number: int, **values: Any) -> dict[str, Any]:
    name = f"COCO_val2014_{number:012d}.jpg"
    return {"image": {"bytes": encode_image(name, "JPEG"), "path": None}, **values}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    write_table(path, {column: [r[column] for r in rows] for column in rows[0]})


@pytest.mark.parametrize("column", ["file_name", "question_id", "id"])
def test_parquet_with_a_list_of_captions(tmp_path: Path, column: str) -> None:
    write_split(tmp_path / "official", "val2014")
    official = {s.id: s for s in draw(tmp_path / "official")[0]}
    rows = []
    for k in range(1, 9):
        name: Any = k if column == "id" else image_file_name("val2014", k)
        captions = list(official[f"coco-{k}"].captions)
        rows.append(row(k, answer=[" ", *captions] if k != 4 else [], **{column: name}))
    write_rows(tmp_path / "hub" / "data" / "val-00000-of-00002.parquet", rows[:5])
    write_rows(tmp_path / "hub" / "data" / "val-00001-of-00002.parquet", rows[5:])
    samples, left_out = draw(tmp_path / "hub")
    assert left_out == {"coco-4": "no captions"}
    assert [s.id for s in samples] == [name for name in official if name != "coco-4"], "one order for both layouts"
    for sample in samples:
        assert sample.captions == official[sample.id].captions
        assert (np.asarray(sample.load_image()) == np.asarray(official[sample.id].load_image())).all()


@pytest.mark.parametrize("shape", ["structure", "list", "texts"])
def test_parquet_with_a_row_for_each_caption(tmp_path: Path, shape: str) -> None:
    rows = []
    for j in range(3):
        for k in (1, 2, 3):
            sentence: Any = {"raw": f"caption {j} of {k} ", "tokens": ["caption"]}
            sentence = {"structure": sentence, "list": [sentence], "texts": [sentence["raw"]]}[shape]
            rows.append(row(k, sentences=sentence, cocoid=k, imgid=100 + k, filename=f"{k}.jpg"))
    write_rows(tmp_path / "train" / "0000.parquet", rows)
    samples, left_out = draw(tmp_path)
    assert not left_out
    assert sorted(s.id for s in samples) == ["coco-1", "coco-2", "coco-3"]
    for sample in samples:
        number = sample.id.removeprefix("coco-")
        assert sample.captions == tuple(f"caption {j} of {number}" for j in range(3))
        assert sample.load_image().size == (24, 24)


def test_broken_and_empty_images_in_parquet_are_named(tmp_path: Path) -> None:
    rows = [row(k, answer=["a caption"], file_name=f"{k}.jpg") for k in (1, 2, 3, 4)]
    rows[0]["image"]["bytes"] = rows[0]["image"]["bytes"][:-200]
    rows[1]["image"]["bytes"] = None
    rows[3]["image"] = None
    write_rows(tmp_path / "a.parquet", rows)
    samples, left_out = draw(tmp_path)
    assert [s.id for s in samples] == ["coco-3"]
    assert left_out["coco-1"].startswith("a.parquet row group 0 row 0 image is broken or truncated")
    assert left_out["coco-2"] == "a.parquet row group 0 row 1 image holds no bytes"
    assert left_out["coco-4"] == "a.parquet row group 1 row 0 image holds no bytes"


def test_each_row_of_a_long_row_group_has_its_own_image(tmp_path: Path) -> None:
    rows = [row(k, answer=["a caption"], id=k) for k in range(50)]
    write_table(tmp_path / "a.parquet", {c: [r[c] for r in rows] for c in rows[0]}, rows_in_group=40)
    samples, left_out = draw(tmp_path)
    assert len(samples) == 50
    assert not left_out
    for sample in samples:
        name = image_file_name("val2014", int(sample.id.removeprefix("coco-")))
        assert (np.asarray(sample.load_image()) == np.asarray(decoded(encode_image(name, "JPEG")))).all()


@pytest.mark.parametrize("structure", [False, True])
def test_images_shared_by_rows_are_read_from_a_dictionary(tmp_path: Path, structure: bool) -> None:
    """Tables with a row for each caption may store the image column as a dictionary."""
    import pyarrow
    import pyarrow.parquet

    images = pyarrow.array([encode_image("a"), encode_image("a"), encode_image("b"), None]).dictionary_encode()
    columns = {
        "image": pyarrow.StructArray.from_arrays([images], ["bytes"]) if structure else images,
        "answer": pyarrow.array(["one", "two", "three", "four"]),
        "id": pyarrow.array([1, 1, 2, 3]),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    samples, left_out = draw(tmp_path)
    assert {sample.id: sample.captions for sample in samples} == {"coco-1": ("one", "two"), "coco-2": ("three",)}
    assert left_out == {"coco-3": "a.parquet row group 0 row 3 image holds no bytes"}


def test_a_row_group_of_a_common_size_is_read(tmp_path: Path) -> None:
    rows = 512 * 512
    write_table(tmp_path / "a.parquet", {"id": range(rows)}, rows_in_group=rows)
    assert sum(1 for _ in read_rows(tmp_path / "a.parquet", ["id"], TableSize())) == rows


def test_samples_are_pickled_without_their_images(tmp_path: Path) -> None:
    write_split(tmp_path / "official", "val2017")
    write_rows(tmp_path / "hub" / "a.parquet", [row(1, answer=["a caption"], file_name="1.jpg")])
    for directory in (tmp_path / "official", tmp_path / "hub"):
        sample = draw(directory)[0][0]
        packed = pickle.dumps(sample)
        assert len(packed) < 800
        assert (np.asarray(pickle.loads(packed).load_image()) == np.asarray(sample.load_image())).all()  # noqa: S301


def test_unknown_columns_are_an_error_with_actual_and_expected_columns(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", {"image": [b""], "text": ["a cat"]})
    message = draw_error(tmp_path)
    for word in ("a.parquet", "image, text", "answer", "sentences", "cocoid"):
        assert word in message


def test_a_file_that_is_not_parquet_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"version https://git-lfs")
    assert "a.parquet cannot be read as parquet" in draw_error(tmp_path)


def without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("harness.data.parquet.find_spec", lambda name: None if name == "pyarrow" else find_spec(name))


def test_missing_pyarrow_is_an_error_with_the_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path / "a.parquet", [row(1, answer=["a caption"], file_name="1.jpg")])
    without_pyarrow(monkeypatch)
    assert "pip install 'vlm-phase-harness[hub]'" in draw_error(tmp_path)


def test_without_any_copy_the_error_names_the_remedies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.hub.cache_problem", lambda *_, **__: "not cached")
    dataset = find_dataset("coco-captions")
    reason = dataset.unavailable(Source()) or ""
    assert reason == (
        "no directory was given and lmms-lab/COCO-Caption is not in the local cache, or incomplete: give the official "
        "layout with --phase-data coco-captions=DIR (or the variable VLM_PHASE_COCO), or add --phase-download, 6.6 GB"
    )
    with pytest.raises(DataError, match="no directory was given and"):
        dataset.draw(1, 0, Source())
    assert "contains no COCO Captions" in (dataset.unavailable(Source(tmp_path)) or "")
    assert dataset.unavailable(Source(download=True)) is None
    without_pyarrow(monkeypatch)
    assert "pip install" in (dataset.unavailable(Source(download=True)) or "")


@pytest.mark.parametrize("download", [False, True])
def test_a_snapshot_of_the_hub_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, download: bool) -> None:
    write_rows(tmp_path / "data" / "val-00000-of-00001.parquet", [row(7, answer=["a caption"], file_name="7.jpg")])
    requests = []

    def find_snapshot(repository: str, kind: str, patterns: tuple[str, ...], *, download: bool) -> Snapshot:
        requests.append((repository, kind, patterns, download))
        return Snapshot(tmp_path, "0" * 40)

    monkeypatch.setattr("harness.hub.cache_problem", lambda *_, **__: None)
    monkeypatch.setattr("harness.hub.find_snapshot", find_snapshot)
    source = Source(download=download)
    assert find_dataset("coco-captions").unavailable(source) is None
    assert [s.id for s in find_dataset("coco-captions").draw(5, 0, source)] == ["coco-7"]
    assert requests == [("lmms-lab/COCO-Caption", "dataset", ("data/val-*.parquet",), download)]


@needs_real_data
def test_real_photographs_are_the_same_in_both_hub_layouts(tmp_path: Path) -> None:
    official = draw(find_real_data("coco"), 400)[0]
    folder = find_real_data("coco") / "train2017"
    lists, singles = [], []
    for sample in official[:12]:
        number = int(sample.id.removeprefix("coco-"))
        image = {"bytes": (folder / f"{number:012d}.jpg").read_bytes(), "path": None}
        lists.append(
            {"image": image, "answer": list(sample.captions), "file_name": f"COCO_train2014_{number:012d}.jpg"}
        )
        singles += [{"image": image, "sentences": {"raw": text}, "cocoid": number} for text in sample.captions]
    write_rows(tmp_path / "lists" / "a.parquet", lists)
    write_rows(tmp_path / "singles" / "a.parquet", singles)
    expected = {s.id: s for s in official[:12]}
    from_lists, from_singles = (draw(tmp_path / name)[0] for name in ("lists", "singles"))
    assert [s.id for s in from_lists] == [s.id for s in from_singles]
    assert {s.id for s in from_lists} == set(expected)
    for sample in (*from_lists, *from_singles):
        assert sample.captions == expected[sample.id].captions
        assert (np.asarray(sample.load_image()) == np.asarray(expected[sample.id].load_image())).all()
