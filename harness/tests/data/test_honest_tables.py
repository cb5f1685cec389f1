"""Valid parquet files with every supported column type are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.data import parquet as tables
from harness.tests.support.hostile_tables import draw, write_captions


def captions_as(kind: str) -> Any:
    import pyarrow

    text = {"large": pyarrow.large_string(), "view": pyarrow.string_view()}.get(kind, pyarrow.string())
    texts = pyarrow.array(["a dog", "a cat"], text)
    if kind == "categories":
        return texts.dictionary_encode()
    if kind == "listed-categories":
        return pyarrow.ListArray.from_arrays(pyarrow.array([0, 1, 2], pyarrow.int32()), texts.dictionary_encode())
    if kind == "structures":
        return pyarrow.array([[{"raw": text, "tokens": ["a"], "id": 7}] for text in ("a dog", "a cat")])
    if kind == "large-lists":
        return pyarrow.array([["a dog"], ["a cat"]], pyarrow.large_list(pyarrow.large_string()))
    if kind == "pairs":
        return pyarrow.array([["a dog"], ["a cat"]], pyarrow.list_(pyarrow.string(), 1))
    return texts


@pytest.mark.parametrize(
    "kind", ["plain", "large", "view", "categories", "listed-categories", "structures", "large-lists", "pairs"]
)
@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"store_schema": False}], ids=str)
def test_captions_are_read_from_every_column_type(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    write_captions(tmp_path, columns={"answer": captions_as(kind)}, **options)
    samples, left_out = draw(tmp_path)
    assert ({sample.id: sample.captions for sample in samples}, left_out) == (
        {"coco-0": ("a dog",), "coco-1": ("a cat",)},
        {},
    )


@pytest.mark.slow
def test_a_row_group_with_more_texts_than_its_dictionary_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers start with a dictionary and continue without. Large parts are converted to objects row by row."""
    import pyarrow

    texts = [[f"caption {row} {side}" + "!" * 500 for side in (0, 1)] for row in range(3000)]
    write_captions(tmp_path, 3000, {"answer": pyarrow.array(texts)}, dictionary_pagesize_limit=10_000)
    for at_once in (10**9, 1000):
        monkeypatch.setattr(tables, "_TEXT_AT_ONCE", at_once)
        samples, _ = draw(tmp_path, 50)
        for sample in samples:
            assert list(sample.captions) == texts[int(sample.id.removeprefix("coco-"))]
