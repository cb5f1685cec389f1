"""The language model's tokenizer, built from the vocabulary and merges of its GGUF file.

transformers reads it too, but not the same in every release: 5.0 takes it for CodeLlama's, puts a second start token
in front and writes files in which later releases find no spaces. Built here it is the same everywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONTROL = 3  # GGUF's type of tokens that stand for no text
_NO_AFFIXES = {"continuing_subword_prefix": "", "end_of_word_suffix": ""}


def read_tokenizer(gguf: Path) -> PreTrainedTokenizerBase:
    """The byte-level BPE tokenizer of a GGUF file of SmolLM2, special tokens and chat template included."""
    from gguf import GGUFReader
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    fields = GGUFReader(gguf).fields
    tokens, types, merges = (fields[f"tokenizer.ggml.{part}"].contents() for part in ("tokens", "token_type", "merges"))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    inner = Tokenizer(models.BPE(vocabulary, pairs, **_NO_AFFIXES))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    inner.add_special_tokens(
        [AddedToken(token, normalized=False) for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL]
    )
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    special = {name: tokens[fields[f"tokenizer.ggml.{key}_token_id"].contents()] for name, key in names.items()}
    made: PreTrainedTokenizerBase = PreTrainedTokenizerFast(tokenizer_object=inner, **special)
    made.chat_template = fields["tokenizer.chat_template"].contents()
    return made
