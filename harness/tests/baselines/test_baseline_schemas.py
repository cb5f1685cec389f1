"""Baselines of schema 1 are read and updated like those of the current schema; other schemas are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.baselines.field_changes import write_timing
from harness.baselines.store import read_baseline, write_baseline
from harness.baselines.stored_files import SCHEMA, BaselineError, read_json, write_files
from harness.judgement.phases import phases_of
from harness.profile.profile import Profile
from harness.tests.support.synthetic_profiles import synthetic_profile

# Keys of schema 1 that differ, all of them below `phases`.
FORMER_KEYS = {
    "confirmed_segment_count": "certified_moves",
    "confirmed_segment_counts": "certified_moves_at",
    "confirmed_segments": "certified_chain",
    "segment_counts": "moves_at",
    "curve_differences": "curves_beyond",
    "control_differences": "beyond",
    "quantity": "what",
    "confirmed": "certain",
}


def to_former_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {FORMER_KEYS.get(key, key): to_former_keys(inner) for key, inner in value.items()}
    return [to_former_keys(inner) for inner in value] if isinstance(value, list) else value


@pytest.fixture
def profile() -> Profile:
    return synthetic_profile()


@pytest.fixture
def current(tmp_path: Path, profile: Profile) -> Path:
    return write_baseline(tmp_path, profile, {"cpu": 1.5}, phases_of(profile))


def write_schema(path: Path, schema: int) -> None:
    content = read_json(path)
    write_files(path, {**content, "schema": schema, "phases": to_former_keys(content["phases"])})


def test_a_baseline_of_schema_1_is_read_like_a_current_one(current: Path) -> None:
    expected = read_baseline(current)
    assert read_json(current)["schema"] == SCHEMA == 2
    write_schema(current, 1)
    assert "certified_moves" in json.loads(current.read_text(encoding="utf-8"))["phases"]
    stored = read_baseline(current)
    assert stored.margins == expected.margins
    assert stored.timing == {"cpu": 1.5}
    assert (stored.profile["inter"] == expected.profile["inter"]).all()
    write_timing(stored, "cuda", 1.2)
    assert read_baseline(current).timing == {"cpu": 1.5, "cuda": 1.2}


def test_an_update_of_a_baseline_of_schema_1_writes_the_current_schema(current: Path, profile: Profile) -> None:
    write_schema(current, 1)
    stored = read_baseline(current)
    path = write_baseline(current.parents[1], profile, {}, phases_of(profile), previous=stored)
    assert path == current
    assert read_json(path)["schema"] == SCHEMA
    assert read_json(path)["phases"].keys().isdisjoint(FORMER_KEYS.values())


@pytest.mark.parametrize("schema", [0, 3, "1", None])
def test_another_schema_is_refused_with_the_remedy(current: Path, schema: Any) -> None:
    write_schema(current, schema)
    with pytest.raises(BaselineError, match=rf"has schema {schema}, this version reads 1 and 2; "):
        read_baseline(current)
