"""Texts from outside the project are shown with bounded length."""

from __future__ import annotations

from harness.errors import LONGEST_TEXT, MOST_TEXTS, PhaseError, shorten, shorten_texts


def test_the_middle_of_a_long_text_is_omitted() -> None:
    assert shorten("a" * LONGEST_TEXT) == "a" * LONGEST_TEXT
    ten = "abcdefghij"
    assert shorten(ten * 20, 90) == f"{ten * 3}... (160 characters left out) ...{ten}"
    assert shorten("a" * 48_000_000).startswith("a" * 1_463 + "... (47,998,050 characters left out) ...")


def test_shortening_a_text_twice_keeps_the_count_of_omitted_characters() -> None:
    """Captions are shortened for the record and again for the page."""
    once = shorten("a" * 3_000)
    assert len(once) <= LONGEST_TEXT
    assert "(1,050 characters left out)" in once
    assert shorten(once) == once


def test_of_many_texts_the_first_are_shown_and_the_others_counted() -> None:
    assert shorten_texts(["a", "b" * 70], 54) == ["a", "bbb... (66 characters left out) ...b"]
    many = shorten_texts(["a"] * 500_000)
    assert len(many) == MOST_TEXTS + 1
    assert many[-1] == "... (499,900 more left out)"


def test_a_long_error_keeps_its_beginning_and_its_remedy() -> None:
    message = str(PhaseError(f"the sample {'x' * 1_000_000}\x1b is broken; remove it"))
    assert message.startswith("the sample xxx")
    assert message.endswith("\\x1b is broken; remove it")
    assert len(message) <= LONGEST_TEXT + 3
