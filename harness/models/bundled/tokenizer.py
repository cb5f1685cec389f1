"""The language model's tokenizer, built from the vocabulary and merges of its GGUF file.

transformers can read it too, but its releases differ: 5.0 treats it as CodeLlama's, adds a second start token and
writes files in which later releases find no spaces. Built here, it is the same for all releases.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.models.bundled.checked_files import require_unchanged
from harness.storage.regular_file import read_regular

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONTROL = 3  # GGUF's token type for control tokens
_NO_AFFIXES = {"continuing_subword_prefix": "", "end_of_word_suffix": ""}
_MOST_BYTES = 1 << 26
# SHA-256 for the bundled language model: of the file, and of its vocabulary, merges and control tokens.
FILE_SHA256 = "bf346d64f6f0fbcefb4c1b6928a98241467dff36c6fbae5fe1785c4ff90667f4"
CONTENT_SHA256 = "180515ebaa4b81f480fb0cf73835f57ddd8746f6b35ada4cd9e2479fc3dd8d24"
_SPECIAL = {
    "bos_token": "<|im_start|>",
    "eos_token": "<|im_end|>",
    "unk_token": "<|endoftext|>",
    "pad_token": "<|im_end|>",
}


def read_tokenizer(gguf: Path) -> PreTrainedTokenizerBase:
    """Return the byte-level BPE tokenizer of a GGUF file of SmolLM2, special tokens and chat template included."""
    from gguf import GGUFReader

    fields = GGUFReader(gguf).fields
    tokens, types, merges = (fields[f"tokenizer.ggml.{part}"].contents() for part in ("tokens", "token_type", "merges"))
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    tokenizer = _tokenizer(
        {token: index for index, token in enumerate(tokens)},
        [merge.split(" ", 1) for merge in merges],
        [token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL],
        {name: tokens[fields[f"tokenizer.ggml.{key}_token_id"].contents()] for name, key in names.items()},
    )
    tokenizer.chat_template = fields["tokenizer.chat_template"].contents()
    return tokenizer


def checked_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the bundled language model from its tokenizer.json.

    If another release of tokenizers wrote the file, only its vocabulary, merges and control tokens are compared and
    used.

    Raises:
        OSError: the file cannot be read.
        ValueError: its content differs.
    """
    from transformers import PreTrainedTokenizerFast

    with require_unchanged(path):
        text = read_regular(path, _MOST_BYTES)
        if hashlib.sha256(text).hexdigest() == FILE_SHA256:
            # Faster by half than building it from its parts.
            tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast(tokenizer_file=str(path), **_SPECIAL)
            return tokenizer
    try:
        stored = json.loads(text)
        vocabulary = {str(token): int(index) for token, index in stored["model"]["vocab"].items()}
        merges = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in stored["model"]["merges"]]
        control = [str(token["content"]) for token in stored["added_tokens"]]
    except (LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path.name} is not a tokenizer") from error
    content = [sorted(vocabulary.items(), key=lambda item: item[1]), merges, control]
    if hashlib.sha256(json.dumps(content).encode()).hexdigest() != CONTENT_SHA256:
        raise ValueError(f"{path.name} has another vocabulary")
    return _tokenizer(vocabulary, merges, control, _SPECIAL)


def _tokenizer(
    vocabulary: Mapping[str, int],
    merges: Sequence[Sequence[str]],
    control: Sequence[str],
    special: Mapping[str, str],
) -> PreTrainedTokenizerBase:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE(dict(vocabulary), [(first, second) for first, second in merges], **_NO_AFFIXES))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    inner.add_special_tokens([AddedToken(token, normalized=False) for token in control])
    tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast(tokenizer_object=inner, **special)
    return tokenizer
