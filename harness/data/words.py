"""Content words of captions: the visible things that a caption names, for the LogitLens recall.

Function words are excluded. Spatial words ("above", "below", "left", "right", "behind", "under", ...) are **content**
words here, although they are prepositions or particles. They name a visible relation, and word-order items differ in
nothing else. Numbers from two upwards and colours are content words too.
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

# Most English sentences contain one of these; other languages in Latin letters rarely do.
_MARKS = frozenset({"the", "and", "with", "of", "from", "are", "this", "there"})
# With fewer captions, or fewer words, the language is not judged.
_LEAST_SENTENCES, _LEAST_WORDS, _LEAST_SHARE = 20, 5, 0.02

_WORD = re.compile(r"[^\W\d_]+")


def content_words(captions: Iterable[str]) -> tuple[str, ...]:
    """Return the content words of the captions: lower case, one for each stem, sorted by stem.

    Words are runs of letters, so hyphens and apostrophes separate words, and digits are excluded. The first word with a
    stem represents it. A caption mostly in non-Latin letters has no content words.
    """
    by_stem: dict[str, str] = {}
    for caption in captions:
        for word in _latin_words(caption):
            if word not in STOP_WORDS:
                by_stem.setdefault(stem(word), word)
    return tuple(by_stem[key] for key in sorted(by_stem))


def seem_english(captions: Iterable[str]) -> bool:
    """Return False if the captions are sentences in Latin letters, almost all without common English function words."""
    sentences = {words for caption in captions if len(words := tuple(_latin_words(caption))) >= _LEAST_WORDS}
    marked = sum(not _MARKS.isdisjoint(words) for words in sentences)
    return len(sentences) < _LEAST_SENTENCES or marked >= _LEAST_SHARE * len(sentences)


def _latin_words(caption: str) -> list[str]:
    """Return a caption's words in Latin letters, in lower case; empty if most letters are not Latin."""
    # A combining accent would split a word, and vocabularies contain no ligatures.
    words = _WORD.findall(unicodedata.normalize("NFKC", caption).lower())
    latin = [word for word in words if all(unicodedata.name(letter, "").startswith("LATIN") for letter in word)]
    return latin if 2 * sum(map(len, latin)) >= sum(map(len, words)) else []


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Return the stem of a word by the English Snowball stemmer (Porter 2), stripped and in lower case.

    Source: Porter, "Snowball: a language for stemming algorithms" (2001).
    """
    # A stemmer stores the current word in itself, so every call creates its own.
    stemmed: str = stemmer("english").stemWord(word.strip().lower())
    return stemmed
