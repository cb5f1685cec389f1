"""Errors for paths without a checkpoint."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from harness.models.registry import find_model, no_directory
from harness.models.vlm import load_vlm
from harness.models.weights_error import WeightsError
from harness.tests.support.saved_checkpoints import checkpoint, checkpoint_templates, sharded_checkpoint

__all__ = ["checkpoint", "checkpoint_templates", "sharded_checkpoint"]


@pytest.fixture
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, which contains a checkpoint out/checkpoint."""
    (tmp_path / "out" / "checkpoint").mkdir(parents=True)
    (tmp_path / "out" / "checkpoint" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("text", ["out/checkpoint", "out/checkpoint/", "./out/checkpoint", "~/out/checkpoint"])
def test_all_spellings_of_a_directory_are_accepted(working_directory: Path, text: str) -> None:
    assert find_model(text).source == str(working_directory / "out" / "checkpoint")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("./out/chekpoint", "there is no directory './out/chekpoint' (there is 'out/checkpoint'): check the path"),
        ("~/out/chekpoint", "there is no directory '~/out/chekpoint' (there is "),
        ("out/chekpoint/", "there is no directory 'out/chekpoint/' (there is 'out/checkpoint')"),
        (
            "../elsewhere/x/y",
            "there is no directory '../elsewhere/x/y' ('../elsewhere' does not exist): check the path",
        ),
        ("/no-such-root/x", "there is no directory '/no-such-root/x' ('/no-such-root' does not exist)"),
        ("out/checkpoint/config.json", "is a file: give the directory that holds it, 'out/checkpoint'"),
        ("https://huggingface.co/some/model", "is a URL: give a directory, or the repository as ORG/NAME"),
        ("out", "has no config.json, but a directory in it does: give 'out/checkpoint'"),
    ],
)
def test_a_path_to_no_checkpoint_is_refused(working_directory: Path, text: str, message: str) -> None:
    with pytest.raises(LookupError) as caught:
        find_model(text)
    assert message in str(caught.value)


def test_the_newest_of_several_directories_is_suggested(working_directory: Path) -> None:
    shutil.copytree("out/checkpoint", "out/later")
    os.utime("out/checkpoint/config.json", (1, 1))
    with pytest.raises(LookupError, match=r"give 'out/later' \(the newest of 2\)"):
        find_model("out")


def test_the_error_explains_that_a_mistyped_path_is_taken_as_a_repository(working_directory: Path) -> None:
    message = (
        "there is no directory 'out/chekpoint' here (there is 'out/checkpoint'), so it is taken as a repository of "
    )
    entry = find_model("out/chekpoint")
    assert no_directory("out/chekpoint").startswith(message)
    assert str(entry.unavailable(download=False)).startswith(
        f"{message}the hub: out/chekpoint is not in the local cache"
    )
    with pytest.raises(WeightsError, match="so it is taken as a repository of the hub: out/chekpoint is not in"):
        load_vlm(entry, cache=working_directory, device="cpu")


def test_an_adapter_error_lists_the_commands_that_merge_it(tmp_path: Path) -> None:
    adapter = {"base_model_name_or_path": "some/base", "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter))
    with pytest.raises(LookupError) as caught:
        find_model(str(tmp_path))
    adapter_problem = "is a PEFT adapter (adapter_config.json) for 'some/base' and not a complete model: merge"
    assert adapter_problem in str(caught.value)
    assert "M.from_pretrained('some/base')" in str(caught.value)
    assert f"{str(tmp_path)!r}).merge_and_unload()" in str(caught.value)


def test_an_adapter_of_a_model_in_memory_names_no_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": None}))
    with pytest.raises(LookupError, match=r"that it does not name \(BASE below\) .*from_pretrained\('BASE'\)"):
        find_model(str(tmp_path))


def test_an_adapter_beside_a_model_is_refused(checkpoint: Path) -> None:
    (checkpoint / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    assert "move adapter_* out of the directory to measure the model alone" in str(
        find_model(str(checkpoint)).unavailable(download=False)
    )


def test_the_format_of_llavas_own_code_is_named(checkpoint: Path) -> None:
    settings = {"model_type": "llava", "mm_vision_tower": "openai/clip", "hidden_size": 64}
    (checkpoint / "config.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match=r"in the format of LLaVA's own code \(config.json has mm_vision_tower"):
        load_vlm(find_model(str(checkpoint)), cache=checkpoint, device="cpu")


def test_invalid_json_is_reported_with_its_file(checkpoint: Path) -> None:
    path = checkpoint / "config.json"
    content = path.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + content)
    with pytest.raises(WeightsError, match=r"config\.json starts with a byte order mark, which transformers does not"):
        load_vlm(find_model(str(checkpoint)), cache=checkpoint, device="cpu")
    path.write_bytes(content[:-20])
    with pytest.raises(WeightsError, match=r"config\.json is not valid JSON \(.*line \d+.*\): fix it or copy it"):
        load_vlm(find_model(str(checkpoint)), cache=checkpoint, device="cpu")


def empty_checkpoint(directory: Path) -> Path:
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    return directory


@pytest.mark.parametrize(
    ("directory", "name"),
    [
        ("my own llava", "my-own-llava"),
        ("llava=2+lora", "llava-2-lora"),
        ("\u6a21\u578b-\u7532", "\u6a21\u578b-\u7532"),
        ("Qwen2.5-VL", "Qwen2.5-VL"),
    ],
)
def test_a_checkpoint_is_named_after_its_directory(tmp_path: Path, directory: str, name: str) -> None:
    assert find_model(str(empty_checkpoint(tmp_path / directory))).name == name


def test_checkpoints_that_differ_in_non_ascii_characters_have_different_names(tmp_path: Path) -> None:
    directories = ("\u0939\u093f", "\u0939\u0941", "\u0939-", "v\U0001f600", "v\U0001f389", "v-", "v")
    names = [find_model(str(empty_checkpoint(tmp_path / directory))).name for directory in directories]
    assert len(set(names)) == len(directories)
    assert all(re.fullmatch(r"[\w.-]+(~[0-9a-f]{12})?", name) for name in names)
