"""The language model's tokenizer is built from its GGUF file and is the same in every transformers release."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter
from transformers import PreTrainedTokenizerFast

from harness.models.bundled.language import file_sha256, language_directory
from harness.models.bundled.tokenizer import FILE_SHA256, checked_tokenizer, read_tokenizer
from harness.storage.cache_directory import default_cache

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


def test_a_saved_tokenizer_is_read_unchanged(gguf: Path, tmp_path: Path) -> None:
    tokenizer = read_tokenizer(gguf)
    tokenizer.save_pretrained(tmp_path / "saved")
    rebuilt = PreTrainedTokenizerFast.from_pretrained(tmp_path / "saved")
    assert rebuilt("<|start|>ab c").input_ids == tokenizer("<|start|>ab c").input_ids
    assert rebuilt.chat_template == tokenizer.chat_template


def test_the_cached_tokenizer_is_the_one_that_the_baselines_were_measured_with() -> None:
    tokenizer_file = language_directory(default_cache()) / "tokenizer.json"
    assert len(json.loads(tokenizer_file.read_text(encoding="utf-8"))["model"]["vocab"]) == 49_152
    assert file_sha256(tokenizer_file) == FILE_SHA256, f"delete {tokenizer_file.parent}, it is made again"


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A copy of the language model's tokenizer.json."""
    return Path(shutil.copy(language_directory(default_cache()) / "tokenizer.json", tmp_path))


def rewrite(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def swap_tokens(content: Any) -> None:
    vocabulary = content["model"]["vocab"]
    vocabulary["Ġred"], vocabulary["Ġblue"] = vocabulary["Ġblue"], vocabulary["Ġred"]


def drop_merge(content: Any) -> None:
    del content["model"]["merges"][100]


def add_control_token(content: Any) -> None:
    content["added_tokens"].append({**content["added_tokens"][0], "content": "Ġred"})


def replace_model(content: Any) -> None:
    content["model"] = ["vocab"]


@pytest.mark.slow
@pytest.mark.parametrize("change", [swap_tokens, drop_merge, add_control_token, replace_model])
def test_an_altered_tokenizer_is_not_used(stored: Path, change: Callable[[Any], None]) -> None:
    rewrite(stored, change)
    with pytest.raises(ValueError, match=r"tokenizer\.json (has another vocabulary|is not a tokenizer)"):
        checked_tokenizer(stored)


def test_a_file_that_is_no_tokenizer_is_refused(stored: Path) -> None:
    for content in (b"{", b"[]", b"[" * 200_000, b"\xff"):
        stored.write_bytes(content)
        with pytest.raises(ValueError, match=r"."):
            checked_tokenizer(stored)
    stored.unlink()
    os.mkfifo(stored)
    with pytest.raises(OSError, match="pipe"):
        checked_tokenizer(stored)


def change_splitting(content: Any) -> None:
    content["pre_tokenizer"] = {"type": "Whitespace"}
    content["added_tokens"][16]["lstrip"] = True
    content["normalizer"] = {"type": "Lowercase"}


def write_older_merges(content: Any) -> None:
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]


@pytest.mark.slow
@pytest.mark.parametrize("change", [change_splitting, write_older_merges])
def test_only_the_vocabulary_of_a_tokenizer_in_another_form_is_used(
    stored: Path, change: Callable[[Any], None]
) -> None:
    text = "Two RED <empty_output> balls, don't\n\n 12 <|im_start|>user é"
    original = checked_tokenizer(stored)
    rewrite(stored, change)
    rebuilt = checked_tokenizer(stored)
    assert rebuilt(text).input_ids == original(text).input_ids
    assert rebuilt.special_tokens_map == original.special_tokens_map
    assert rebuilt.backend_tokenizer.to_str() == original.backend_tokenizer.to_str()
