"""The embedded model through its public loader. The first run on a machine fetches the language model (93 MB)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

from harness.data.scenes import INSTRUCTION, Scene, Thing, scene, scenes
from harness.models.embedded.cache import default_cache
from harness.models.embedded.dense import NOTHING, DenseHead, dense_loss, patch_labels
from harness.models.embedded.evaluate import Tally, judge, read_caption, write_captions
from harness.models.embedded.language import WeightsError, file_sha256
from harness.models.embedded.scenes_llava import (
    IMAGE_TOKEN_ID,
    IMAGE_TOKENS,
    PAD_TOKEN_ID,
    TRAINED,
    TRAINED_PARTS,
    build,
    load,
    model_config,
    read_trained,
    untrained_eyes,
)
from harness.models.embedded.train import caption_targets, prompt_ids, schedule
from harness.models.embedded.word_order import caption_scores, judge_scores

if TYPE_CHECKING:
    from transformers import BatchFeature, LlavaForConditionalGeneration, LlavaProcessor

    Loaded = tuple[LlavaForConditionalGeneration, LlavaProcessor]

pytestmark = pytest.mark.embedded


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load(default_cache())


def encoded(processor: LlavaProcessor, scenes: list[Scene], instructions: list[str]) -> BatchFeature:
    """A batch as a user would make it: chat template, pictures, padding."""
    texts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": instruction}]}],
            add_generation_prompt=True,
        )
        for instruction in instructions
    ]
    return processor(images=[s.picture() for s in scenes], text=texts, padding=True, return_tensors="pt")


def test_the_model_is_ready_to_be_measured(loaded: Loaded) -> None:
    model, _ = loaded
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    assert not any(module.training for module in model.modules())
    assert not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config.text_config._attn_implementation == "sdpa"
    assert model.config.vision_config._attn_implementation == "sdpa"
    assert model.lm_head.weight is model.get_input_embeddings().weight
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        assert tensor.device.type == "cpu", name
        assert bool(torch.isfinite(tensor).all()), name


def test_rotary_frequencies_are_those_of_the_formula(loaded: Loaded) -> None:
    """Built without initialisation, a buffer that no state holds would be left as garbage."""
    model, _ = loaded
    expected = 100_000.0 ** (-torch.arange(0, 64, 2) / 64)
    torch.testing.assert_close(model.model.language_model.rotary_emb.inv_freq, expected)
    positions = model.model.vision_tower.embeddings.position_ids
    assert positions.flatten().tolist() == list(range(IMAGE_TOKENS + 1))


def test_two_loads_give_identical_tensors(loaded: Loaded) -> None:
    again = build(default_cache())
    first = {**dict(loaded[0].named_parameters()), **dict(loaded[0].named_buffers())}
    second = {**dict(again.named_parameters()), **dict(again.named_buffers())}
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_prompt_is_the_declared_one(loaded: Loaded) -> None:
    _, processor = loaded
    ids = encoded(processor, [scene(0, 0)], [INSTRUCTION])["input_ids"][0].tolist()
    assert ids.count(IMAGE_TOKEN_ID) == IMAGE_TOKENS
    start = ids.index(IMAGE_TOKEN_ID)
    assert ids[start : start + IMAGE_TOKENS] == [IMAGE_TOKEN_ID] * IMAGE_TOKENS
    text = processor.tokenizer.decode([*ids[:start], *ids[start + IMAGE_TOKENS :]])
    assert text == f"<|im_start|>user\n\n{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n"
    before, after = prompt_ids(processor)
    assert [*before.tolist(), *[IMAGE_TOKEN_ID] * IMAGE_TOKENS, *after.tolist()] == ids


def test_no_text_is_tokenized_to_the_image_token_or_the_padding(loaded: Loaded) -> None:
    _, processor = loaded
    texts = [*(c for s in scenes(50, 0) for c in s.captions), INSTRUCTION, "empty_output endoftext <image> <pad>"]
    used = {i for text in texts for i in processor.tokenizer(text).input_ids}
    assert not used & {IMAGE_TOKEN_ID, PAD_TOKEN_ID}


def test_pictures_reach_the_tower_as_in_training(loaded: Loaded) -> None:
    _, processor = loaded
    picture = scene(0, 0).picture()
    pixels = encoded(processor, [scene(0, 0)], [INSTRUCTION])["pixel_values"]
    expected = torch.tensor(list(picture.tobytes())).reshape(1, 96, 96, 3).permute(0, 3, 1, 2) / 127.5 - 1
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-6)


@torch.inference_mode()
def test_the_features_stand_at_the_image_positions(loaded: Loaded) -> None:
    """The embedding of the image token itself never reaches the decoder."""
    model, processor = loaded
    batch = encoded(processor, [scene(1, 0)], [INSTRUCTION])
    seen: list[torch.Tensor] = []
    hook = model.model.language_model.layers[0].register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    try:
        model(**batch, use_cache=False)
    finally:
        hook.remove()
    at = batch["input_ids"][0] == IMAGE_TOKEN_ID
    features = model.get_image_features(pixel_values=batch["pixel_values"]).pooler_output[0]
    assert features.shape == (IMAGE_TOKENS, 576)
    torch.testing.assert_close(seen[0][0, at], features)
    torch.testing.assert_close(seen[0][0, ~at], model.get_input_embeddings()(batch["input_ids"])[0, ~at])


@torch.inference_mode()
def test_left_padding_changes_nothing(loaded: Loaded) -> None:
    model, processor = loaded
    pictures = [scene(k, 0) for k in range(3)]
    instructions = [INSTRUCTION, "Say in a few words what you see in this picture, please.", "Describe."]
    together = encoded(processor, pictures, instructions)
    assert together["attention_mask"][0, 0] == 0
    assert together["input_ids"][0, 0] == PAD_TOKEN_ID
    logits = model(**together, use_cache=False, logits_to_keep=1).logits
    for k, (picture, instruction) in enumerate(zip(pictures, instructions, strict=True)):
        alone = model(**encoded(processor, [picture], [instruction]), use_cache=False, logits_to_keep=1).logits
        torch.testing.assert_close(logits[k], alone[0], rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def told(loaded: Loaded) -> tuple[list[Scene], list[str]]:
    """Held-out scenes and the captions that the model writes for them."""
    truths = [scene(index, 12345) for index in range(16)]
    return truths, write_captions(*loaded, truths)


def test_the_captions_name_what_is_in_held_out_scenes(told: tuple[list[Scene], list[str]]) -> None:
    tally = Tally()
    for truth, caption in zip(*told, strict=True):
        judge(truth, caption, tally)
    for what in ("colour", "shape", "relation"):
        assert tally.share(f"{what}/all") >= 0.85, (what, tally)


def test_the_captions_fit_no_other_scene(told: tuple[list[Scene], list[str]]) -> None:
    truths, captions = told
    tally = Tally()
    for truth, caption in zip(truths[1:] + truths[:1], captions, strict=True):
        judge(truth, caption, tally)
    assert tally.share("colour/all") < 0.4
    assert tally.share("shape/all") < 0.4


def test_the_committed_part_is_small_and_is_exactly_the_eyes(loaded: Loaded) -> None:
    model, _ = loaded
    tensors = load_file(TRAINED)
    assert TRAINED.stat().st_size <= 10_000_000
    assert set(tensors) == {name for name in model.state_dict() if name.startswith(TRAINED_PARTS)}
    assert {t.dtype for t in tensors.values()} == {torch.float16}


def test_card_and_record_belong_to_the_committed_weights() -> None:
    card = TRAINED.with_name("CARD.md").read_text(encoding="utf-8")
    record = json.loads(TRAINED.with_name("training.json").read_text(encoding="utf-8"))
    assert file_sha256(TRAINED) in card
    shares = record["held_out"]["shares"]
    assert record["held_out"]["samples"] >= 500
    assert min(shares[f"{what}/all"] for what in ("colour", "shape", "relation word")) >= 0.95
    assert ("missed for relation" in card) == (shares["relation/all"] < 0.95)
    for what in ("colour", "shape", "relation", "relation word", "exact"):
        assert f"| {what} | {shares[f'{what}/all']:.3f} |" in card
    losses = [row["caption"] for row in record["curve"] if row["stage"] == 1]
    assert losses[-1] < 0.1 * losses[0]


def test_untrained_eyes_follow_their_seed_and_leave_the_global_generator_alone() -> None:
    config = model_config(default_cache())
    state = torch.random.get_rng_state()
    one, same, other = (untrained_eyes(config, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(one[name], same[name]) for name in one)
    name = "model.multi_modal_projector.linear_1.weight"
    assert not torch.equal(one[name], other[name])
    model, _ = load(default_cache(), torch.bfloat16, trained=None, seed=1)
    assert torch.equal(model.state_dict()[name], other[name].to(torch.bfloat16))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_damaged_trained_weights_are_told_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "trained.safetensors").write_bytes(TRAINED.read_bytes()[:1000])
    for path in (tmp_path / "trained.safetensors", tmp_path / "absent.safetensors"):
        with pytest.raises(WeightsError, match=r"cannot be read .*harness\.models\.embedded\.train"):
            read_trained(path)


RED, BLUE = Thing("red", "circle", "small"), Thing("blue", "square", "large")
PAIR = Scene((RED, BLUE), ("left",), "gray", 0)


def test_reading_a_caption() -> None:
    said = read_caption("A red circle left of a blue square, with a green star below it.")
    assert said.objects == ((None, "red", "circle"), (None, "blue", "square"), (None, "green", "star"))
    assert said.relations == ("left", "below")
    assert read_caption("circle") == read_caption("A circle on a dark floor.")
    assert read_caption("").objects == ()


@pytest.mark.parametrize(
    ("caption", "colour", "shape", "relation", "exact"),
    [
        ("A small red circle left of a large blue square.", 2, 2, 1, 1),
        ("A small red circle above a large blue square.", 2, 2, 0, 0),
        ("A large blue square left of a small red circle.", 0, 0, 0, 0),
        ("A small red ring left of a large blue square.", 2, 1, 0, 0),
        ("A small blue circle left of a large red square.", 0, 2, 0, 0),
        ("A small red circle.", 1, 1, 0, 0),
        ("left left left", 0, 0, 0, 0),
    ],
)
def test_judgement_is_not_lenient(caption: str, colour: int, shape: int, relation: int, exact: int) -> None:
    tally = Tally()
    judge(PAIR, caption, tally)
    assert [tally.right[f"{what}/all"] for what in ("colour", "shape", "relation", "exact")] == [
        colour,
        shape,
        relation,
        exact,
    ]
    assert tally.asked["colour/all"] == 2
    assert tally.asked["relation/all"] == tally.asked["relation word/all"] == 1
    assert tally.right["relation word/all"] == ("left" in caption and caption.count("left") == 1)


@torch.inference_mode()
def test_caption_scores_are_sums_of_the_log_probabilities_of_the_caption_tokens(loaded: Loaded) -> None:
    model, processor = loaded
    truths = [scene(3, 0), scene(4, 0)]
    captions = ["A red circle.", truths[1].captions()[0]]
    scores = caption_scores(model, processor, truths, captions)
    for truth, caption, score in zip(truths, captions, scores, strict=True):
        batch = encoded(processor, [truth], [INSTRUCTION])
        ids, total = batch["input_ids"], 0.0
        for token in processor.tokenizer(caption + "<|im_end|>").input_ids:
            logits = model(input_ids=ids, pixel_values=batch["pixel_values"], use_cache=False).logits[0, -1]
            total += float(logits.log_softmax(dim=0)[token])
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
        assert float(score) == pytest.approx(total, rel=1e-3)


def test_scores_of_a_pair() -> None:
    """Rows are images, columns captions: all right, text right alone, image right alone, all equal."""
    tables = [[[2.0, 1.0], [1.0, 2.0]], [[9.0, 8.0], [1.0, 2.0]], [[9.0, 1.0], [8.0, 2.0]], [[1.0, 1.0], [1.0, 1.0]]]
    assert judge_scores(torch.tensor(tables)) == {"text": 0.5, "image": 0.5, "group": 0.25}


def test_patches_are_labelled_with_the_thing_that_covers_them() -> None:
    labels = patch_labels([PAIR])
    (a, b), grid = PAIR.placements(), labels["shape"][0].reshape(6, 6)
    assert grid[int(a.y // 16), int(a.x // 16)] == 0
    assert grid[int(b.y // 16), int(b.x // 16)] == 1
    assert (labels["covered"] == (labels["colour"] != NOTHING)).all()
    assert 2 <= int((grid == 0).sum()) < int((grid == 1).sum()) < 20
    assert set(labels["ground"].flatten().tolist()) == {1}


def test_the_dense_loss_is_the_uniform_one_for_equal_scores() -> None:
    labels = patch_labels([PAIR])
    head = DenseHead(8)
    torch.nn.init.zeros_(head.read.weight)
    torch.nn.init.zeros_(head.read.bias)
    loss, _ = dense_loss(head(torch.randn(1, IMAGE_TOKENS, 8)), labels)
    expected = math.log(10) + math.log(8) + math.log(2) + 0.3 * (math.log(4) + math.log(2))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_targets_end_with_the_turn_and_ignore_the_padding(loaded: Loaded) -> None:
    _, processor = loaded
    ids, targets = caption_targets(processor, ["A red circle.", "A small red circle left of a large blue square."])
    for row, wanted in zip(ids, targets, strict=True):
        real = wanted != -100
        assert torch.equal(row[real], wanted[real])
        assert int(wanted[real][-1]) == processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
        assert set(row[~real].tolist()) == {PAD_TOKEN_ID}


def test_the_rate_rises_then_falls() -> None:
    rates = [schedule(step, 100, 10) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == 1.0
    assert 0 < rates[-1] < 0.03
