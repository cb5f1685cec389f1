"""Which vocabulary entries spell a word, for the recall of words that the logit lens decodes."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.data.words import stem

_LEAST_LETTERS = 3
LENS_POLICY = (
    "content words of the captions, English Snowball stems; an entry spells a word where its text, stripped and in "
    "lower case, has the word's stem; else the word's first piece of three or more letters; found where fewer than k "
    "entries have a larger logit at some image token"
)


class Vocabulary:
    """The entries of a tokenizer, indexed by the stem of their text as `LENS_POLICY` says, which baselines store."""

    def __init__(self, tokenizer: Any, size: int) -> None:
        """Index the first `size` entries of `tokenizer` (the number of rows of the unembedding)."""
        self._tokenizer = tokenizer
        self._index = _index_of(tokenizer, size)

    def entries(self, word: str) -> tuple[int, ...]:
        """Return the entries that spell `word`, sorted; empty where not even a piece of three letters does."""
        found = self._index.by_stem.get(stem(word), [])
        if not found:
            ids = self._tokenizer(" " + word, add_special_tokens=False).input_ids
            pieces = self._tokenizer.convert_ids_to_tokens(ids)
            for piece in pieces:
                letters = "".join(sign for sign in piece if sign.isalpha() and sign.isascii()).lower()
                if len(letters) >= _LEAST_LETTERS:
                    found = self._index.by_spelling.get(letters, [])
                    break
        return tuple(sorted(found))

    def references(self, words: Iterable[str]) -> tuple[tuple[int, ...], ...]:
        """Return the entries of every word, in the order of the words."""
        return tuple(self.entries(word) for word in words)


@dataclass(frozen=True, slots=True)
class _Index:
    """Entries by their spelling in lower case, and by its stem."""

    by_spelling: Mapping[str, list[int]]
    by_stem: Mapping[str, list[int]]


# Made once for a tokenizer, and gone with it: of a large one it takes ten seconds.
_indexed: weakref.WeakKeyDictionary[Any, dict[tuple[int, int], _Index]] = weakref.WeakKeyDictionary()


def _index_of(tokenizer: Any, size: int) -> _Index:
    kept = _indexed.setdefault(tokenizer, {})
    # A tokenizer to which words are added is another one.
    key = (size, len(tokenizer))
    if key in kept:
        return kept[key]
    special = set(tokenizer.all_special_ids)
    by_spelling: dict[str, list[int]] = defaultdict(list)
    for entry, text in enumerate(_texts(tokenizer, size)):
        spelled = text.strip().lower()
        if entry not in special and spelled.isalpha():
            by_spelling[spelled].append(entry)
    by_stem: dict[str, list[int]] = defaultdict(list)
    for spelled, entries in by_spelling.items():
        by_stem[stem(spelled)].extend(entries)
    return kept.setdefault(key, _Index(by_spelling, by_stem))


def _texts(tokenizer: Any, size: int) -> Sequence[str]:
    return list(tokenizer.batch_decode([[entry] for entry in range(min(size, len(tokenizer)))]))
