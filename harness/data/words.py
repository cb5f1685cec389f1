"""Content words of captions: what a caption says is in the picture, as the recall of LogitLens counts it.

Function words are left out. Spatial words ("above", "below", "left", "right", "behind", "under", ...) are **content**
words here, although they are prepositions or particles: they name a relation that can be seen, and word-order items
differ in nothing else. So are numbers from two upwards and colours.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from snowballstemmer import stemmer

_FUNCTION_WORDS = """
    a an the this that these those some any each every no none both either neither other another such same own one
    i me my mine myself we us our ours ourselves you your yours yourself he him his himself she her hers herself
    it its itself they them their theirs themselves who whom whose which what when where why how whatever
    here there everything something anything nothing someone anyone everyone
    am is are was were be been being isn aren wasn weren
    have has had having do does did doing done don doesn didn can could will would shall should may might must
    and or but nor so yet if than then as because while although though until since whether
    of at by for with without from to into onto in on off about via per out up
    not only just very too also quite rather more most much many few less least several all enough again still
    already ever never once however
    s t ll ve re d m
"""
STOP_WORDS: frozenset[str] = frozenset(_FUNCTION_WORDS.split())

# English sentences hardly do without these, and other languages in Latin letters have few of them.
_MARKS = frozenset({"the", "and", "with", "of", "from", "are", "this", "there"})
# Fewer captions of fewer words do not tell their language.
_LEAST_SENTENCES, _LEAST_WORDS, _LEAST_SHARE = 20, 5, 0.02

_WORD = re.compile(r"[^\W\d_]+")


def content_words(captions: Iterable[str]) -> tuple[str, ...]:
    """Return the content words of the captions: lower case, one for each stem, sorted by stem.

    Words are runs of letters, so a hyphen or an apostrophe separates and digits are left out. Of several words with
    one stem the first in the captions stands for all. A caption mostly in other letters than Latin ones has none.
    """
    by_stem: dict[str, str] = {}
    for caption in captions:
        for word in _latin_words(caption):
            if word not in STOP_WORDS:
                by_stem.setdefault(stem(word), word)
    return tuple(by_stem[key] for key in sorted(by_stem))


def seem_english(captions: Iterable[str]) -> bool:
    """False if the captions are sentences in Latin letters of which hardly any has a common English function word."""
    sentences = {words for caption in captions if len(words := tuple(_latin_words(caption))) >= _LEAST_WORDS}
    marked = sum(not _MARKS.isdisjoint(words) for words in sentences)
    return len(sentences) < _LEAST_SENTENCES or marked >= _LEAST_SHARE * len(sentences)


def _latin_words(caption: str) -> list[str]:
    """The words of a caption in Latin letters, lower case; none where these are the lesser part of its letters."""
    # An accent of its own would split a word, and a ligature is in no vocabulary.
    words = _WORD.findall(unicodedata.normalize("NFKC", caption).lower())
    latin = [word for word in words if all(unicodedata.name(letter, "").startswith("LATIN") for letter in word)]
    return latin if 2 * sum(map(len, latin)) >= sum(map(len, words)) else []


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """The stem of a word by the English Snowball stemmer (Porter 2), in lower case and without surrounding space.

    Source: Porter, "Snowball: a language for stemming algorithms" (2001).
    """
    # A stemmer keeps the word it works on in itself, so every call takes its own.
    stemmed: str = stemmer("english").stemWord(word.strip().lower())
    return stemmed
