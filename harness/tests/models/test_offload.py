"""A model with weights that accelerate offloads to CPU or disk gives the same profile as a model in memory."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload, disk_offload
from safetensors.torch import load_file, save_file

import harness.models.placement
import harness.models.pretrained
from harness.data.datasets import DATASETS
from harness.data.sample import Dataset
from harness.judgement.weights import weight_parts
from harness.models.checkpoints.weight_files import refuse_weight_files
from harness.models.offloaded import OffloadError, load_offloaded, weights_loaded
from harness.models.placement import placement_options, remove_with
from harness.models.registry import LoadRequest, find_model
from harness.models.vlm import Vlm, load_vlm
from harness.models.weights_error import WeightsError
from harness.profile.profile import Profile
from harness.tests.support.case_runs import ROOT
from harness.tests.support.dead import dead_tag
from harness.tests.support.saved_weights import hash_weights
from harness.tests.support.tiny import have_same_numbers, tiny_profile, tiny_samples, tiny_vlm

CPU = torch.device("cpu")
CONTROLS = ("noise", "blank")


def to_cpu(model: Any, _: Path) -> None:
    cpu_offload(model, execution_device=CPU)


def to_disk(model: Any, folder: Path) -> None:
    disk_offload(model, str(folder), execution_device=CPU)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "tiny", Dataset("tiny", "tiny", lambda n, *_: tiny_samples(n)))


@pytest.fixture(scope="module")
def in_memory() -> Callable[[], Profile]:
    profiles: list[Profile] = []

    def measure_once() -> Profile:
        if not profiles:
            profiles.append(tiny_profile(tiny_vlm(), controls=CONTROLS))
        return profiles[0]

    return measure_once


def assert_same(first: Profile, second: Profile) -> None:
    """Assert equality bit for bit: weights, curves, attention, lens, controls and plotted samples."""
    assert first.weights == second.weights
    assert have_same_numbers(first, second)
    for control, curves in first.controls.items():
        for name, curve in curves.items():
            np.testing.assert_array_equal(second.controls[control][name], curve)
    for plotted, reloaded in zip(first.drawings, second.drawings, strict=True):
        np.testing.assert_array_equal(reloaded.norm_rows, plotted.norm_rows)
        assert (reloaded.image_tokens, reloaded.last_token) == (plotted.image_tokens, plotted.last_token)


def is_fully_offloaded(vlm: Vlm) -> bool:
    return all(parameter.is_meta for parameter in vlm.model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("offload", [to_cpu, to_disk])
def test_an_offloaded_model_gives_the_profile_of_one_in_memory(
    offload: Callable[[Any, Path], None], tmp_path: Path, in_memory: Callable[[], Profile]
) -> None:
    vlm = tiny_vlm()
    offload(vlm.model, tmp_path)
    assert is_fully_offloaded(vlm)
    assert_same(in_memory(), tiny_profile(vlm, controls=CONTROLS))
    assert is_fully_offloaded(vlm)


def test_weights_are_loaded_only_inside_the_block() -> None:
    head = tiny_vlm().model.lm_head
    before = head.weight.clone()
    cpu_offload(head, execution_device=CPU)
    with weights_loaded(head), weights_loaded(head):
        assert torch.equal(head.weight, before)
    assert head.weight.is_meta
    with pytest.raises(ZeroDivisionError), weights_loaded(head):
        raise ZeroDivisionError
    assert head.weight.is_meta


def test_meta_weights_without_a_copy_are_refused_in_one_sentence() -> None:
    vlm = tiny_vlm()
    vlm.model.lm_head.to("meta")
    with pytest.raises(OffloadError, match=r"Linear are on the meta device and accelerate has no copy .*device_map"):
        tiny_profile(vlm)


def test_a_fork_that_ends_leaves_the_weights_to_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def survives_release(process: int) -> bool:
        """Return True if the folder exists after another process released a model of process `process`."""
        model = torch.nn.Identity()
        remove_with(model, {"offload_folder": str(tmp_path / "weights")})
        (tmp_path / "weights").mkdir(exist_ok=True)
        with monkeypatch.context() as context:
            context.setattr(os, "getpid", lambda: process)
            del model
            gc.collect()
        return (tmp_path / "weights").exists()

    assert survives_release(os.getpid() + 1)
    assert not survives_release(os.getpid())


@pytest.mark.slow
def test_offloaded_weights_whose_file_is_gone_are_refused_in_one_sentence(tmp_path: Path) -> None:
    vlm = tiny_vlm()
    to_disk(vlm.model, tmp_path / "weights")
    shutil.rmtree(tmp_path / "weights")
    with pytest.raises(OffloadError, match=r"weights of Linear cannot be read .*No such file.*keep the offload folder"):
        tiny_profile(vlm)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    vlm = tiny_vlm()
    vlm.model.save_pretrained(tmp_path / "mine")
    vlm.processor.save_pretrained(tmp_path / "mine")
    return tmp_path / "mine"


def load_with_memory(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, memory_share: float) -> Vlm:
    """Load the checkpoint on a simulated machine whose memory holds this share of it."""
    free_bytes = int(memory_share * (checkpoint / "model.safetensors").stat().st_size)
    monkeypatch.setattr(harness.models.placement, "_free_memory", lambda: free_bytes)
    return load_vlm(find_model(str(checkpoint)), cache=checkpoint.parent, device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize(("memory_share", "offloaded"), [(1.1, False), (0.9, True), (0.0, True)])
def test_a_checkpoint_that_outgrows_the_memory_is_measured_from_disk(
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_memory: Callable[[], Profile],
    memory_share: float,
    offloaded: bool,
) -> None:
    vlm = load_with_memory(checkpoint, monkeypatch, memory_share)
    assert any(parameter.is_meta for parameter in vlm.model.parameters()) == offloaded
    assert_same(in_memory(), tiny_profile(vlm, controls=CONTROLS))
    assert weight_parts(vlm) == weight_parts(tiny_vlm())
    assert vlm.device == CPU
    # The model's files on disk are deleted with it.
    del vlm
    gc.collect()
    assert not list((checkpoint.parent / "offload").glob("*"))


def test_the_offload_directory_is_deleted_if_loading_fails(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    del tensors[next(name for name in tensors if "layers.2.mlp.up_proj" in name and "language" in name)]
    save_file(tensors, path, metadata={"format": "pt"})
    monkeypatch.setattr(harness.models.pretrained, "try_weights", lambda *_: None)
    with pytest.raises(WeightsError, match="lacks weights"):
        load_with_memory(checkpoint, monkeypatch, 0.0)
    assert (checkpoint.parent / "offload").is_dir()
    assert not list((checkpoint.parent / "offload").glob("*"))


KILLED = """
import os, signal, sys
from pathlib import Path
from harness.models import placement
from harness.models.registry import find_model
from harness.models.vlm import load_vlm
placement._free_memory = lambda: 0
vlm = load_vlm(find_model(sys.argv[1]), cache=Path(sys.argv[2]), device="cpu")
assert any(parameter.is_meta for parameter in vlm.model.parameters())
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_the_next_load_deletes_the_offload_directory_of_a_killed_process(checkpoint: Path) -> None:
    cache = checkpoint.parent / "cache"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(checkpoint), str(cache)], cwd=ROOT, check=False)
    assert killed.returncode == -9
    assert len(list((cache / "offload").iterdir())) == 1
    # Every load cleans up, even of a model that fits into memory.
    load_vlm(find_model(str(checkpoint)), cache=cache, device="cpu")
    assert list((cache / "offload").iterdir()) == []


def test_an_offload_directory_of_a_living_process_stays(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = load_with_memory(checkpoint, monkeypatch, 0.0)
    before = list((checkpoint.parent / "offload").iterdir())
    dead = checkpoint.parent / "offload" / f".{dead_tag()}.0.phase-part"
    dead.mkdir()
    reloaded = load_with_memory(checkpoint, monkeypatch, 1.1)
    assert list((checkpoint.parent / "offload").iterdir()) == before
    assert len(before) == 1
    assert hash_weights(vlm.model) == hash_weights(reloaded.model)


def test_weights_that_changed_on_disk_have_another_hash(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = load_with_memory(checkpoint, monkeypatch, 0.0)
    before, parts = hash_weights(vlm.model), weight_parts(vlm)
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "layers.2.mlp.up_proj" in name and "language" in name)
    tensors[name][0, 0] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    reloaded = load_with_memory(checkpoint, monkeypatch, 0.0)
    assert hash_weights(reloaded.model) not in (before, "")
    changed = weight_parts(reloaded)
    assert [first == second for first, second in zip(parts.layers, changed.layers, strict=True)] == [
        True,
        True,
        False,
        True,
    ]
    assert parts.others == changed.others


def test_offloaded_tensors_are_hashed_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_slowly(*arguments: Any) -> Any:
        assert reading.acquire(blocking=False), "two tensors are read together"
        time.sleep(1e-4)
        reading.release()
        return load_offloaded(*arguments)

    model, reading = tiny_vlm().model, threading.Lock()
    in_memory = hash_weights(model)
    cpu_offload(model, execution_device=CPU)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr("harness.models.offloaded.load_offloaded", load_slowly)
    assert hash_weights(model) == in_memory


def test_tied_weights_have_the_same_hash_when_offloaded(tmp_path: Path) -> None:
    def make_tied() -> Any:
        model = tiny_vlm().model
        model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
        model.tie_weights()
        model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)
        assert model.lm_head.weight is model.get_input_embeddings().weight
        return model

    in_memory = hash_weights(make_tied())
    for offload in (to_cpu, to_disk):
        model = make_tied()
        offload(model, tmp_path)
        assert hash_weights(model) == in_memory


GIGABYTE = 2**30


@pytest.mark.parametrize(
    ("device", "free", "expected"),
    [
        ("cuda", [GIGABYTE, GIGABYTE], {"": torch.device("cuda")}),
        ("cuda", [1000, 2000], {0: 850, 1: 1700, "cpu": 7 * GIGABYTE}),
        ("cuda:1", [GIGABYTE, 2000], {1: 1700, "cpu": 7 * GIGABYTE}),
        ("mps", [], None),
    ],
)
def test_a_model_goes_to_one_gpu_or_to_all_and_to_memory(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, device: str, free: list[int], expected: Any
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(free))
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda gpu: (free[gpu], 0))
    monkeypatch.setattr(harness.models.placement, "_free_memory", lambda: 7 * GIGABYTE)
    headers = refuse_weight_files(checkpoint, "mine")
    with placement_options(headers, LoadRequest(checkpoint.parent, torch.float32, torch.device(device))) as placed:
        assert placed.get("max_memory", placed.get("device_map")) == expected
        assert ("offload_folder" in placed) == (placed.get("device_map") == "auto")
