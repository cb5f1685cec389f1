"""Processors without required settings, unobservable attention, and missing packages."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from harness.models.checkpoints.processor_parts import refuse_incomplete_processor
from harness.models.library_messages import missing_package
from harness.models.registry import find_model
from harness.models.vlm import Vlm, load_vlm
from harness.models.weights_error import WeightsError
from harness.tests.support.saved_checkpoints import (
    change_settings,
    checkpoint,
    checkpoint_templates,
    sharded_checkpoint,
)
from harness.tests.support.tiny import have_same_numbers, tiny_profile, tiny_vlm

__all__ = ["checkpoint", "checkpoint_templates", "sharded_checkpoint"]

FILE = "processor_config.json"


def load(folder: Path, lines: list[str] | None = None) -> Vlm:
    say = ([] if lines is None else lines).append
    return load_vlm(find_model(str(folder)), cache=folder.parent, device="cpu", say=say)


def remove_settings(*names: str) -> Any:
    return lambda content: [content.pop(name, None) for name in names]


def complete_settings(content: dict[str, Any]) -> None:
    content |= {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"),
            'write "patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1 into',
        ),
        (
            ("patch_size",),
            'has no patch_size, so its image tokens would differ .* write "patch_size": 8 into ',
        ),
        (("num_additional_image_tokens",), r'tokens 0, so .* write "num_additional_image_tokens": 1 into .*' + FILE),
    ],
)
def test_a_setting_that_is_missing_is_named_with_its_value(
    checkpoint: Path, tiny_data: None, names: tuple[str, ...], message: str
) -> None:
    change_settings(checkpoint / FILE, remove_settings(*names))
    with pytest.raises(WeightsError, match=message):
        load(checkpoint)
    change_settings(checkpoint / FILE, complete_settings)
    assert have_same_numbers(tiny_profile(load(checkpoint)), tiny_profile(tiny_vlm()))


@pytest.mark.parametrize(
    ("name", "text", "value"), [("patch_size", "8", 8), ("patch_size", 8.0, 8), ("num_additional_image_tokens", "1", 1)]
)
def test_a_number_of_another_type_is_named_with_its_value(checkpoint: Path, name: str, text: Any, value: int) -> None:
    change_settings(checkpoint / FILE, lambda content: content.update({name: text}))
    with pytest.raises(WeightsError, match=rf'has {name} {text!r}, so its .* write "{name}": {value} into .*{FILE}'):
        load(checkpoint)


def test_a_number_stored_as_text_is_reported_for_the_configuration(checkpoint: Path) -> None:
    change_settings(checkpoint / "config.json", lambda content: content["vision_config"].update(patch_size="8"))
    with pytest.raises(WeightsError, match=r"'patch_size'.*: write a value of the expected type .* into config.json"):
        load(checkpoint)


def test_an_unknown_image_processor_is_reported_with_a_remedy(checkpoint: Path) -> None:
    change_settings(
        checkpoint / FILE, lambda content: content["image_processor"].update(image_processor_type="MyProcessor")
    )
    with pytest.raises(WeightsError, match="copy the processor's files from the model that it was trained from"):
        load(checkpoint)


@pytest.mark.parametrize("part", [None, {}, "absent"])
def test_an_empty_processor_is_reported_as_missing(checkpoint: Path, part: Any) -> None:
    if part == "absent":
        (checkpoint / FILE).write_text("{}")
    change_settings(
        checkpoint / FILE, lambda content: content.update({"image_processor": part} if part != "absent" else {})
    )
    message = r"has no image processor \(.*\): copy the processor's files from the model"
    with pytest.raises(WeightsError, match=message):
        load(checkpoint)
    (checkpoint / "preprocessor_config.json").write_text("{}")
    with pytest.raises(WeightsError, match=message):
        load(checkpoint)


def test_a_tokenizer_of_sentencepiece_names_its_package(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkpoint / "tokenizer.json").unlink()
    (checkpoint / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>")
    monkeypatch.setattr("harness.models.checkpoints.processor_parts.find_spec", lambda _: None)
    with pytest.raises(
        WeightsError, match=r"\(tokenizer.model\) is read by sentencepiece; run `pip install sentencepie"
    ):
        load(checkpoint)


def test_a_missing_protobuf_is_named_with_the_other_packages(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = ValueError("`tiktoken` is required to read a `tiktoken` file.")
    monkeypatch.setattr("transformers.LlavaProcessor.from_pretrained", Mock(side_effect=error))
    with pytest.raises(WeightsError, match="run `pip install sentencepiece protobuf tiktoken`"):
        load(checkpoint)


def test_the_number_of_query_tokens_is_taken_from_the_model(tmp_path: Path) -> None:
    processor, config = SimpleNamespace(num_query_tokens=None), SimpleNamespace(num_query_tokens=32)
    with pytest.raises(WeightsError, match=r'has no num_query_tokens, .* write "num_query_tokens": 32 into'):
        refuse_incomplete_processor(processor, config, tmp_path, "mine", {})
    processor.num_query_tokens = 32
    refuse_incomplete_processor(processor, config, tmp_path, "mine", {})


def test_equivalent_settings_are_accepted(checkpoint: Path, tiny_data: None) -> None:
    change_settings(
        checkpoint / FILE, lambda c: c.update(vision_feature_select_strategy="full", num_additional_image_tokens=0)
    )
    assert have_same_numbers(tiny_profile(load(checkpoint)), tiny_profile(tiny_vlm()))
    change_settings(checkpoint / "config.json", lambda c: c.update(vision_feature_select_strategy="full"))
    with pytest.raises(WeightsError, match='write "num_additional_image_tokens": 1 into'):
        load(checkpoint)


def test_a_processor_for_other_patches_is_refused(checkpoint: Path) -> None:
    change_settings(checkpoint / FILE, lambda c: c.update(patch_size=16))
    with pytest.raises(WeightsError, match=r'has patch_size 16, so its image tokens .*: write "patch_size": 8 into'):
        load(checkpoint)


def test_the_files_of_an_older_layout_are_completed_as_the_message_says(checkpoint: Path, tiny_data: None) -> None:
    import json

    settings = json.loads((checkpoint / FILE).read_text())
    (checkpoint / "preprocessor_config.json").write_text(json.dumps(settings["image_processor"]))
    (checkpoint / FILE).unlink()
    with pytest.raises(WeightsError, match=rf'"patch_size": 8, .* into .*mine.{FILE}, to match config.json'):
        load(checkpoint)
    values = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    (checkpoint / FILE).write_text(json.dumps(values))
    assert have_same_numbers(tiny_profile(load(checkpoint)), tiny_profile(tiny_vlm()))


def test_a_trainer_checkpoint_without_processor_is_reported(checkpoint: Path) -> None:
    for name in (FILE, "chat_template.jinja", "tokenizer.json", "tokenizer_config.json"):
        (checkpoint / name).unlink()
    message = (
        "has no image processor (processor_config.json or preprocessor_config.json) and no tokenizer (tokenizer.json)"
    )
    assert message in str(find_model(str(checkpoint)).unavailable(download=False))
    with pytest.raises(WeightsError, match=r"AutoProcessor\.from_pretrained\('BASE'\)\.save_pretrained\("):
        load(checkpoint)


@pytest.mark.parametrize(
    ("requested", "part"),
    [("flash_attention_2", None), ("flash_attention_3", "text_config"), ("paged|sdpa", None)],
)
def test_unobservable_attention_is_replaced_and_reported(
    checkpoint: Path, tiny_data: None, requested: str, part: str | None
) -> None:
    lines: list[str] = []
    change_settings(
        checkpoint / "config.json", lambda c: (c if part is None else c[part]).update(_attn_implementation=requested)
    )
    vlm = load(checkpoint, lines)
    assert vlm.attention == "sdpa"
    assert have_same_numbers(tiny_profile(vlm), tiny_profile(tiny_vlm()))
    expected = f"the checkpoint {checkpoint} requests {requested}, which cannot be observed: it is loaded with sdpa"
    assert lines == ([expected] if part is None else [])


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ImportError("Loading a GPTQ quantized model requires optimum (`pip install optimum`)"), "optimum"),
        (ImportError("Using `bitsandbytes` needs it: `pip install -U bitsandbytes>=0.46.1`"), "bitsandbytes"),
        (ImportError("X requires the Torchvision library but it was not found. Checkout"), "torchvision"),
        (ValueError("None could be imported. Missing optional dependencies: torchvision. Please"), "torchvision"),
        (ModuleNotFoundError("No module named 'timm'", name="timm"), "timm"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(error: Exception, name: str) -> None:
    assert missing_package(error).endswith(f"run `pip install {name}` and try again")
    assert missing_package(ValueError("a fault of another kind")) == ""
    assert missing_package(ImportError("Using fbgemm fp8 quantization requires a GPU or XPU")) == ""
    message = missing_package(ImportError("A valid HQQ version (>=0.2.1) is not available"))
    assert message.endswith("run `pip install hqq` and try again")
