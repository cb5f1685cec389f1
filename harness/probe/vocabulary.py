"""Vocabulary entries that spell a word, for the recall of words that the logit lens decodes."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.data.words import stem

_LEAST_LETTERS = 3
LENS_POLICY = (
    "content words of the captions, English Snowball stems; an entry spells a word where its text, stripped and in "
    "lower case, has the word's stem; else the word's first piece of three or more letters; found where fewer than k "
    "entries have a larger logit at some image token"
)


class Vocabulary:
    """The entries of a tokenizer, indexed by the stem of their text according to `LENS_POLICY`."""

    def __init__(self, tokenizer: Any, size: int) -> None:
        """Index the first `size` entries of `tokenizer` (the number of rows of the unembedding)."""
        self._tokenizer = tokenizer
        self._index = _index_of(tokenizer, size)

    def entries(self, word: str) -> tuple[int, ...]:
        """Return the entries that spell `word`, sorted; empty if it has no piece of three letters."""
        matches = self._index.with_stem(stem(word))
        if not matches:
            ids = self._tokenizer(" " + word, add_special_tokens=False).input_ids
            pieces = self._tokenizer.convert_ids_to_tokens(ids)
            for piece in pieces:
                letters = "".join(
                    character for character in piece if character.isalpha() and character.isascii()
                ).lower()
                if len(letters) >= _LEAST_LETTERS:
                    matches = self._index.by_spelling.get(letters, ())
                    break
        return tuple(sorted(matches))

    def references(self, words: Iterable[str]) -> tuple[tuple[int, ...], ...]:
        """Return the entries of every word, in the order of the words."""
        return tuple(self.entries(word) for word in words)


@dataclass(frozen=True, slots=True)
class _Index:
    """Entries by their lower-case spelling, spellings by their first two letters, and entries by stem as requested."""

    by_spelling: Mapping[str, list[int]]
    by_start: Mapping[str, list[str]]
    by_stem: dict[str, list[int]] = field(default_factory=dict)

    def with_stem(self, stemmed: str) -> Sequence[int]:
        """Return the entries whose spelling has this stem."""
        if stemmed not in self.by_stem:
            # A stem differs from its word in the last letter only, and in y and i: hope, hoping; fli, fly; die, dying.
            shared = _plain(stemmed[:-1])
            self.by_stem[stemmed] = [
                entry
                for start, spellings in self.by_start.items()
                if start.startswith(shared[:2])
                for spelled in spellings
                if _plain(spelled).startswith(shared) and stem(spelled) == stemmed
                for entry in self.by_spelling[spelled]
            ]
        return self.by_stem[stemmed]


def _plain(word: str) -> str:
    return word.replace("y", "i")


# Cached for the lifetime of a tokenizer, because indexing a large one takes ten seconds.
_indexed: weakref.WeakKeyDictionary[Any, dict[tuple[int, int], _Index]] = weakref.WeakKeyDictionary()


def _index_of(tokenizer: Any, size: int) -> _Index:
    cached = _indexed.setdefault(tokenizer, {})
    # Adding words to a tokenizer changes its length, and so the key.
    key = (size, len(tokenizer))
    if key in cached:
        return cached[key]
    special = set(tokenizer.all_special_ids)
    by_spelling: dict[str, list[int]] = defaultdict(list)
    by_start: dict[str, list[str]] = defaultdict(list)
    for entry, text in enumerate(_texts(tokenizer, size)):
        spelled = text.strip().lower()
        if entry not in special and spelled.isalpha():
            by_spelling[spelled].append(entry)
    for spelled in by_spelling:
        by_start[_plain(spelled[:2])].append(spelled)
    return cached.setdefault(key, _Index(by_spelling, by_start))


def _texts(tokenizer: Any, size: int) -> Sequence[str]:
    entries = [[entry] for entry in range(min(size, len(tokenizer)))]
    # transformers decodes row by row in Python, fourteen times as slowly; it only removes spaces before punctuation.
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if hasattr(backend, "decode_batch"):
        return list(backend.decode_batch(entries, skip_special_tokens=False))
    return list(tokenizer.batch_decode(entries))
