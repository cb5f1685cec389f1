"""File names for names from outside the project: unique for each text and valid on every system."""

from __future__ import annotations

import ntpath
import re
import unicodedata
from pathlib import PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.storage.file_names import (
    BASELINE_ENDING,
    LONGEST_NAME,
    LONGEST_SHOWN,
    FileNames,
    file_name,
    folded_name,
    short_name,
)

#: Any text that Python can represent, including half of a surrogate pair.
TEXTS = st.text(st.characters(codec=None, exclude_categories=()), max_size=300)
#: Texts that are easily confused.
ALIKE = st.text("aA.-_~ /\\:\0\n\u202e\u00e9e\u0301\uff41\u7532\u4e59", max_size=4)
DEVICES = ["NUL", "con", "Aux", "PRN", "COM1", "lpt9", "com0", "COM\u00b9", "nul.txt", "CON.a.b"]


def is_valid(name: str, longest: int) -> bool:
    """Return True if the name is valid on every system, as far as this version of Python knows Windows' rules."""
    # Earlier versions of Python only know the device names of Windows.
    reserved = ntpath.isreserved(name) if hasattr(ntpath, "isreserved") else PureWindowsPath(name).is_reserved()
    return (
        0 < len(name) <= len(name.encode()) <= longest
        and not reserved
        and not re.search(r'[<>:"/\\|?*\x00-\x1f\x7f]', name)
        and name.isprintable()
        and name[-1] not in ". "
        and name[0] not in ".- "
        and unicodedata.is_normalized("NFC", name)
    )


@given(TEXTS, st.booleans(), st.sampled_from([0, BASELINE_ENDING]))
@example("", False, 0)
@example("x" * 10_000, True, 0)
@example("\u7532" * 300, False, BASELINE_ENDING)
@example("con." + "x" * 300, False, 0)
def test_every_text_has_a_file_name_that_is_valid_on_every_system(text: str, ascii_only: bool, ending: int) -> None:
    name = file_name(text, ascii_only=ascii_only, ending=ending)
    assert is_valid(name, LONGEST_NAME - ending)
    assert name.isascii() or not ascii_only
    assert name == file_name(text, ascii_only=ascii_only, ending=ending)


@given(ALIKE, ALIKE, st.booleans())
@example("\u6a21\u578b-\u7532", "\u6a21\u578b-\u4e59", True)
@example("\u00e9", "e\u0301", False)
@example("a b", "a-b", False)
def test_different_texts_have_different_file_names(first: str, second: str, ascii_only: bool) -> None:
    names = {file_name(text, ascii_only=ascii_only) for text in (first, second)}
    assert len(names) == len({first, second})


@given(TEXTS | st.sampled_from(DEVICES), st.booleans())
def test_no_text_keeps_a_name_that_another_text_is_altered_to(text: str, ascii_only: bool) -> None:
    name = file_name(text, ascii_only=ascii_only)
    if name != text:
        assert file_name(name, ascii_only=ascii_only) != name


@pytest.mark.parametrize("text", DEVICES)
def test_device_names_of_windows_are_altered(text: str) -> None:
    assert file_name(text) != text
    assert is_valid(file_name(text), LONGEST_NAME)


@pytest.mark.parametrize("text", ["scenes-llava", "llava-1.5-7b", "Qwen2.5-VL_7B", "x" * LONGEST_NAME, "console", "_a"])
def test_a_valid_name_is_unchanged(text: str) -> None:
    assert file_name(text) == file_name(text, ascii_only=True) == text


def test_letters_of_every_script_are_kept_unless_ascii_is_required() -> None:
    for text in ("\u6a21\u578b-\u7532", "mod\u00e8le", "\u043c\u043e\u0434\u0435\u043b\u044c"):
        assert file_name(text) == text
        assert file_name(text, ascii_only=True) != text


@given(st.lists(ALIKE, max_size=20))
@example(["LLaVA", "llava", "LLaVA", "llava 2", "llava~1"])
def test_names_in_one_directory_differ_even_if_case_is_ignored(texts: list[str]) -> None:
    names = FileNames({folded_name("main")})
    added = [names.add(text, "inter") for text in texts]
    assert len({folded_name(name) for name in added}) == len(texts)
    assert all(is_valid(f"{name}.svg", LONGEST_NAME) and name.endswith("-inter") for name in added)


def test_a_long_name_is_shortened_and_stays_unique() -> None:
    assert short_name("x" * LONGEST_SHOWN) == "x" * LONGEST_SHOWN
    cut = short_name("x" * 300)
    assert re.fullmatch(r"x{64}\.\.\.~[0-9a-f]{12}", cut)
    assert len(cut) == LONGEST_SHOWN
    assert cut.endswith(file_name("x" * 300)[-13:])
    assert cut != short_name("x" * 150 + "y" + "x" * 149)
