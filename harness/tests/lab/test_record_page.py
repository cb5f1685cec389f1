"""The schema of the record describes every field with the names of the code, and the page equals the schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from harness.analysis.claims import CLAIMS
from harness.baselines.mean_curves import shown_measures
from harness.judgement.phases import CLAIM_NAMES
from harness.lab.docs.record_page import BLOCK, field_tables, main
from harness.profile.measures import FAMILIES, PHASE_CURVES
from harness.report.record import bands, record_schema
from harness.tests.support.case_runs import ROOT
from harness.tests.support.page_blocks import read_block
from harness.tests.support.synthetic_profiles import synthetic_profile

SCHEMA = record_schema()
PAGE = ROOT / "docs" / "record.md"


def objects(schema: Any, path: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each part of a schema that has properties, with its path."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and "type" in schema:
            yield path, schema
        for name, part in schema.items():
            yield from objects(part, f"{path}/{name}")
    elif isinstance(schema, list):
        for index, part in enumerate(schema):
            yield from objects(part, f"{path}/{index}")


def test_every_field_is_described_and_extra_fields_are_declared() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    parts = dict(objects(SCHEMA))
    assert len(parts) > 20
    for path, part in parts.items():
        assert "additionalProperties" in part, path
        for name, field in part["properties"].items():
            assert re.fullmatch(r"\S.*\.", field.get("description", "")), f"{path}/{name}"
    for name, part in SCHEMA["$defs"].items():
        if part.get("type") == "object" and "properties" in part:
            assert {"title", "description"} <= part.keys(), name


def test_the_schema_has_the_names_of_the_code() -> None:
    defs = SCHEMA["$defs"]
    profile = synthetic_profile()
    assert set(defs["means"]["properties"]) == set(shown_measures(profile))
    # Any other measure may be absent.
    assert tuple(defs["means"]["required"]) == PHASE_CURVES
    assert set(defs["pair"]["properties"]["bands"]["propertyNames"]["enum"]) == set(bands(profile))
    assert set(defs["phases"]["properties"]["claims"]["required"]) == set(CLAIMS)
    questions = defs["verdict"]["properties"]["question"]["enum"]
    assert set(questions) == {*CLAIM_NAMES, *FAMILIES, "boundaries", "intervals"}
    measures = {measure.name for family in FAMILIES.values() for measure in family.measures}
    assert set(defs["family"]["propertyNames"]["enum"]) == {"n", "inputs", "not_compared"} | measures


def test_the_page_equals_the_schema(tmp_path: Path) -> None:
    assert read_block(PAGE.read_text(encoding="utf-8"), BLOCK) == field_tables(SCHEMA)
    copied = tmp_path / "record.md"
    copied.write_text(PAGE.read_text(encoding="utf-8").replace("| `seed` |", "| `sed` |"), encoding="utf-8")
    assert main([str(copied)]) == 0
    assert copied.read_bytes() == PAGE.read_bytes()
    text = field_tables(SCHEMA)
    titles = {title.lower().replace(" ", "-") for title in re.findall(r"^### (.+)$", text, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= titles
