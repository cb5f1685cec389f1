"""Weight files of a checkpoint directory: a complete set, or an error before any weight is read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.models.checkpoints.weight_files import refuse_weight_files, weight_files
from harness.models.registry import find_model
from harness.models.vlm import load_vlm
from harness.models.weights_error import WeightsError
from harness.tests.support.case_runs import Cases
from harness.tests.support.saved_checkpoints import (
    change_settings,
    change_weights,
    checkpoint,
    checkpoint_templates,
    sharded_checkpoint,
)

__all__ = ["checkpoint", "checkpoint_templates", "sharded_checkpoint"]


def refusal(folder: Path) -> str:
    """Return the error for a directory, which is the same at collection and at loading."""
    entry = find_model(str(folder))
    with pytest.raises(WeightsError) as caught:
        load_vlm(entry, cache=folder.parent, device="cpu")
    assert str(caught.value) == entry.unavailable(download=False)
    return str(caught.value)


def test_complete_sets_pass_and_their_headers_are_read(checkpoint: Path, sharded_checkpoint: Path) -> None:
    assert [path.name for path in weight_files(checkpoint)] == ["model.safetensors"]
    assert len(weight_files(sharded_checkpoint)) > 2
    tensors, sharded_tensors = (refuse_weight_files(folder, "mine") for folder in (checkpoint, sharded_checkpoint))
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        name: tensor.shape for name, tensor in sharded_tensors.items()
    }
    stored = sum(tensor.size() for tensor in tensors.values())
    assert stored == sum(tensor.nbytes for tensor in load_file(checkpoint / "model.safetensors").values())
    assert sum(tensor.size(2) for tensor in tensors.values()) == stored / 2
    assert find_model(str(checkpoint)).unavailable(download=False) is None


def test_the_weight_file_that_the_configuration_names_is_read(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "own.safetensors")
    change_settings(checkpoint / "config.json", lambda c: c.update(transformers_weights="own.safetensors"))
    assert [path.name for path in weight_files(checkpoint)] == ["own.safetensors"]


def remove_shard(folder: Path) -> None:
    sorted(folder.glob("model-*"))[1].unlink()


def remove_all_shards(folder: Path) -> None:
    for path in folder.glob("model-*"):
        path.unlink()


def remove_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").unlink()


def add_older_shard(folder: Path) -> None:
    shutil.copy(sorted(folder.glob("model-*"))[0], folder / "model-00001-of-00099.safetensors")


def add_publisher_file(folder: Path) -> None:
    shutil.copy(sorted(folder.glob("model-*"))[0], folder / "consolidated.safetensors")


def remove_shard_from_index(folder: Path) -> None:
    def alter(index: dict[str, Any]) -> None:
        weights = index["weight_map"]
        index["weight_map"] = {name: file for name, file in weights.items() if not file.startswith("model-00002")}

    change_settings(folder / "model.safetensors.index.json", alter)


def write_lfs_pointer(folder: Path) -> None:
    sorted(folder.glob("model-*"))[1].write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def break_links(folder: Path) -> None:
    for path in (folder / "model.safetensors.index.json", *folder.glob("model-*")):
        path.unlink()
        path.symlink_to(f"../../blobs/{path.name}")


def fill_end_with_zeros(folder: Path) -> None:
    path = sorted(folder.glob("model-*"))[1]
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(content[: header + 16].ljust(len(content), b"\0"))


def duplicate_weight(folder: Path) -> None:
    first, second = sorted(folder.glob("model-*"))[:2]
    name, tensor = next(iter(load_file(first).items()))
    save_file(load_file(second) | {name: tensor}, second, {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_shard, "weight files that its index or config.json names, first 'model-00002-of-"),
        (remove_all_shards, "weight files that its index or config.json names, first 'model-00001-of-"),
        (remove_index, "has no model.safetensors but shards without their index (model-00001-of-"),
        (add_older_shard, "more and ignores model-00001-of-00099.safetensors; move the unwanted set out"),
        (add_publisher_file, "more and ignores consolidated.safetensors; move the unwanted set out"),
        (remove_shard_from_index, "has an index without the weights of model-00002-of-"),
        (write_lfs_pointer, "has 1 git-lfs pointers in the place of files, first 'model-00002-of-"),
        (break_links, "has no model.safetensors but links to missing files (first model-00001-of-"),
        (fill_end_with_zeros, ".weight), as left by an interrupted copy whose full size was reserved"),
        (duplicate_weight, "its index mixes two sets of weights; save the model again into an empty directory"),
    ],
)
def test_incomplete_or_mixed_shards_are_refused(
    sharded_checkpoint: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(sharded_checkpoint)
    assert message in refusal(sharded_checkpoint)


def test_an_old_single_file_beside_newer_shards_is_refused_unless_allowed(
    checkpoint: Path, sharded_checkpoint: Path
) -> None:
    shutil.copy(checkpoint / "model.safetensors", sharded_checkpoint / "model.safetensors")
    assert "transformers reads model.safetensors and ignores model-00001-of-" in refusal(sharded_checkpoint)
    assert refusal(sharded_checkpoint).endswith(f"or add --phase-allow-unused-weights {sharded_checkpoint}")
    entry, lines = replace(find_model(str(sharded_checkpoint)), unused_weights=True), list[str]()
    assert entry.unavailable(download=False) is None
    assert load_vlm(entry, cache=sharded_checkpoint.parent, device="cpu", say=lines.append).anatomy.depth == 4
    assert [line.split(" are ")[0] for line in lines] == [f"UNUSED WEIGHTS of the checkpoint {sharded_checkpoint}"]


def test_a_run_reports_it_once_before_any_measurement(cases: Cases, checkpoint: Path) -> None:
    change_settings(checkpoint / "config.json", lambda config: config["text_config"].update(num_hidden_layers=3))
    pair = ("--phase-model", str(checkpoint), "--phase-dataset", "tiny")
    for problem in ("has weights that its model does not use", "has no weights, neither"):
        result = cases.run(pair=pair)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"*was requested and cannot be measured here: *mine {problem} *"])
        assert result.stderr.str().count(problem) == 1
        (checkpoint / "model.safetensors").unlink(missing_ok=True)


@pytest.mark.parametrize("shape", [(0,), (0, 8)])
def test_empty_weights_of_zero3_are_detected_by_their_headers(checkpoint: Path, shape: tuple[int, ...]) -> None:
    def alter(weights: dict[str, torch.Tensor]) -> None:
        for name in [name for name in weights if "language_model" in name and "proj" in name] + [max(weights)]:
            weights[name] = torch.zeros(shape)

    change_weights(checkpoint, alter)
    message = refusal(checkpoint)
    assert "has weights without values (language_model.model.layers.0.mlp.down_proj.weight, " in message
    assert "zero_to_fp32.py" in message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "global_step100/mp_rank_00_model_states.pt",
            "a DeepSpeed checkpoint (global_step100): run its zero_to_fp32.py",
        ),
        ("pytorch_model_fsdp_0/.metadata", "FSDP shards (pytorch_model_fsdp_0): merge them with `accelerate merge-"),
        ("iter_0001000/mp_rank_00/model.pt", "a Megatron checkpoint (iter_0001000): convert it"),
        ("consolidated.00.pth", "weights in their publisher's own format (consolidated.00.pth): take the version for"),
        ("llava.Q4_K_M.gguf", "GGUF (llava.Q4_K_M.gguf): give the transformers checkpoint that it was made from"),
        (
            "pytorch_model.bin",
            "pickles, which can run code and are never opened (pytorch_model.bin): if you trust them",
        ),
        ("model.safetensors.incomplete", "an unfinished download (model.safetensors.incomplete): finish it"),
        (
            "weights.safetensors",
            "safetensors under another name (weights.safetensors): rename a single file to model.safetensors",
        ),
    ],
)
def test_weights_in_another_format_are_reported_by_its_name(
    checkpoint: Path, tmp_path: Path, name: str, message: str
) -> None:
    (checkpoint / "model.safetensors").unlink()
    path = checkpoint / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert f"mine has no model.safetensors but {message}" in refusal(checkpoint)
    (checkpoint / "config.json").unlink()
    with pytest.raises(LookupError) as caught:
        find_model(str(checkpoint))
    assert f"has no config.json but {message}" in str(caught.value)
