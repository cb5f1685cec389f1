"""Edits of a TOML file: comments and other tables stay, names and values are read as they were written."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.storage.toml_tables import edit_tables

FILE = """\
# At the top.
[first]  # a comment
alignment = "old"  # of alignment
four-phases = '''of
[two] lines'''

# Before the second.
["the second"]
alignment = "kept"
"""
# Lone surrogates have no UTF-8 form.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["[x]", "a.b", '"', "\\\\", "\\u0041", "# no comment", "'''", "\r\n", "\x7f\x00", "=", "\u2028", ""]
)
TABLES = st.dictionaries(TEXTS, st.dictionaries(TEXTS, TEXTS, max_size=4), max_size=4)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(TABLES, TABLES)
def test_any_names_and_reasons_are_read_as_they_were_written(
    before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]
) -> None:
    text = edit_tables("", before)
    assert tomllib.loads(text) == before
    assert tomllib.loads(edit_tables(text, after)) == before | after
    assert edit_tables(text, before) == text


def test_a_table_is_edited_line_by_line() -> None:
    edited = edit_tables(FILE, {"first": {"alignment": "new", "intra-modal": "added"}, "third": {}})
    assert (
        edited
        == """\
# At the top.
[first]  # a comment
alignment = "new"
intra-modal = "added"

# Before the second.
["the second"]
alignment = "kept"

[third]
"""
    )
    assert edit_tables(FILE, {"the second": {"alignment": "kept"}}) == FILE


def test_other_spellings_of_a_table_are_replaced() -> None:
    for text in ('first.alignment = "old"\n', 'first = {alignment = "old"}', "[first]\r\n"):
        assert edit_tables(text, {"first": {"alignment": "new"}}).endswith('alignment = "new"\n')


def test_names_without_a_form_in_toml_are_refused() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        edit_tables("", {"\udc80": {}})
