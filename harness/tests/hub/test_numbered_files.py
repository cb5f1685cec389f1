"""Missing files of a numbered series are named, and the memory is bounded for any claimed total."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from harness.hub import find_missing_files

PATTERNS = ["*.safetensors", "*.parquet", "*.json"]


def missing_beside(folder: Path, *names: str) -> list[str]:
    """Return the files that are missing beside files with these names."""
    (folder / "config.json").touch()
    (folder / "a.parquet").touch()
    (folder / "a.safetensors").touch()
    for name in names:
        (folder / name).touch()
    return find_missing_files(folder, PATTERNS)


@pytest.mark.parametrize("total", ["80000000", "9" * 200])
def test_a_file_name_that_claims_millions_of_shards_uses_little_memory(tmp_path: Path, total: str) -> None:
    tracemalloc.start()
    try:
        missing = missing_beside(tmp_path, f"model-00001-of-{total}.safetensors")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert f"model-00002-of-{total}.safetensors" in missing
    assert len(missing) == 10_000
    assert peak < 20e6


@pytest.mark.slow
def test_many_such_names_together_use_little_memory(tmp_path: Path) -> None:
    missing = missing_beside(tmp_path, *(f"model-00001-of-8000{i:04}.safetensors" for i in range(2000)))
    assert len(missing) == 10_000


@pytest.mark.slow
def test_the_missing_last_file_of_a_long_series_is_named(tmp_path: Path) -> None:
    tables = [f"train-{i:05}-of-12000.parquet" for i in range(12_000)]
    assert missing_beside(tmp_path, *tables[:-1]) == tables[-1:]
    (tmp_path / tables[-1]).touch()
    assert missing_beside(tmp_path) == []


def test_weights_are_counted_from_one_and_tables_from_zero(tmp_path: Path) -> None:
    names = ("model-2-of-3.safetensors", "test-0-of-3.parquet")
    others = ["model-1-of-3.safetensors", "model-3-of-3.safetensors", "test-1-of-3.parquet", "test-2-of-3.parquet"]
    assert missing_beside(tmp_path, *names) == others


@pytest.mark.parametrize("content", [[], {}, {"weight_map": {"a": 5}}, {"weight_map": {"a": []}}, {"weight_map": 3}])
def test_an_index_without_file_names_counts_as_missing(tmp_path: Path, content: object) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(content))
    assert missing_beside(tmp_path) == ["model.safetensors.index.json"]
