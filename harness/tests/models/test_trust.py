"""Hostile checkpoints: no code of theirs runs, no file outside is read, and each is refused in one sentence."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from harness.errors import PhaseError, printable
from harness.lab.training.train import read_checkpoint
from harness.models.prompts import template_process
from harness.models.prompts.chat import prompt_text, refuse_endless_template
from harness.models.registry import MODELS, WEIGHT_FILES, find_model
from harness.models.vlm import Vlm, load_vlm
from harness.models.weights_error import WeightsError
from harness.tests.support.hostile_code import MARKER, Payload, marker_program, payload_ran
from harness.tests.support.tiny import tiny_vlm


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint that tests must not modify."""
    directory = tmp_path_factory.mktemp("saved") / "tiny"
    vlm = tiny_vlm()
    vlm.model.save_pretrained(directory)
    vlm.processor.save_pretrained(directory)
    return directory


@pytest.fixture
def directory(saved: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint for hostile changes. Any code in it creates a marker file when it runs."""
    shutil.copytree(saved, tmp_path / "mine")
    (tmp_path / "mine" / "own.py").write_text(marker_program(tmp_path / "mine") + "class Own: pass\n")
    return tmp_path / "mine"


def load(directory: Path) -> Vlm:
    return load_vlm(find_model(str(directory)), cache=directory.parent, device="cpu")


def refusal(directory: Path) -> str:
    with pytest.raises(PhaseError) as caught:
        load(directory)
    message = str(caught.value)
    assert message.isprintable()
    assert str(directory) in message
    assert len(message) < 800
    assert not payload_ran(directory)
    return message


def change(path: Path, alter: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    alter(content)
    path.write_text(json.dumps(content))


def write_index(directory: Path, shard: str) -> None:
    with safe_open(directory / "model.safetensors", "pt") as weights:
        names = list(weights.keys())
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, shard)})
    )


def replace_weights_by_pickle(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    torch.save({"weight": Payload(directory)}, directory / "pytorch_model.bin")


def index_of_pickles(directory: Path) -> None:
    replace_weights_by_pickle(directory)
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"w": "pytorch_model.bin"}}))


def shards_outside(directory: Path) -> None:
    write_index(directory, "../outside.safetensors")
    (directory / "model.safetensors").rename(directory.parent / "outside.safetensors")


def shards_at_an_absolute_path(directory: Path) -> None:
    write_index(directory, str(directory.parent / "outside.safetensors"))
    (directory / "model.safetensors").rename(directory.parent / "outside.safetensors")


def shards_that_are_pickles(directory: Path) -> None:
    write_index(directory, "pytorch_model.bin")
    replace_weights_by_pickle(directory)


def adapter_beside_the_model(directory: Path) -> None:
    (directory / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "../elsewhere"}))


def kernel_from_the_hub(directory: Path) -> None:
    change(directory / "config.json", lambda c: c["text_config"].update(_attn_implementation="someone/kernel"))


def kernels_by_part(directory: Path) -> None:
    change(
        directory / "config.json", lambda c: c.update(attn_implementation={"text_config": "someone/kernel@main:own"})
    )


def code_of_another_repository(directory: Path) -> None:
    change(
        directory / "config.json",
        lambda c: c.update(model_type="own", auto_map={"AutoConfig": "someone/else--own.Own"}),
    )


def pickled_tokenizer(directory: Path) -> None:
    (directory / "tokenizer.json").write_bytes(pickle.dumps(Payload(directory)))


def dotted_image_processor(directory: Path) -> None:
    change(directory / "processor_config.json", lambda c: c["image_processor"].update(image_processor_type="own.Own"))


def deeply_nested_configuration(directory: Path) -> None:
    (directory / "config.json").write_text("[" * 100_000 + "]" * 100_000)


def configuration_without_object(directory: Path) -> None:
    (directory / "config.json").write_text("[]")


def enormous_vocabulary(directory: Path) -> None:
    change(directory / "config.json", lambda c: c["text_config"].update(vocab_size=10**30))


def control_characters_in_the_type(directory: Path) -> None:
    change(directory / "config.json", lambda c: c.update(model_type="\x1b[2J\x1b]0;owned\x07\nphase: all is well"))


REFUSED: dict[Callable[[Path], None], str] = {
    replace_weights_by_pickle: "pickles, which can run code and are never opened (pytorch_model.bin)",
    index_of_pickles: "pickles, which can run code and are never opened (pytorch_model.bin)",
    shards_outside: "takes weights from '../outside.safetensors': only safetensors in its own directory",
    shards_at_an_absolute_path: "only safetensors in its own directory",
    shards_that_are_pickles: "takes weights from 'pytorch_model.bin': only safetensors in its own directory",
    adapter_beside_the_model: "a PEFT adapter (adapter_config.json) beside the weights of a model",
    kernel_from_the_hub: "'someone/kernel', code from another repository: remove _attn_implementation",
    kernels_by_part: "code from another repository: remove attn_implementation",
    code_of_another_repository: "'someone/else--own.Own', code from another repository, which is never fetched",
    pickled_tokenizer: "UnicodeDecodeError",
    dotted_image_processor: "Unrecognized image processor",
    deeply_nested_configuration: "RecursionError",
    configuration_without_object: "config.json holds no settings",
    enormous_vocabulary: "in config.json, but no model has more than 67,108,864",
    control_characters_in_the_type: "cannot be loaded",
}


@pytest.mark.parametrize("hostile", REFUSED, ids=lambda hostile: hostile.__name__)
def test_a_hostile_checkpoint_is_refused_and_nothing_of_it_ran(
    directory: Path, hostile: Callable[[Path], None]
) -> None:
    hostile(directory)
    assert REFUSED[hostile] in refusal(directory)


def names_its_own_code(directory: Path) -> None:
    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        change(directory / name, lambda c: c.update(auto_map={"AutoConfig": "own.Own", "AutoProcessor": "own.Own"}))


def generates_by_its_own_code(directory: Path) -> None:
    (directory / "custom_generate").mkdir()
    (directory / "custom_generate" / "generate.py").write_text(marker_program(directory))
    (directory / "generation_config.json").write_text(json.dumps({"custom_generate": "../own", "max_length": 10}))


def has_pickles_beside(directory: Path) -> None:
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        torch.save(Payload(directory), directory / name)


@pytest.mark.slow
@pytest.mark.parametrize("hostile", [names_its_own_code, generates_by_its_own_code, has_pickles_beside])
def test_unneeded_files_of_a_checkpoint_are_ignored(directory: Path, hostile: Callable[[Path], None]) -> None:
    hostile(directory)
    assert prompt_text(load(directory).processor, "What is it?") == prompt_text(tiny_vlm().processor, "What is it?")
    assert not payload_ran(directory)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ cycler.__init__.__globals__.os.system('touch MARK') }}", "is unsafe"),
        ("{% for i in range(10 ** 8) %}<image>{% endfor %}", "Range too big"),
        ("{% for x in %}", "rejects a message of one image and one text"),
    ],
)
def test_a_template_that_reaches_out_is_refused_by_its_sandbox(directory: Path, template: str, message: str) -> None:
    (directory / "chat_template.jinja").write_text(template.replace("MARK", str(directory.parent / MARKER)) + "<image>")
    with pytest.raises(PhaseError) as caught:
        prompt_text(load(directory).processor, "What is it?")
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert not payload_ran(directory)


@pytest.mark.slow
@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 4000000000 }}",
        "{% for i in range(99999) %}{{ 'many words and more' }}{% endfor %}",
        "{% if strftime_now('%Y') != '%Y' %}{{ 'a' * 4000000000 }}{% endif %}",
    ],
    ids=["loops", "memory", "words", "knows the day"],
)
def test_a_template_without_end_is_stopped(directory: Path, template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_process, "SECONDS", 1)
    (directory / "chat_template.jinja").write_text(template + "<image>")
    assert "does not finish within 1 s, 1 GB of memory and 1,000,000 characters" in refusal(directory)


def test_the_templates_of_the_papers_finish() -> None:
    for name in ("llava-1.5-7b", "instructblip-vicuna-7b"):
        processor = tiny_vlm().processor
        processor.chat_template = MODELS[name].chat_template
        refuse_endless_template(processor, name)


def test_a_training_checkpoint_that_would_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out" / "checkpoint.pt"
    path.parent.mkdir()
    torch.save({"stage": 1, "head": Payload(path.parent)}, path)
    for content in (path.read_bytes(), b"", b"no archive", None):
        path.write_bytes(content) if content is not None else path.unlink()
        with pytest.raises(WeightsError, match=r"checkpoint\.pt cannot be read .*without --resume") as caught:
            read_checkpoint(path)
        assert str(caught.value).isprintable()
    assert not payload_ran(path.parent)


def test_no_pickle_and_no_code_is_fetched() -> None:
    fetched = [pattern.rsplit(".")[-1] for pattern in WEIGHT_FILES]
    assert not {"py", "bin", "pt", "pth", "ckpt", "pkl", "h5", "msgpack", "so"} & set(fetched)
    assert all(entry.files == WEIGHT_FILES for entry in MODELS.values())


@pytest.mark.parametrize("name", ["..", ".", "x/..", "x/.", "../..", "../../x", "../x", ".x/y", "/"])
def test_no_model_is_named_after_a_parent_directory(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    for directory in (tmp_path, tmp_path / "a", tmp_path / "a" / "b"):
        (directory / "config.json").write_text("{}")
    try:
        model_name = find_model(name).name
    except LookupError:
        return
    assert model_name.strip(".")
    assert Path(model_name).name == model_name


def test_messages_escape_control_characters() -> None:
    assert str(PhaseError("id \x1b[31mred\x07\n\u202e\ud800")) == r"id \x1b[31mred\x07\n\u202e\ud800"
    assert printable("a plain sentence") == "a plain sentence"
    assert printable("an id of many letters", 5) == "an id..."
