"""Settings that refer to outside files, pickles or another model are refused before any file is opened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness.models.checkpoints.checkpoint_directory import directory_problem
from harness.models.checkpoints.named_files import is_plain
from harness.models.registry import find_model
from harness.models.vlm import load_vlm
from harness.tests.support.hostile_code import Payload, payload_ran
from harness.tests.support.saved_checkpoints import (
    change_settings,
    checkpoint,
    checkpoint_templates,
    sharded_checkpoint,
)

__all__ = ["checkpoint", "checkpoint_templates", "sharded_checkpoint"]


def find_problem(folder: Path) -> str:
    """Return the reason why a directory is refused without reading weights, or an empty string."""
    return directory_problem(folder, str(folder), unused=False) or ""


def set_weights_name(folder: Path, name: Any) -> None:
    change_settings(folder / "config.json", lambda config: config.update(transformers_weights=name))


def write_index(folder: Path, shard: str) -> None:
    """Write an index in a subdirectory, named in config.json, with a shard at this path."""
    weights = folder / "model.safetensors"
    (folder / "sub").mkdir()
    names = dict.fromkeys(load_file(weights), shard)
    (folder / "sub" / "a.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    weights.rename(folder.parent / "x.safetensors")
    set_weights_name(folder, "sub/a.safetensors.index.json")


def index_to_the_parent(folder: Path) -> None:
    write_index(folder, "../x.safetensors")


def index_to_an_absolute_path(folder: Path) -> None:
    write_index(folder, str(folder.parent / "x.safetensors"))


def index_to_pickles(folder: Path) -> None:
    write_index(folder, "pytorch_model.bin")
    torch.save({"weight": Payload(folder)}, folder / "pytorch_model.bin")


def pickled_adapter(folder: Path) -> None:
    torch.save({"weight": Payload(folder)}, folder / "adapter_model.bin")
    set_weights_name(folder, "adapter_model.bin")


def weights_in_subdirectory(folder: Path) -> None:
    (folder / "sub").mkdir()
    shutil.copy(folder / "model.safetensors", folder / "sub")
    set_weights_name(folder, "sub/model.safetensors")


def path_through_the_parent(folder: Path) -> None:
    set_weights_name(folder, "../mine/model.safetensors")


def numeric_name(folder: Path) -> None:
    set_weights_name(folder, 7)


@pytest.mark.parametrize(
    "hostile",
    [
        index_to_the_parent,
        index_to_an_absolute_path,
        index_to_pickles,
        pickled_adapter,
        weights_in_subdirectory,
        path_through_the_parent,
        numeric_name,
    ],
)
def test_weights_may_only_be_named_by_a_plain_safetensors_name(
    checkpoint: Path, hostile: Callable[[Path], None]
) -> None:
    hostile(checkpoint)
    assert find_problem(checkpoint).startswith(f"the checkpoint {checkpoint} has transformers_weights ")
    assert find_problem(checkpoint).endswith(
        "in its own directory are read; remove transformers_weights from that file"
    )
    with pytest.raises(Exception, match="has transformers_weights"):
        load_vlm(find_model(str(checkpoint)), cache=checkpoint.parent, device="cpu")
    assert not payload_ran(checkpoint)


@pytest.mark.parametrize("name", ["own.safetensors", "own.safetensors.index.json"])
def test_named_weights_that_are_not_there_are_missing(checkpoint: Path, name: str) -> None:
    set_weights_name(checkpoint, name)
    assert f"lacks 1 of the 1 weight files that its index or config.json names, first '{name}'" in find_problem(
        checkpoint
    )


def test_an_index_of_another_name_is_read(sharded_checkpoint: Path) -> None:
    (sharded_checkpoint / "model.safetensors.index.json").rename(sharded_checkpoint / "own.safetensors.index.json")
    set_weights_name(sharded_checkpoint, "own.safetensors.index.json")
    assert find_problem(sharded_checkpoint) == ""
    assert (
        load_vlm(find_model(str(sharded_checkpoint)), cache=sharded_checkpoint.parent, device="cpu").anatomy.depth == 4
    )


@pytest.mark.parametrize(
    "shard", ["../x.safetensors", "sub/x.safetensors", "/x.safetensors", "C:x.safetensors", "x.bin"]
)
def test_every_index_may_name_only_plain_safetensors(checkpoint: Path, shard: str) -> None:
    (checkpoint / "another.safetensors.index.json").write_text(json.dumps({"weight_map": {"weight": shard}}))
    assert f"index another.safetensors.index.json that takes weights from {shard!r}" in find_problem(checkpoint)


def test_an_index_has_no_more_files_than_a_checkpoint(checkpoint: Path) -> None:
    names = {f"weight.{i}": f"{i}.safetensors" for i in range(20_000)}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert "has an index model.safetensors.index.json of 20,000 files, but at most 10,000 are read" in find_problem(
        checkpoint
    )


@pytest.mark.parametrize(
    ("file", "setting"),
    [
        ("config.json", {"attribute_map": {"transformers_weights": "other"}, "other": "adapter_model.bin"}),
        ("config.json", {"configuration_files": ["config.5.0.0.json"]}),
        ("config.json", {"vision_config": {"model_args": {"checkpoint_path": "adapter_model.bin"}}}),
        ("config.json", {"vision_config": {"backbone": "some/backbone"}}),
        ("config.json", {"vision_config": {"use_pretrained_backbone": True}}),
        ("config.json", {"vision_config": {"architecture": "local-dir:/elsewhere"}}),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["../tokenizer.5.0.0.json"]}),
        ("tokenizer_config.json", {"vocab_file": __file__}),
        ("tokenizer_config.json", {"vocab": __file__}),
        ("tokenizer_config.json", {"gguf_file": "/elsewhere/model.gguf"}),
        ("tokenizer_config.json", {"sp_model_kwargs": {"model_file": "/elsewhere/spm.model"}}),
        ("processor_config.json", {"audio_tokenizer": {"audio_tokenizer_name_or_path": "../elsewhere"}}),
        ("audio_tokenizer_config.json", {"audio_tokenizer_name_or_path": "some/codec"}),
        ("processor_config.json", {"image_processor": {"class_info_file": "classes.json", "repo_path": ".."}}),
        ("video_preprocessor_config.json", {"font": "../font.ttf", "draw_on_frames": True}),
        ("qformer_tokenizer/tokenizer_config.json", {"merges_file": __file__}),
        ("special_tokens_map.json", {"vocab_file": __file__}),
    ],
)
def test_a_setting_that_names_an_outside_file_is_refused(checkpoint: Path, file: str, setting: dict[str, Any]) -> None:
    (checkpoint / file).parent.mkdir(exist_ok=True)
    if not (checkpoint / file).exists():
        (checkpoint / file).write_text("{}")
    change_settings(checkpoint / file, lambda content: content.update(setting))
    message = find_problem(checkpoint)
    assert f"in {Path(file).name}, so " in message
    assert "only the safetensors and settings in its own directory are read; remove " in message


@pytest.mark.parametrize(
    ("file", "setting"),
    [
        ("config.json", {"_name_or_path": "/home/me/models/base", "transformers_weights": None}),
        ("config.json", {"text_config": {"_name_or_path": __file__}}),
        ("tokenizer_config.json", {"special_tokens_map_file": __file__, "name_or_path": __file__}),
        (
            "tokenizer_config.json",
            {"tokenizer_file": "/home/somebody/of-another-machine", "vocab_file": None},
        ),
        ("tokenizer_config.json", {"sp_model_kwargs": {}, "fast_tokenizer_files": ["tokenizer.json"]}),
        ("video_preprocessor_config.json", {"font": "Roboto-Regular.ttf"}),
        (
            "training_config.json",
            {"backbone": "openai/clip-vit-large-patch14", "vocab_file": __file__, "transformers_weights": "../base"},
        ),
    ],
)
def test_usual_settings_are_read(checkpoint: Path, file: str, setting: dict[str, Any]) -> None:
    def alter(content: dict[str, Any]) -> None:
        for key, value in setting.items():
            content[key] = content.get(key, {}) | value if isinstance(value, dict) else value

    if not (checkpoint / file).exists():
        (checkpoint / file).write_text("{}")
    change_settings(checkpoint / file, alter)
    assert find_problem(checkpoint) == ""


def test_shards_of_a_distributed_training_take_no_precedence(checkpoint: Path) -> None:
    shutil.copy(checkpoint / "model.safetensors", checkpoint / "shard-00000-model-00001-of-00001.safetensors")
    assert "has shards of a distributed training (shard-00000-model-00001-of-00001.safetensors)" in find_problem(
        checkpoint
    )


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/", "a/b", "a\\b", "../a", "/a", "C:a", "C:/a", "a/", "a\0b", 7, None, ["a"]]
)
def test_a_plain_name_has_no_directory(name: Any) -> None:
    assert not is_plain(name)


@pytest.mark.parametrize("name", ["a", "model.safetensors", "a b.json", "...", "é"])
def test_plain_names(name: str) -> None:
    assert is_plain(name)
