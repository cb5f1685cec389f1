"""The tables of docs/record.md, generated from the record's schema: each field with its type and meaning.

`python -m harness.lab.docs.record_page docs/record.md` writes them between the markers `<!-- fields: begin -->` and
`<!-- fields: end -->` of the page. Without a page, the tables are printed.
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
    """Return a section with a table for each titled object of a schema, in the schema's order.

    Args:
        schema: the result of `record.record_schema`.
    """
    titled = [schema, *(section for section in schema["$defs"].values() if "title" in section)]
    sections = [{**section, "rows": _rows(section, schema)} for section in titled]
    return render("harness.lab.docs", "fields.md.jinja", {"sections": sections, "table": compact_table}).strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables into a page or print them; return 0, or 2 if the page lacks the markers."""
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
    """Return the type of a field as text; an object with its own section becomes a link."""
    if "$ref" in field:
        target: Mapping[str, Any] = schema["$defs"][field["$ref"].rpartition("/")[2]]
        return _link(target) if "title" in target else _type(target, schema)
    if "anyOf" in field:
        return " or ".join(_type(option, schema) for option in field["anyOf"])
    if "const" in field or "enum" in field:
        values = field.get("enum", [field.get("const")])
        return " or ".join("null" if value is None else f"`{value}`" for value in values)
    kinds = [field["type"]] if isinstance(field.get("type"), str) else list(field.get("type", ()))
    return " or ".join(_kind_text(kind, field, schema) for kind in kinds) or "anything"


def _kind_text(kind: str, field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if kind == "array" and "prefixItems" in field:
        return f"[{', '.join(_type(item, schema) for item in field['prefixItems'])}]"
    if kind == "array":
        items, count = _type(field["items"], schema), field.get("maxItems", "")
        return f"({items})[{count}]" if " or " in items and not items.endswith("]") else f"{items}[{count}]"
    if kind == "object":
        fields = field["properties"].values() if "properties" in field else [field["additionalProperties"]]
        return f"{{name: {' or '.join(dict.fromkeys(_type(member, schema) for member in fields))}}}"
    return kind


def _link(section: Mapping[str, Any]) -> str:
    title: str = section["title"]
    return f"[{title[0].lower()}{title[1:]}](#{title.lower().replace(' ', '-')})"


if __name__ == "__main__":
    sys.exit(main())
