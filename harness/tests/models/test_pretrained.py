"""Models from a directory or the hub: classes, declared prompts, and errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import InstructBlipConfig, T5Config

from harness.models.anatomy import AnatomyError
from harness.models.prompts.chat import prompt_text
from harness.models.prompts.prompt import encode
from harness.models.registry import MODELS, find_model
from harness.models.vlm import Vlm, load_vlm
from harness.models.weights_error import WeightsError
from harness.tests.support.fake_hub import serve, use_hub
from harness.tests.support.saved_checkpoints import save_tiny_checkpoint
from harness.tests.support.tiny import tiny_samples, tiny_vlm
from harness.tests.support.topology import convert_to_published, save_instructblip


def load(source: str, cache: Path, **options: bool) -> Vlm:
    return load_vlm(find_model(source), cache=cache, device="cpu", **options)


@torch.inference_mode()
def test_a_saved_model_is_loaded_unchanged(tmp_path: Path) -> None:
    save_tiny_checkpoint(tmp_path / "mine")
    loaded, before = load(str(tmp_path / "mine"), tmp_path), tiny_vlm()
    assert (loaded.name, loaded.revision) == ("mine", "")
    assert not any(p.requires_grad or p.dtype != torch.float32 for p in loaded.model.parameters())
    batch = encode(loaded.processor, tiny_samples(2), loaded.anatomy.image_positions)
    assert batch.hashes == encode(before.processor, tiny_samples(2), before.anatomy.image_positions).hashes
    torch.testing.assert_close(loaded.model(**batch.inputs).logits, before.model(**batch.inputs).logits)


@pytest.mark.slow
def test_an_instructblip_as_published_gets_its_processor_and_a_bare_prompt(tmp_path: Path) -> None:
    save_instructblip(tmp_path)
    convert_to_published(tmp_path)
    vlm = load(str(tmp_path), tmp_path)
    assert type(vlm.processor).__name__ == "InstructBlipProcessor"
    assert prompt_text(vlm.processor, "Describe the image.") == "Describe the image."


def test_the_papers_models_declare_their_prompts() -> None:
    processor = tiny_vlm().processor
    processor.chat_template = MODELS["llava-1.5-7b"].chat_template
    assert prompt_text(processor, "What is it?") == "USER: <image>\nWhat is it? ASSISTANT:"
    processor.chat_template = MODELS["instructblip-vicuna-7b"].chat_template
    assert prompt_text(processor, "What is it?") == "What is it?"


def test_instructblip_with_t5_is_refused_before_its_weights_are_loaded(tmp_path: Path) -> None:
    InstructBlipConfig(text_config=T5Config()).save_pretrained(tmp_path / "flan")
    with pytest.raises(AnatomyError, match=r"flan is an encoder-decoder: .* Use a decoder-only model"):
        load(str(tmp_path / "flan"), tmp_path)


def test_a_checkpoint_without_padding_token_is_padded_with_eos(tmp_path: Path) -> None:
    save_tiny_checkpoint(tmp_path / "mine")
    path = tmp_path / "mine" / "tokenizer_config.json"
    path.write_text(
        json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "pad_token"})
    )
    loaded, before = load(str(tmp_path / "mine"), tmp_path), tiny_vlm()
    loaded_batch, other = (
        encode(vlm.processor, tiny_samples(2), vlm.anatomy.image_positions) for vlm in (loaded, before)
    )
    assert bool((~loaded_batch.groups.real).any())
    assert loaded_batch.hashes == other.hashes
    assert set(loaded_batch.inputs["input_ids"][~loaded_batch.groups.real].tolist()) == {
        loaded.processor.tokenizer.eos_token_id
    }


def test_a_package_that_the_processor_needs_is_named_before_the_weights_are_read(tmp_path: Path) -> None:
    save_tiny_checkpoint(tmp_path / "mine")
    remove_weights(tmp_path / "mine")
    path = tmp_path / "mine" / "processor_config.json"
    config = json.loads(path.read_text())
    config["image_processor"]["image_processor_type"] = "Lfm2VlImageProcessor"
    path.write_text(json.dumps(config))
    if find_spec("torchvision"):
        pytest.skip("torchvision is installed, so nothing is missing")
    with pytest.raises(
        WeightsError, match=r"needs a package that is not installed: .*torchvision.*pip install torchvision"
    ):
        load(str(tmp_path / "mine"), tmp_path)


def remove_weights(directory: Path) -> None:
    (directory / "model.safetensors").unlink()


def remove_tokenizer(directory: Path) -> None:
    (directory / "tokenizer.json").unlink()


def truncate_tokenizer(directory: Path) -> None:
    path = directory / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:-300])


def truncate_weights(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def rename_to_pickle(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_weights, "mine has no weights, neither model.safetensors nor an index with shards: copy them"),
        (
            remove_tokenizer,
            r"mine has no tokenizer \(tokenizer\.json\): copy the processor's files from the model that it was",
        ),
        (truncate_tokenizer, r"tokenizer\.json is not valid JSON \(.*\): fix it or copy it again"),
        (truncate_weights, r"mine.model\.safetensors is damaged or truncated \(5000 bytes, .*copy or fetch it again"),
        (
            rename_to_pickle,
            r"has no model\.safetensors but pickles, .*\(pytorch_model\.bin\): if you trust them, save them",
        ),
    ],
)
def test_a_damaged_checkpoint_gives_a_one_line_error(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    directory = tmp_path / "mine"
    save_tiny_checkpoint(directory)
    damage(directory)
    with pytest.raises(WeightsError, match=message) as error:
        load(str(directory), tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ("llama", "Unrecognized configuration class .*: it is not a vision-language model of transformers"),
        ("llava_of_tomorrow", "does not recognize this architecture.*: install a newer transformers"),
        (None, "Should have a `model_type` key .*: copy config.json from the model that it was trained from"),
    ],
)
def test_an_unknown_model_type_is_reported(tmp_path: Path, model_type: str | None, message: str) -> None:
    directory = tmp_path / "mine"
    save_tiny_checkpoint(directory)
    settings = json.loads((directory / "config.json").read_text())
    settings = settings["text_config"] if model_type == "llama" else settings
    remaining = {key: value for key, value in settings.items() if key != "model_type"}
    (directory / "config.json").write_text(json.dumps(remaining | ({"model_type": model_type} if model_type else {})))
    with pytest.raises(WeightsError, match=message):
        load(str(directory), tmp_path)


def test_missing_weights_are_not_initialised_at_random(tmp_path: Path) -> None:
    save_tiny_checkpoint(tmp_path / "mine")
    path = tmp_path / "mine" / "model.safetensors"
    weights = load_file(path)
    (name,) = (name for name in weights if name.endswith("layers.1.self_attn.o_proj.weight"))
    save_file({key: value for key, value in weights.items() if key != name}, path, {"format": "pt"})
    with pytest.raises(WeightsError, match=r"mine lacks weights of its model \(.*layers\.1.*, 1 in all\)"):
        load(str(tmp_path / "mine"), tmp_path)


def test_a_model_is_fetched_from_the_hub_once_and_its_revision_recorded(tmp_path: Path) -> None:
    save_tiny_checkpoint(tmp_path / "made")
    files = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    shutil.rmtree(tmp_path / "made")
    lines: list[str] = []
    with serve({("model", "somebody/tiny-vlm"): files}) as hub, use_hub(hub.url, tmp_path / "hub"):
        entry = find_model("somebody/tiny-vlm")
        assert "somebody/tiny-vlm is not in the local cache" in str(entry.unavailable(download=False))
        with pytest.raises(WeightsError, match=r"somebody/tiny-vlm is not in the local cache .*--phase-download"):
            load_vlm(entry, cache=tmp_path, device="cpu")
        first = load_vlm(entry, cache=tmp_path, device="cpu", download=True, say=lines.append)
        request_count = len(hub.requests)
        reloaded = load_vlm(entry, cache=tmp_path, device="cpu")
        assert len(hub.requests) == request_count
        assert first.revision == reloaded.revision == hub.commit("model", "somebody/tiny-vlm")
    assert first.name == "tiny-vlm"
    # The configuration is fetched first, so that an unsupported model is refused before a large download.
    assert [line.split(":")[0] for line in lines] == [
        f"fetching somebody/tiny-vlm at revision {first.revision[:7]}"
    ] * 2
    assert entry.unavailable(download=True) is None
