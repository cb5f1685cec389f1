"""The tables of docs/record.md: every field of the record with its type and meaning, made of the record's schema.

`python -m harness.lab.docs.record_page docs/record.md` writes them between the markers `<!-- fields: begin -->` and
`<!-- fields: end -->` of the page; without a page they are printed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from harness.lab.docs.pages import compact_table, rewrite_block
from harness.report.record import record_schema
from harness.storage.templates import render

BLOCK = "fields"
_PROGRAM = "python -m harness.lab.docs.record_page"


def field_tables(schema: Mapping[str, Any]) -> str:
    """Return a section with a table for each object of a schema that has a title, in the schema's order.

    Args:
        schema: as `record.record_schema` gives it.
    """
    titled = [schema, *(section for section in schema["$defs"].values() if "title" in section)]
    sections = [{**section, "rows": _rows(section, schema)} for section in titled]
    return render("harness.lab.docs", "fields.md.jinja", {"sections": sections, "table": compact_table}).strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables into a page, or prints them; returns 0, or 2 where the page has no place for them."""
    return rewrite_block(_PROGRAM, BLOCK, field_tables(record_schema()), arguments)


def _rows(section: Mapping[str, Any], schema: Mapping[str, Any]) -> list[list[str]]:
    """Return name, type and meaning of each field of an object."""
    needed = section.get("required", ())
    rows = [
        [f"`{name}`" + ("" if name in needed else " (optional)"), _type(field, schema), field["description"]]
        for name, field in section.get("properties", {}).items()
    ]
    others = section.get("additionalProperties")
    if others:
        rows.append(["any other name", _type(others, schema), others["description"]])
    return rows


def _type(field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return the type of a field as the page explains it; an object that has a section of its own is linked."""
    if "$ref" in field:
        found: Mapping[str, Any] = schema["$defs"][field["$ref"].rpartition("/")[2]]
        return _link(found) if "title" in found else _type(found, schema)
    if "anyOf" in field:
        return " or ".join(_type(one, schema) for one in field["anyOf"])
    if "const" in field or "enum" in field:
        values = field.get("enum", [field.get("const")])
        return " or ".join("null" if value is None else f"`{value}`" for value in values)
    kinds = [field["type"]] if isinstance(field.get("type"), str) else list(field.get("type", ()))
    return " or ".join(_of_kind(kind, field, schema) for kind in kinds) or "anything"


def _of_kind(kind: str, field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if kind == "array" and "prefixItems" in field:
        return f"[{', '.join(_type(one, schema) for one in field['prefixItems'])}]"
    if kind == "array":
        items, count = _type(field["items"], schema), field.get("maxItems", "")
        return f"({items})[{count}]" if " or " in items and not items.endswith("]") else f"{items}[{count}]"
    if kind == "object":
        fields = field["properties"].values() if "properties" in field else [field["additionalProperties"]]
        return f"{{name: {' or '.join(dict.fromkeys(_type(one, schema) for one in fields))}}}"
    return kind


def _link(section: Mapping[str, Any]) -> str:
    title: str = section["title"]
    return f"[{title[0].lower()}{title[1:]}](#{title.lower().replace(' ', '-')})"


if __name__ == "__main__":
    sys.exit(main())
