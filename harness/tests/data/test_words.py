from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.data.order import scenes_order
from harness.data.scenes import BACKGROUNDS, COLOURS, RADII, SHAPES, scenes
from harness.data.words import STOP_WORDS, content_words, stem

sentences = st.lists(st.text(alphabet="abcdeginorst '-.,AÉé0", max_size=40), max_size=5)


def test_function_words_are_removed_and_spatial_words_kept() -> None:
    assert content_words(["The small red circle is left of a large blue square."]) == (
        "blue",
        "circle",
        "large",
        "left",
        "red",
        "small",
        "square",
    )
    assert not STOP_WORDS & {"above", "below", "left", "right", "behind", "under", "beside", "two"}


def test_of_words_with_the_same_stem_the_first_is_kept() -> None:
    assert content_words(["Dogs running", "a dog runs"]) == ("dogs", "running")
    assert stem("running") == stem(" Runs") == "run"


def test_apostrophes_hyphens_and_digits_separate_words() -> None:
    assert content_words(["It's a T-shirt, isn't it? 3 cafés"]) == ("cafés", "shirt")


@given(sentences)
def test_content_words_are_sorted_by_stem_and_stable_under_repetition(captions: list[str]) -> None:
    words = content_words(captions)
    stems = [stem(w) for w in words]
    assert stems == sorted(set(stems))
    assert all(w == w.lower() and w not in STOP_WORDS for w in words)
    assert content_words(captions) == words
    assert {stem(w) for w in content_words(reversed(captions))} == set(stems)
    assert content_words([" ".join(words)]) == words


def test_content_words_of_scene_captions_are_visible_properties() -> None:
    visible = {*COLOURS, *SHAPES, *RADII, *BACKGROUNDS, "above", "below", "left", "right", "background"}
    for sample in (*scenes(200, 1), *scenes_order(50, 1)):
        assert set(content_words(sample.captions)) <= visible


def test_both_sides_of_a_word_order_item_have_the_same_content_words() -> None:
    samples = scenes_order(40, 2)
    for first, second in zip(samples[::2], samples[1::2], strict=True):
        assert content_words(first.captions) == content_words(second.captions)


def test_accents_and_ligatures_are_normalised() -> None:
    assert content_words(["a cafe\u0301 with jalapen\u0303os", "\ufb01re", "\uff32\uff25\uff24"]) == (
        "café",
        "fire",
        "jalapeños",
        "red",
    )
