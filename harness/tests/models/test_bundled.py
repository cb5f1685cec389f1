"""The bundled models through their public loaders. The first run on a machine fetches the language model (93 MB)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig

from harness.data.scenes import INSTRUCTION, Scene, scene, scenes
from harness.lab.training.evaluate import write_captions
from harness.lab.training.tally import Tally, judge
from harness.lab.training.trained_vision import TRAINED_VISION, TrainedVision, prompt_ids
from harness.models.bundled.checkpoint import BUNDLED_SHA256, LLAVA_VISION_FILE, PAD_TOKEN_ID, flat_name, read_trained
from harness.models.bundled.language import file_sha256, language_config, language_directory
from harness.models.bundled.scenes_llava import (
    IMAGE_TOKEN_ID,
    IMAGE_TOKENS,
    load,
    model_config,
    untrained_vision,
)
from harness.models.registry import MODELS
from harness.models.weights_error import WeightsError
from harness.storage.cache_directory import default_cache

if TYPE_CHECKING:
    from transformers import BatchFeature, LlavaForConditionalGeneration, LlavaProcessor

    Loaded = tuple[LlavaForConditionalGeneration, LlavaProcessor]

pytestmark = pytest.mark.bundled


@pytest.fixture(scope="module", params=TRAINED_VISION)
def vision(request: pytest.FixtureRequest) -> TrainedVision:
    """The trained part of each bundled model in turn."""
    return TRAINED_VISION[request.param]


@pytest.fixture(scope="module")
def model_and_processor(vision: TrainedVision) -> tuple[Any, Any]:
    """Each bundled model in turn, with its processor."""
    return vision.module.load(default_cache())


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load(default_cache())


def encode_prompts(processor: LlavaProcessor, scenes: list[Scene], instructions: list[str]) -> BatchFeature:
    """Return a batch with chat template, images and padding, as a user would create it."""
    texts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": instruction}]}],
            add_generation_prompt=True,
        )
        for instruction in instructions
    ]
    return processor(images=[s.render() for s in scenes], text=texts, padding=True, return_tensors="pt")


def test_the_model_is_ready_to_be_measured(vision: TrainedVision, model_and_processor: tuple[Any, Any]) -> None:
    model, _ = model_and_processor
    assert vision.name in MODELS
    assert MODELS[vision.name].loader == f"{vision.module.__name__}:load"
    assert not any(module.training for module in model.modules())
    assert not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    for name in ("text_config", "vision_config"):
        assert getattr(model.config, name)._attn_implementation == "sdpa"
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        assert tensor.device.type == "cpu", name
        assert bool(torch.isfinite(tensor).all()), name


def test_rotary_frequencies_are_those_of_the_formula(loaded: Loaded) -> None:
    """The model is built without initialisation, so a buffer outside the state dict could be uninitialised."""
    model, _ = loaded
    expected = 100_000.0 ** (-torch.arange(0, 64, 2) / 64)
    torch.testing.assert_close(model.model.language_model.rotary_emb.inv_freq, expected)
    positions = next(buffer for name, buffer in model.named_buffers() if name.endswith("embeddings.position_ids"))
    assert positions.flatten().tolist() == list(range(IMAGE_TOKENS + 1))


def test_two_loads_give_identical_tensors(vision: TrainedVision, model_and_processor: tuple[Any, Any]) -> None:
    reloaded, _ = vision.module.load(default_cache())
    first = {**dict(model_and_processor[0].named_parameters()), **dict(model_and_processor[0].named_buffers())}
    second = {**dict(reloaded.named_parameters()), **dict(reloaded.named_buffers())}
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_prompt_is_as_declared(loaded: Loaded) -> None:
    _, processor = loaded
    ids = encode_prompts(processor, [scene(0, 0)], [INSTRUCTION])["input_ids"][0].tolist()
    assert ids.count(IMAGE_TOKEN_ID) == IMAGE_TOKENS
    start = ids.index(IMAGE_TOKEN_ID)
    assert ids[start : start + IMAGE_TOKENS] == [IMAGE_TOKEN_ID] * IMAGE_TOKENS
    text = processor.tokenizer.decode([*ids[:start], *ids[start + IMAGE_TOKENS :]])
    assert text == f"<|im_start|>user\n\n{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n"
    before, after = prompt_ids(processor, IMAGE_TOKENS)
    assert [*before.tolist(), *[IMAGE_TOKEN_ID] * IMAGE_TOKENS, *after.tolist()] == ids


def test_no_text_is_tokenized_to_the_image_token_or_the_padding(loaded: Loaded) -> None:
    _, processor = loaded
    texts = [*(c for s in scenes(50, 0) for c in s.captions), INSTRUCTION, "empty_output endoftext <image> <pad>"]
    used_ids = {i for text in texts for i in processor.tokenizer(text).input_ids}
    assert not used_ids & {IMAGE_TOKEN_ID, PAD_TOKEN_ID}


def test_the_tower_gets_the_same_pixels_as_in_training(loaded: Loaded) -> None:
    _, processor = loaded
    image = scene(0, 0).render()
    pixels = encode_prompts(processor, [scene(0, 0)], [INSTRUCTION])["pixel_values"]
    expected = torch.tensor(list(image.tobytes())).reshape(1, 96, 96, 3).permute(0, 3, 1, 2) / 127.5 - 1
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-6)


@torch.inference_mode()
def test_the_features_are_at_the_image_positions(loaded: Loaded) -> None:
    """The embedding of the image token itself never reaches the decoder."""
    model, processor = loaded
    batch = encode_prompts(processor, [scene(1, 0)], [INSTRUCTION])
    decoder_inputs: list[torch.Tensor] = []
    hook = model.model.language_model.layers[0].register_forward_pre_hook(
        lambda m, args: decoder_inputs.append(args[0])
    )
    try:
        model(**batch, use_cache=False)
    finally:
        hook.remove()
    is_image = batch["input_ids"][0] == IMAGE_TOKEN_ID
    features = model.get_image_features(pixel_values=batch["pixel_values"]).pooler_output[0]
    assert features.shape == (IMAGE_TOKENS, 576)
    torch.testing.assert_close(decoder_inputs[0][0, is_image], features)
    torch.testing.assert_close(
        decoder_inputs[0][0, ~is_image], model.get_input_embeddings()(batch["input_ids"])[0, ~is_image]
    )


@pytest.mark.slow
@torch.inference_mode()
def test_left_padding_changes_no_logits(loaded: Loaded) -> None:
    model, processor = loaded
    batch_scenes = [scene(k, 0) for k in range(3)]
    instructions = [INSTRUCTION, "Say in a few words what you see in this picture, please.", "Describe."]
    batched = encode_prompts(processor, batch_scenes, instructions)
    assert batched["attention_mask"][0, 0] == 0
    assert batched["input_ids"][0, 0] == PAD_TOKEN_ID
    logits = model(**batched, use_cache=False, logits_to_keep=1).logits
    for k, (image, instruction) in enumerate(zip(batch_scenes, instructions, strict=True)):
        alone = model(**encode_prompts(processor, [image], [instruction]), use_cache=False, logits_to_keep=1).logits
        torch.testing.assert_close(logits[k], alone[0], rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def held_out_captions(model_and_processor: tuple[Any, Any]) -> tuple[list[Scene], list[str]]:
    """Held-out scenes and the captions that the model writes for them."""
    held_out = [scene(index, 12345) for index in range(8)]
    return held_out, write_captions(*model_and_processor, held_out)


@pytest.mark.slow
def test_the_captions_name_what_is_in_held_out_scenes(held_out_captions: tuple[list[Scene], list[str]]) -> None:
    tally = Tally()
    for true_scene, caption in zip(*held_out_captions, strict=True):
        judge(true_scene, caption, tally)
    for reason in ("colour", "shape", "relation"):
        assert tally.share(f"{reason}/all") >= 0.85, (reason, tally)


@pytest.mark.slow
def test_the_captions_fit_no_other_scene(held_out_captions: tuple[list[Scene], list[str]]) -> None:
    held_out, captions = held_out_captions
    tally = Tally()
    for true_scene, caption in zip(held_out[1:] + held_out[:1], captions, strict=True):
        judge(true_scene, caption, tally)
    assert tally.share("colour/all") < 0.4
    assert tally.share("shape/all") < 0.4


def test_the_committed_weights_are_exactly_vision_tower_and_projector_and_small(
    vision: TrainedVision, model_and_processor: tuple[Any, Any]
) -> None:
    tensors = load_file(vision.trained)
    assert vision.trained.stat().st_size <= 10_000_000
    assert set(tensors) == {
        flat_name(name) for name in model_and_processor[0].state_dict() if name.startswith(vision.module.TRAINED_PARTS)
    }
    assert {t.dtype for t in tensors.values()} == {torch.float16}


@pytest.mark.parametrize("name", TRAINED_VISION)
def test_card_and_record_belong_to_the_committed_weights(name: str) -> None:
    trained = TRAINED_VISION[name].trained
    card = trained.with_name("CARD.md").read_text(encoding="utf-8")
    record = json.loads(trained.with_name("training.json").read_text(encoding="utf-8"))
    assert file_sha256(trained) in card
    assert BUNDLED_SHA256[trained] == file_sha256(trained)
    shares = record["held_out"]["shares"]
    assert record["held_out"]["samples"] >= 500
    assert min(shares[f"{reason}/all"] for reason in ("colour", "shape", "relation word")) >= 0.95
    assert ("missed for relation" in card) == (shares["relation/all"] < 0.95)
    for reason in ("colour", "shape", "relation", "relation word", "exact"):
        assert f"| {reason} | {shares[f'{reason}/all']:.3f} |" in card
    losses = [row["caption"] for row in record["curve"] if row["stage"] == 1]
    assert losses[-1] < 0.1 * losses[0]


def test_untrained_vision_parts_follow_their_seed_and_leave_the_global_generator_alone() -> None:
    config = model_config()
    state = torch.random.get_rng_state()
    first, same, other = (untrained_vision(config, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], same[name]) for name in first)
    name = "model.multi_modal_projector.linear_1.weight"
    assert not torch.equal(first[name], other[name])
    model, _ = load(default_cache(), torch.bfloat16, trained=None, seed=1)
    assert torch.equal(model.state_dict()[name], other[name].to(torch.bfloat16))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_damaged_trained_weights_are_reported_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "trained.safetensors").write_bytes(LLAVA_VISION_FILE.read_bytes()[:1000])
    for path in (tmp_path / "trained.safetensors", tmp_path / "absent.safetensors"):
        with pytest.raises(WeightsError, match=r"cannot be read .*harness\.lab\.training\.train"):
            read_trained(path)


def test_altered_trained_weights_of_the_package_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trained.safetensors"
    content = bytearray(LLAVA_VISION_FILE.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    # Weights trained by the user are not compared.
    assert read_trained(path).keys() == read_trained(LLAVA_VISION_FILE).keys()
    monkeypatch.setitem(BUNDLED_SHA256, path, BUNDLED_SHA256[LLAVA_VISION_FILE])
    with pytest.raises(WeightsError, match=r"instead of 4ad40a3c.* install the package again"):
        read_trained(path)


def test_the_configuration_is_that_of_the_language_model() -> None:
    written = LlamaConfig.from_pretrained(language_directory(default_cache())).to_dict()
    known = language_config().to_dict()
    assert {name for name in known.keys() | written if known.get(name) != written.get(name)} <= {
        "_model_name_or_path",
        "_name_or_path",
        "transformers_version",
    }
