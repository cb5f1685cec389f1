"""The language model's tokenizer is made of its GGUF file, the same in every release of transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gguf import GGUFWriter
from transformers import PreTrainedTokenizerFast

from harness.models.embedded.cache import default_cache
from harness.models.embedded.language import file_sha256, language_directory
from harness.models.embedded.tokenizer import read_tokenizer

TOKENS = ["<|end|>", "<|start|>", *"abcd Ġ".replace(" ", ""), "ab", "Ġc"]
CONTROL, NORMAL = 3, 1


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([CONTROL] * 2 + [NORMAL] * (len(TOKENS) - 2))
    writer.add_token_merges(["a b", "Ġ c"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(0)
    writer.add_chat_template("{{ messages[0]['content'] }}<|end|>")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_vocabulary_merges_and_special_tokens_are_those_of_the_file(gguf: Path) -> None:
    tokenizer = read_tokenizer(gguf)
    ids = tokenizer("<|start|>abd c<|end|>").input_ids
    assert [TOKENS[i] for i in ids] == ["<|start|>", "ab", "d", "Ġc", "<|end|>"]
    assert tokenizer.decode(ids) == "<|start|>abd c<|end|>"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "abd c"
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<|start|>", "<|end|>", "<|end|>")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False) == "ab<|end|>"


def test_it_is_the_same_once_saved_and_read_again(gguf: Path, tmp_path: Path) -> None:
    tokenizer = read_tokenizer(gguf)
    tokenizer.save_pretrained(tmp_path / "saved")
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path / "saved")
    assert again("<|start|>ab c").input_ids == tokenizer("<|start|>ab c").input_ids
    assert again.chat_template == tokenizer.chat_template


def test_the_cached_tokenizer_is_the_one_that_the_baselines_were_measured_with() -> None:
    written = language_directory(default_cache()) / "tokenizer.json"
    assert len(json.loads(written.read_text(encoding="utf-8"))["model"]["vocab"]) == 49_152
    assert file_sha256(written).startswith("bf346d64f6f0fbce"), f"delete {written.parent}, it is made again"
