"""Hostile parquet files: values that Python cannot represent, and few bytes that unpack to gigabytes."""

from __future__ import annotations

import decimal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.data import parquet as tables
from harness.tests.support.hostile_tables import HUGE, IMAGE, ROWS, draw, draw_error, write_captions
from harness.tests.support.photographs import encode_image, needs_pyarrow

pytestmark = needs_pyarrow


def no_text(count: int = 2) -> Any:
    """Return texts, the first of which is not valid UTF-8."""
    import pyarrow

    content = pyarrow.array([b"\xff\xfe bad", *[b"2"] * (count - 1)])
    return pyarrow.Array.from_buffers(pyarrow.string(), count, content.buffers())


def same_text(count: int, text: str = HUGE) -> Any:
    """Return an array of equal texts that is stored as one text."""
    import pyarrow

    return pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(count, np.int32)), pyarrow.array([text]))


def in_first_row(values: Any) -> Any:
    """Return a list of all values in the first of two rows, and none in the second."""
    import pyarrow

    return pyarrow.ListArray.from_arrays(pyarrow.array([0, len(values), len(values)], pyarrow.int32()), values)


def extreme(kind: str) -> Any:
    """Return two values, the first of which Python cannot represent."""
    import pyarrow

    if kind == "decimal":
        return pyarrow.array([decimal.Decimal(10) ** 70, decimal.Decimal(1)], pyarrow.decimal256(76, 0))
    if kind == "date":
        return pyarrow.array([2**31 - 1, 5], pyarrow.int32()).view(pyarrow.date32())
    types = {
        "timestamp": pyarrow.timestamp("us"),
        "nanoseconds": pyarrow.timestamp("ns"),
        "zone": pyarrow.timestamp("us", tz="Mars/Base"),
        "duration": pyarrow.duration("s"),
        "time": pyarrow.time64("us"),
    }
    return pyarrow.array([2**62 + 1, 5]).view(types[kind])


KINDS = ["decimal", "date", "timestamp", "nanoseconds", "zone", "duration", "time"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_that_python_cannot_represent_is_an_error_with_one_sentence(tmp_path: Path, kind: str) -> None:
    write_captions(tmp_path, columns={"id": extreme(kind)})
    assert "a.parquet row 0 of row group 0: the row has no id (an id is " in draw_error(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_captions_that_are_not_text_are_ignored(tmp_path: Path, kind: str) -> None:
    write_captions(tmp_path, columns={"answer": extreme(kind)})
    assert "no caption is text" in draw_error(tmp_path)


def test_a_row_whose_id_is_not_utf8_is_excluded(tmp_path: Path) -> None:
    write_captions(tmp_path, columns={"id": no_text()})
    samples, left_out = draw(tmp_path)
    assert [sample.id for sample in samples] == ["coco-2"]
    assert list(left_out) == ["coco-a.parquet row 0 of row group 0"]
    assert "the row has no id (an id is unreadable ('utf-8' codec can't decode" in next(iter(left_out.values()))


@pytest.mark.parametrize("listed", [False, True])
def test_a_row_whose_caption_is_not_utf8_is_excluded(tmp_path: Path, listed: bool) -> None:
    import pyarrow

    texts = no_text()
    lists = pyarrow.ListArray.from_arrays(pyarrow.array([0, 1, 2], pyarrow.int32()), texts)
    write_captions(tmp_path, columns={"answer": lists if listed else texts})
    samples, left_out = draw(tmp_path)
    assert ([sample.id for sample in samples], left_out) == (["coco-1"], {"coco-0": "no caption is text"})


def test_winoground_items_with_invalid_captions_are_excluded(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {f"image_{side}": [encode_image(f"{row}{side}") for row in range(3)] for side in (0, 1)}
    texts = {"caption_0": no_text(3), "caption_1": ["x", "y", "z" * 20_000], "id": [1, 2, 3]}
    pyarrow.parquet.write_table(pyarrow.table(columns | texts), tmp_path / "a.parquet")
    samples, left_out = draw(tmp_path, dataset="winoground")
    assert [sample.cluster for sample in samples] == ["winoground-2"] * 2
    assert left_out["winoground-1-0"] == "caption_0 is not text"
    assert left_out["winoground-3-0"] == "caption_1: a caption has more than 10,000 characters"


@pytest.mark.parametrize("column", ["answer", "id"])
def test_a_text_stored_once_for_all_rows_is_counted_in_each(tmp_path: Path, column: str) -> None:
    """The file has 200 kB and unpacks to 10 GB."""
    write_captions(tmp_path, 10_000, {column: same_text(10_000)}, store_schema=False, compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 200_000
    assert "bytes of captions and ids, more than the limit of 1,000,000,000" in draw_error(tmp_path)


def test_a_repeated_text_in_a_list_is_counted_once_per_entry(tmp_path: Path) -> None:
    """The file has 511 bytes and unpacks to 100 GB, in one row."""
    write_captions(
        tmp_path, columns={"answer": in_first_row(same_text(100_000))}, store_schema=False, compression="zstd"
    )
    assert "100,000,000,002 bytes of captions and ids" in draw_error(tmp_path)


def test_millions_of_empty_captions_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_VALUES", 100_000)
    write_captions(tmp_path, columns={"answer": in_first_row(same_text(100_001, ""))}, store_schema=False)
    assert "values in the columns of captions and ids, more than the limit of 100,000" in draw_error(tmp_path)


@pytest.mark.slow
def test_a_table_of_thirty_million_rows_is_refused_at_once(tmp_path: Path) -> None:
    """The file has 300 kB. Reading all rows would take minutes."""
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([("image", pyarrow.binary()), ("answer", pyarrow.string()), ("id", pyarrow.string())])
    part = 1_000_000
    table = pyarrow.table([[b""] * part, ["a dog"] * part, ["7"] * part], schema=schema)
    with pyarrow.parquet.ParquetWriter(tmp_path / "a.parquet", schema, compression="zstd") as writer:
        for _ in range(30):
            writer.write_table(table)
    assert (tmp_path / "a.parquet").stat().st_size < 350_000
    before = time.process_time()
    message = "a.parquet: the tables have 30,000,000 rows, more than the limit of 5,000,000; remove some files"
    assert message in draw_error(tmp_path)
    assert time.process_time() - before < 5


def test_the_rows_of_all_files_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        write_captions(tmp_path / name, 3)
    monkeypatch.setattr(tables, "MOST_ROWS", 6)
    assert len(draw(tmp_path)[0]) == 3
    monkeypatch.setattr(tables, "MOST_ROWS", 5)
    assert "b/a.parquet: the tables have 6 rows" in draw_error(tmp_path)


@pytest.mark.parametrize(
    ("bound", "reason"), [("_MOST_GROUPS", "has 3 row groups"), ("_MOST_ROWS_IN_GROUP", "has a row group of 3 rows")]
)
def test_row_groups_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, reason: str) -> None:
    write_captions(tmp_path, 3, row_group_size=1 if bound == "_MOST_GROUPS" else 3)
    monkeypatch.setattr(tables, bound, 2)
    assert f"{reason}: write it with 2 or fewer" in draw_error(tmp_path)


def test_a_false_row_count_is_an_error_with_one_sentence(tmp_path: Path) -> None:
    """The footer claims 10^12 rows, for the file or for its row group."""
    write_captions(tmp_path, ROWS)
    path = tmp_path / "a.parquet"
    content = path.read_bytes()
    count, many = varint(2 * (ROWS)), varint(2 * 10**12)
    size = int.from_bytes(content[-8:-4], "little")
    footer = content[-8 - size : -8]
    assert footer.count(count) >= 2
    for times in (1, footer.count(count)):
        changed = footer.replace(count, many, times)
        path.write_bytes(content[: -8 - size] + changed + len(changed).to_bytes(4, "little") + b"PAR1")
        assert "1,000,000,000,000 rows, more than the limit of 5,000,000" in draw_error(tmp_path)


def varint(number: int) -> bytes:
    """Return a number in the encoding of the footer: seven bits per byte, lowest bits first."""
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def test_a_row_with_a_too_large_image_is_excluded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_BYTES", 100_000)
    import pyarrow

    write_captions(tmp_path, columns={"image": pyarrow.array([b"\0" * 100_001, IMAGE])}, compression="zstd")
    samples, left_out = draw(tmp_path)
    assert [sample.id for sample in samples] == ["coco-1"]
    assert left_out == {"coco-0": "a.parquet row group 0 row 0 image is larger than 100,000 bytes"}


def test_the_number_of_broken_images_that_are_tried_is_bounded(tmp_path: Path) -> None:
    import pyarrow

    write_captions(tmp_path, 1000, {"image": pyarrow.array([b""] * 1000)})
    message = draw_error(tmp_path, 10)
    assert "none of the 200 that were tried of its 1000 images can be used, for example coco-" in message


def test_the_number_of_images_compared_for_one_id_is_bounded(tmp_path: Path) -> None:
    import pyarrow

    write_captions(
        tmp_path, 102, {"id": pyarrow.array(["7"] * 101 + ["8"]), "answer": pyarrow.array([["a dog"]] * 102)}
    )
    samples, left_out = draw(tmp_path)
    assert [sample.id for sample in samples] == ["coco-8"]
    assert left_out == {"coco-7": "101 images have this id; give each image its own id"}


@pytest.mark.parametrize("depth", [14, 30, 200])
def test_deeply_nested_lists_are_an_error_with_one_sentence(tmp_path: Path, depth: int) -> None:
    import pyarrow

    kind = pyarrow.string()
    for _ in range(depth):
        kind = pyarrow.list_(kind)
    write_captions(tmp_path, columns={"answer": pyarrow.nulls(2, kind)})
    # pyarrow has its own limit, and the wording of its message depends on the release.
    assert ("nested too deep" if depth < 100 else "cannot be read as parquet (") in draw_error(tmp_path)


@pytest.mark.parametrize("footer", [True, False], ids=["whole", "columns"])
def test_an_encrypted_file_is_an_error_with_one_sentence(tmp_path: Path, footer: bool) -> None:
    """Querying the metadata of an encrypted column would crash pyarrow's process."""
    import pyarrow
    import pyarrow.parquet

    encryption = pytest.importorskip("pyarrow.parquet.encryption", reason="this pyarrow has no encryption")

    class Keys(encryption.KmsClient):
        def __init__(self, _: Any) -> None:
            encryption.KmsClient.__init__(self)

        def wrap_key(self, key: bytes, _: str) -> bytes:
            return key.hex().encode()

    factory = encryption.CryptoFactory(Keys)
    keys = {"k": ["image", "answer", "id"] if footer else ["id"]}
    plan = encryption.EncryptionConfiguration(footer_key="k", column_keys=keys, plaintext_footer=not footer)
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), plan)
    table = pyarrow.table({"image": [IMAGE], "answer": ["a dog"], "id": ["1"]})
    with pyarrow.parquet.ParquetWriter(
        tmp_path / "a.parquet", table.schema, encryption_properties=properties
    ) as writer:
        writer.write_table(table)
    message = draw_error(tmp_path)
    assert "a.parquet cannot be read as parquet (" in message
    assert message.endswith("write it without encryption")


def test_long_column_names_are_shortened(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"\x1b[2J" * 100_000: [1]}), tmp_path / "a.parquet")
    assert r"a.parquet has the columns \x1b[2J" in draw_error(tmp_path)
    assert r"a.parquet has the columns \x1b[2J" in draw_error(tmp_path, dataset="winoground")
