"""Vocabulary entries of a word in tokenizers with bytes, marked spaces, and marked continuations."""

from __future__ import annotations

import gc
import string
import weakref
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from harness.data.words import content_words, stem
from harness.probe import vocabulary
from harness.probe.vocabulary import Vocabulary
from harness.tests.support.local_tokenizers import llama_tokenizer, qformer_tokenizer

TEXTS = [
    "a red circle above two blue circles on the table",
    "people standing beside a standing dog, and one dog stands",
    "Dogs ride red buses; the bus is standing",
]
WORDS = content_words(TEXTS)


def bytes_tokenizer() -> Any:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=alphabet, special_tokens=["</s>"], show_progress=False
    )
    inner.train_from_iterator([" " + text for text in TEXTS] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")


def unigram_tokenizer() -> Any:
    words = [
        "▁red",
        "red",
        "▁dog",
        "▁Dog",
        "▁dogs",
        "▁circle",
        "▁blue",
        "▁table",
        "▁stand",
        "ing",
        "▁peo",
        "ple",
        "▁bes",
    ]
    pieces = ["<unk>", "</s>", *words, "▁", *string.ascii_letters, *string.punctuation]
    inner = Tokenizer(models.Unigram([(piece, -float(20 - 3 * len(piece))) for piece in pieces], unk_id=0))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="<unk>")


TOKENIZERS = {
    "byte-level BPE": bytes_tokenizer,
    "unigram with metaspace": unigram_tokenizer,
    "BPE with metaspace": lambda: llama_tokenizer(["<pad>"], "<pad>"),
    "WordPiece": qformer_tokenizer,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_entries_of_a_word_have_its_stem_or_are_its_first_piece(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    vocabulary = Vocabulary(tokenizer, len(tokenizer))
    special = set(tokenizer.all_special_ids)
    entry_texts = tokenizer.batch_decode([[entry] for entry in range(len(tokenizer))])
    stems = {
        entry: stem(text.strip().lower())
        for entry, text in enumerate(entry_texts)
        if entry not in special and text.strip().isalpha()
    }
    with_stem = with_first_piece = 0
    for word in WORDS:
        spelled = {entry for entry, entry_stem in stems.items() if entry_stem == stem(word)}
        entries = set(vocabulary.entries(word))
        if spelled:
            with_stem += 1
            assert entries == spelled
        else:
            texts = {tokenizer.decode([entry]).strip().lower() for entry in entries}
            assert texts <= {word[:length] for length in range(3, len(word))}
            assert len(texts) <= 1
            with_first_piece += len(texts)
    assert with_stem
    assert with_stem + with_first_piece >= len(WORDS) // 2


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_entries_ignore_case_and_endings_and_exclude_continuations(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    vocabulary = Vocabulary(tokenizer, len(tokenizer))
    assert vocabulary.entries("dogs") == vocabulary.entries("dog") == vocabulary.entries("Dog") != ()
    texts = tokenizer.batch_decode([[entry] for entry in vocabulary.entries("red")])
    assert {text.strip().lower() for text in texts} == {"red"}


def test_an_index_is_built_once_and_released_with_its_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    indexed: list[int] = []
    monkeypatch.setattr(vocabulary, "_texts", lambda tokenizer, size: indexed.append(size) or [" dog"] * size)
    tokenizer = bytes_tokenizer()
    for size in (300, 300, 299):
        assert len(Vocabulary(tokenizer, size).entries("dogs")) >= size - 5
    tokenizer.add_tokens(["gleam"])
    Vocabulary(tokenizer, 300)
    assert indexed == [300, 299, 300]
    reference = weakref.ref(tokenizer)
    del tokenizer
    gc.collect()
    assert reference() is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_all_entries_are_decoded_at_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = TOKENIZERS[kind]()
    size = len(tokenizer)
    texts = tokenizer.batch_decode([[entry] for entry in range(size)])
    with monkeypatch.context() as patch:
        # Its rows pass through Python, which takes half a second for a large tokenizer.
        patch.setattr(type(tokenizer), "batch_decode", None)
        index = Vocabulary(tokenizer, size)._index
    special = set(tokenizer.all_special_ids)
    by_spelling: dict[str, list[int]] = {}
    for entry, text in enumerate(texts):
        word = text.strip().lower()
        if word.isalpha() and entry not in special:
            by_spelling.setdefault(word, []).append(entry)
    assert index.by_spelling == by_spelling


def test_only_spellings_with_the_start_of_a_word_are_stemmed(monkeypatch: pytest.MonkeyPatch) -> None:
    stemmed: list[str] = []
    monkeypatch.setattr(vocabulary, "stem", lambda word: stemmed.append(word) or stem(word))
    tokenizer = bytes_tokenizer()
    entries = Vocabulary(tokenizer, len(tokenizer))
    assert entries.entries("dogs")
    assert {word[:2] for word in stemmed} == {"do"}


def spelled_with_i(word: str) -> str:
    return word.replace("y", "i")


@pytest.mark.slow
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_stems_keep_the_start_of_a_word(kind: str) -> None:
    """The index relies on it. A stem differs from its word only in its last letter, and in y and i."""
    tokenizer = TOKENIZERS[kind]()
    irregular = [
        "skis",
        "skies",
        "dying",
        "lying",
        "tying",
        "idly",
        "gently",
        "ugly",
        "early",
        "uing",
        "ies",
        "yes",
        "hoping",
        "capability",
    ]
    texts = tokenizer.batch_decode([[entry] for entry in range(len(tokenizer))])
    words = [*irregular, *(text.strip().lower() for text in texts if text.strip().isalpha())]
    assert [word for word in words if not spelled_with_i(word).startswith(spelled_with_i(stem(word)[:-1]))] == []


@pytest.mark.parametrize("word", ["dying", "uing"])
def test_words_whose_stem_starts_otherwise_have_entries(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "_texts", lambda *_: ["", "", "", "", word, " " + stem(word)])
    assert Vocabulary(bytes_tokenizer(), 6).entries(word) == (4, 5)
