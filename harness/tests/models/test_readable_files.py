"""Files of a checkpoint that are no files, have no end or lie elsewhere: one sentence, and none of them is opened."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers.models.auto import tokenization_auto

from harness.models.checkpoints.checkpoint_directory import directory_problem, refuse_foreign
from harness.models.checkpoints.readable_files import readable_files
from harness.models.registry import find_model
from harness.models.vlm import load_vlm
from harness.models.weights_error import WeightsError
from harness.tests.support.no_files import link_endless_device, make_pipe, make_socket
from harness.tests.support.saved_checkpoints import checkpoint, checkpoint_templates, sharded_checkpoint

__all__ = ["checkpoint", "checkpoint_templates", "sharded_checkpoint"]

# Read by the harness, by transformers, and from the folders of both.
READ_FILES = (
    "config.json",
    "own_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "merges.txt",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "adapter_config.json",
    "qformer_tokenizer/tokenizer_config.json",
    "qformer_tokenizer/vocab.txt",
    "additional_chat_templates/other.jinja",
)
posix = pytest.mark.skipif(os.name != "posix", reason="pipes, sockets and devices have no paths here")


def find_problem(folder: Path) -> str:
    """The reason why a directory is refused, without a weight being read; empty if it is not."""
    return directory_problem(folder, str(folder), unused=False) or ""


def unused_path(folder: Path, name: str) -> Path:
    """Return the path of a file, with nothing there any more."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    return path


@posix
@pytest.mark.parametrize("make", [make_pipe, make_socket, link_endless_device])
@pytest.mark.parametrize("name", READ_FILES)
def test_a_pipe_socket_or_device_is_refused_unopened(checkpoint: Path, name: str, make: Callable[[Path], None]) -> None:
    make(unused_path(checkpoint, name))
    message = (
        f"the checkpoint {checkpoint} has {name!r}, which is not read (it is a pipe or a device): replace it by a "
        "regular "
    )
    assert find_problem(checkpoint).startswith(message)
    with pytest.raises(WeightsError, match="it is a pipe or a device"):
        refuse_foreign(checkpoint, str(checkpoint))


@posix
def test_a_pipe_instead_of_the_config_is_reported(checkpoint: Path) -> None:
    make_pipe(unused_path(checkpoint, "config.json"))
    with pytest.raises(
        LookupError, match=r"has a config\.json that is not a regular file: replace it by the file itself"
    ):
        find_model(str(checkpoint))


@pytest.mark.parametrize("name", [name for name in READ_FILES if name != "model.safetensors"])
def test_a_file_without_end_is_refused_unopened(checkpoint: Path, name: str) -> None:
    with unused_path(checkpoint, name).open("wb") as file:
        file.truncate(1 << 40)
    assert f"has {name!r}, which is not read (it is larger than " in find_problem(checkpoint)


def test_settings_of_millions_of_parts_are_refused(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text(f'{{"parts": [{"[], " * 300_000}[]]}}')
    assert find_problem(checkpoint).endswith(
        "config.json has more than 262,144 lists and objects: copy it again, or save it again"
    )


def test_a_terabyte_of_zeros_is_refused_quickly(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.models.checkpoints.weight_files._MOST_ZEROS", 1 << 24)
    header = json.dumps(
        {"weight": {"dtype": "F32", "shape": [1 << 20, 1 << 18], "data_offsets": [0, 1 << 40]}}
    ).encode()
    with (checkpoint / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + (1 << 40))
    assert "model.safetensors ends in zeros (in weight), as left by an interrupted copy" in find_problem(checkpoint)


@posix
def test_unread_files_may_be_pipes_or_links(checkpoint: Path, tmp_path: Path) -> None:
    make_pipe(checkpoint / "log")
    make_pipe(checkpoint / "pytorch_model.bin")
    link_endless_device(checkpoint / "trainer_state.json")
    (checkpoint / "README.md").symlink_to(tmp_path)
    (checkpoint / "out").mkdir()
    make_pipe(checkpoint / "out" / "config.json")
    make_pipe(checkpoint / "tokenizer_corpus.txt.gz")
    (checkpoint / "tokenizer" / "tokenizer.json").mkdir(parents=True)
    assert find_problem(checkpoint) == ""
    assert load_vlm(find_model(str(checkpoint)), cache=tmp_path, device="cpu").anatomy.depth == 4


@posix
def test_a_damaged_file_is_reported_even_if_an_unused_pipe_exists(checkpoint: Path) -> None:
    make_pipe(checkpoint / "a.json")
    (checkpoint / "chat_template.json").write_text("{")
    with pytest.raises(WeightsError, match=r"chat_template\.json is not valid JSON"):
        load_vlm(find_model(str(checkpoint)), cache=checkpoint.parent, device="cpu")


@pytest.mark.parametrize("name", [*READ_FILES[:4], "chat_template.jinja", "tokenizer.json", *READ_FILES[-3:]])
def test_a_link_out_of_the_directory_is_refused(checkpoint: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    source = tmp_path / "elsewhere" / Path(name).name
    shutil.copy(checkpoint / name if (checkpoint / name).exists() else checkpoint / "tokenizer_config.json", source)
    unused_path(checkpoint, name).symlink_to(source)
    message = (
        f"the checkpoint {checkpoint} has {name!r}, a link out of the directory (to {str(source)!r}), but only files "
    )
    assert find_problem(checkpoint).startswith(
        f"{message}inside are read: give a copy of it without links (cp -rL), or the"
    )


def test_a_folder_that_links_out_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(checkpoint / "tokenizer_config.json", tmp_path / "elsewhere")
    (checkpoint / "qformer_tokenizer").symlink_to(tmp_path / "elsewhere")
    assert "has 'qformer_tokenizer/tokenizer_config.json', a link out of the directory" in find_problem(checkpoint)


def test_links_within_the_directory_and_to_it_are_read(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "store").mkdir()
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (checkpoint / name).rename(checkpoint / "store" / name)
        (checkpoint / name).symlink_to(f"store/{name}")
    (tmp_path / "linked").symlink_to(checkpoint)
    assert find_problem(tmp_path / "linked") == ""
    assert load_vlm(find_model(str(tmp_path / "linked")), cache=tmp_path, device="cpu").anatomy.depth == 4


@pytest.mark.parametrize("relocated", ["", "hub", "hub/models--some--body", "hub/models--some--body/blobs"])
def test_a_snapshot_of_links_to_its_blobs_is_read(sharded_checkpoint: Path, tmp_path: Path, relocated: str) -> None:
    repository = tmp_path / "hub" / "models--some--body"
    snapshot = repository / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, path in enumerate(sharded_checkpoint.iterdir()):
        path.rename(repository / "blobs" / f"{number:040x}")
        (snapshot / path.name).symlink_to(f"../../blobs/{number:040x}")
    if relocated:
        (tmp_path / relocated).rename(tmp_path / "disk")
        (tmp_path / relocated).symlink_to(tmp_path / "disk")
    assert find_problem(snapshot) == ""
    assert load_vlm(find_model(str(snapshot)), cache=tmp_path, device="cpu").anatomy.depth == 4
    (snapshot / "chat_template.jinja").unlink(missing_ok=True)
    (tmp_path / "other.jinja").write_text("<image>")
    (snapshot / "chat_template.jinja").symlink_to(tmp_path / "other.jinja")
    assert "has 'chat_template.jinja', a link out of the directory" in find_problem(snapshot)


def test_a_directory_that_only_looks_like_a_snapshot_has_no_blobs_elsewhere(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshots").mkdir()
    folder = checkpoint.rename(tmp_path / "snapshots" / "mine")
    (folder / "config.json").rename(tmp_path / "blobs" / "a")
    (folder / "config.json").symlink_to("../../blobs/a")
    assert "has 'config.json', a link out of the directory" in find_problem(folder)


def test_a_snapshot_whose_blobs_lead_to_other_files_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--some--body"
    (repository / "snapshots").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (repository / "blobs").symlink_to(tmp_path / "elsewhere")
    folder = checkpoint.rename(repository / "snapshots" / "0123abc")
    (folder / "config.json").rename(tmp_path / "elsewhere" / "a")
    (folder / "config.json").symlink_to("../../blobs/a")
    assert "has 'config.json', a link out of the directory" in find_problem(folder)


def test_every_file_that_a_tokenizer_of_transformers_opens_is_checked(tmp_path: Path) -> None:
    names = set()
    for class_name in {name for name in tokenization_auto.TOKENIZER_MAPPING_NAMES.values() if name}:
        try:
            names |= set(tokenization_auto.tokenizer_class_from_name(class_name).vocab_files_names.values())
        except (ImportError, AttributeError):
            continue
    assert {"tokenizer.json", "vocab.json", "merges.txt", "spiece.model"} <= names
    for name in names:
        (tmp_path / name).touch()
    assert {path.name for path in readable_files(tmp_path)} == names
