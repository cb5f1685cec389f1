"""A tokenizer of bytes with the special tokens that a processor requires."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

#: Ids below this number are bytes; special tokens follow.
BYTES = 256
_SPECIAL = re.compile(r"<[^<>\s]+>|\[[A-Z][A-Z_0-9]*\]|\|[A-Z_]+\||\]<\]\w+\[>\[")
_OPTIONAL = re.compile(r"""getattr\(tokenizer, ["'](\w+_token)["'], None\)""")
_STANDARD = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "sep_token": "<sep>"}


def byte_tokenizer(tokens: Sequence[str], attributes: Mapping[str, str]) -> Any:
    """Return a tokenizer with one token per byte and special tokens.

    Args:
        tokens: further special tokens.
        attributes: special tokens that are attributes of the tokenizer, such as `image_token`.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={sign: index for index, sign in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = dict.fromkeys((*_STANDARD.values(), *tokens, *attributes.values()))
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **_STANDARD,
        padding_side="left",
        **({"extra_special_tokens": dict(attributes)} if attributes else {}),
    )


def special_tokens_in_source(processor_class: type) -> list[str]:
    """Return the special tokens that the source of a processor class names, in order of appearance."""
    tokens = (
        node.value
        for source in _sources(processor_class)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _SPECIAL.fullmatch(node.value)
    )
    return list(dict.fromkeys(tokens))


def optional_tokens_in_source(processor_class: type) -> list[str]:
    """Return the names of the tokenizer's tokens that a processor class replaces by None if they are missing."""
    names = (name for source in _sources(processor_class) for name in _OPTIONAL.findall(source))
    return list(dict.fromkeys(names))


def _sources(processor_class: type) -> list[str]:
    names = dict.fromkeys(parent.__module__ for parent in processor_class.__mro__ if ".models." in parent.__module__)
    # A class whose libraries are missing names a module that is not loaded.
    return [inspect.getsource(sys.modules[name]) for name in names if name in sys.modules]
