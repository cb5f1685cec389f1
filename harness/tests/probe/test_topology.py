"""Models with the topology of LLaVA-1.5 and InstructBLIP at reduced width."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, InstructBlipProcessor, LlavaProcessor
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from harness.data.datasets import DATASETS
from harness.data.sample import Dataset
from harness.lab.cost.published import DEPTH, VOCABULARY
from harness.measurement.measure import measure
from harness.models.anatomy import find_anatomy
from harness.models.prompts.chat import prompt_text
from harness.models.prompts.chat_templates import BARE, LLAVA
from harness.models.prompts.prompt import Batch, encode
from harness.models.vlm import Vlm
from harness.probe.forward import observe
from harness.probe.readings import Readings
from harness.profile.measures import CURVES, MEASURES, SHARE_GROUPS
from harness.profile.profile import Profile
from harness.tests.support import topology
from harness.tests.support.topology import INSTRUCTION, REDUCED, random_photographs

N = 4


@pytest.fixture(scope="module")
def llava() -> Vlm:
    return topology.random_llava()


@pytest.fixture(scope="module")
def instructblip() -> Vlm:
    return topology.random_instructblip()


@pytest.fixture(scope="module", params=["llava", "instructblip"])
def vlm(request: pytest.FixtureRequest) -> Vlm:
    model: Vlm = request.getfixturevalue(request.param)
    return model


@pytest.fixture(scope="module")
def profile(vlm: Vlm) -> Iterator[Profile]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "photographs", Dataset("photographs", "drawn", lambda n, *_: random_photographs(n)))
        yield measure(vlm, "photographs", samples=N, batch_size=2, progress=False)


def encoded(vlm: Vlm, n: int = 2) -> Batch:
    return encode(vlm.processor, random_photographs(n), vlm.anatomy.image_positions)


def pieces(vlm: Vlm, batch: Batch, mask: torch.Tensor) -> list[str]:
    """Return the pieces of the first prompt under a mask."""
    return list(vlm.processor.tokenizer.convert_ids_to_tokens(batch.inputs["input_ids"][0][mask[0]]))


@pytest.mark.parametrize(
    ("config", "bytes_each", "published"),
    # The sizes of the safetensors files in the two repositories, in GB: float16 and float32.
    [(topology.llava_config, 2, 4.99 + 4.96 + 4.18), (topology.instructblip_config, 4, 9.9 + 9.96 + 9.92 + 1.88)],
)
def test_weights_at_full_width_have_the_size_of_the_published_files(
    config: Any, bytes_each: int, published: float
) -> None:
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config())
    size = bytes_each * sum(parameter.numel() for parameter in model.parameters()) / 1e9
    assert size == pytest.approx(published, abs=0.02)
    assert find_anatomy(model).width == 4096


def test_the_image_tokens_of_llava_have_the_positions_of_the_original(llava: Vlm) -> None:
    batch = encoded(llava)
    groups = batch.groups
    for row in range(2):
        assert groups.image[row].nonzero().flatten().tolist() == list(range(5, 581))
    prompt_pieces = pieces(llava, batch, ~groups.image)
    assert prompt_pieces[:6] == ["<s>", "▁US", "ER", ":", "▁", "<0x0A>"]
    assert prompt_pieces[-5:] == ["▁A", "SS", "IST", "ANT", ":"]
    assert pieces(llava, batch, groups.instruction) == ["Des", "cribe", "▁the", "▁image", "."]
    assert not groups.text[:, 0].any()
    assert groups.other[:, 0].all()


def test_the_query_tokens_of_instructblip_come_before_bos(instructblip: Vlm) -> None:
    batch = encoded(instructblip)
    groups = batch.groups
    for row in range(2):
        assert groups.image[row].nonzero().flatten().tolist() == list(range(32))
    assert pieces(instructblip, batch, groups.other) == ["</s>"]
    assert groups.other[:, 32].all()
    assert torch.equal(groups.instruction, groups.text)
    assert pieces(instructblip, batch, groups.text) == ["▁Des", "cribe", "▁the", "▁image", "."]


def test_the_token_groups_partition_the_prompt(vlm: Vlm) -> None:
    batch = encoded(vlm)
    groups = batch.groups
    members = groups.image.int() + groups.instruction.int() + groups.other.int()
    assert torch.equal(members, groups.real.int())
    decoded = vlm.processor.tokenizer.decode(batch.inputs["input_ids"][0][groups.instruction[0]])
    assert decoded.strip() == INSTRUCTION


def test_the_prompt_of_llava_equals_the_rendering_of_its_chat_template(llava: Vlm) -> None:
    processor = topology.llava_processor()
    processor.chat_template = LLAVA
    prompt = prompt_text(llava.processor, INSTRUCTION)
    assert prompt == f"USER: <image>\n{INSTRUCTION} ASSISTANT:"
    assert prompt_text(processor, INSTRUCTION) == prompt


def test_the_decoder_layers_belong_to_the_language_model(vlm: Vlm) -> None:
    anatomy = vlm.anatomy
    assert anatomy.depth == DEPTH
    assert all(isinstance(layer, LlamaDecoderLayer) for layer in anatomy.layers)
    assert tuple(anatomy.unembedding.weight.shape) == (VOCABULARY, REDUCED.hidden)
    assert len(vlm.processor.tokenizer) <= VOCABULARY
    assert anatomy.image_token_id == vlm.processor.tokenizer.convert_tokens_to_ids("<image>")


def test_vision_towers_and_qformer_have_their_published_depths(llava: Vlm, instructblip: Vlm) -> None:
    tower = llava.model.model.vision_tower
    assert len(getattr(tower, "vision_model", tower).encoder.layers) == 24
    assert len(instructblip.model.vision_model.encoder.layers) == 39
    layers = instructblip.model.qformer.encoder.layer
    assert [hasattr(layer, "crossattention") for layer in layers] == [True, False] * 6
    assert instructblip.model.qformer.embeddings.word_embeddings.num_embeddings == 30_523


def test_image_tokens_differ_and_attention_has_peaks(vlm: Vlm) -> None:
    batch = encoded(vlm)
    readings = observe(vlm, batch, random_photographs(2))
    assert readings.similarity[:, :, MEASURES["image"].column].max() < 0.95
    inter = readings.similarity[:, :, 0]
    assert -0.2 < inter.min() < inter.max() < 0.9
    assert readings.weight_shares is not None
    assert np.ptp(readings.weight_shares[:, :, 0], axis=1).min() > 0.1


@pytest.mark.slow
def test_a_measurement_passes_all_self_checks(vlm: Vlm, profile: Profile) -> None:
    for name in CURVES:
        assert profile[name].shape == (N, DEPTH + 1)
    for kind in ("norm", "weight"):
        shares = np.stack([profile[f"{kind}_{group}"] for group in SHARE_GROUPS])
        assert shares.shape == (4, N, DEPTH)
        assert shares.sum(0) == pytest.approx(1.0, abs=1e-5)
    assert profile["hits"].shape == (N, DEPTH + 1, 2)
    assert profile["exit_agreement"][:, -1].all()
    assert len(profile.drawings[0].image_tokens[0]) == int(encoded(vlm).groups.image[0].sum())
    assert len({*profile.pixel_hashes}) == N
    assert len({*profile.token_hashes}) == 1


@pytest.mark.slow
def test_both_controls_remove_the_image(profile: Profile) -> None:
    noise, blank = profile.controls["noise"], profile.controls["blank"]
    assert noise["inter"].shape == blank["inter"].shape == (N, DEPTH + 1)
    # Noise has no common direction, and the uniform grey image is the same for all samples.
    assert np.abs(noise["image"][:, 0]).max() < 0.05 < profile["image"][:, 0].min()
    assert np.ptp(blank["inter"], axis=0).max() < 1e-6 < np.ptp(profile["inter"], axis=0).max()


def test_a_batch_gives_the_same_readings_as_its_samples_alone(vlm: Vlm) -> None:
    samples = random_photographs(2)
    together = observe(vlm, encoded(vlm), samples)
    for row, sample in enumerate(samples):
        alone = observe(vlm, encode(vlm.processor, [sample], vlm.anatomy.image_positions), [sample])
        for name in ("similarity", "post_norm", "norm_shares", "weight_shares"):
            assert getattr(alone, name)[0] == pytest.approx(getattr(together, name)[row], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llava", "instructblip"])
def test_a_saved_checkpoint_gives_the_same_readings(
    family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    vlm: Vlm = request.getfixturevalue(family)
    getattr(topology, f"save_{family}")(tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert type(processor) is type(vlm.processor)
    if family == "instructblip":
        assert processor.chat_template is None
        processor.chat_template = BARE
    assert_same_readings(vlm, Vlm(family, model, processor, find_anatomy(model)))


@pytest.mark.slow
def test_the_published_processor_of_instructblip_loads_with_its_own_class(instructblip: Vlm, tmp_path: Path) -> None:
    topology.instructblip_processor().save_pretrained(tmp_path)
    topology.convert_to_published(tmp_path)
    processor = InstructBlipProcessor.from_pretrained(tmp_path)
    processor.chat_template = BARE
    assert processor.num_query_tokens == 32
    assert_same_readings(instructblip, Vlm("published", instructblip.model, processor, instructblip.anatomy))


def test_the_saved_llava_processor_keeps_the_number_of_image_tokens(tmp_path: Path) -> None:
    topology.llava_processor().save_pretrained(tmp_path)
    processor = LlavaProcessor.from_pretrained(tmp_path)
    assert (processor.patch_size, processor.num_additional_image_tokens) == (14, 1)
    assert processor.vision_feature_select_strategy == "default"


def assert_same_readings(model: Vlm, other: Vlm) -> None:
    """Assert that two models have the same encoded prompts and readings."""
    first, second = encoded(model), encoded(other)
    assert first.hashes == second.hashes
    for field in ("image", "text", "instruction", "other", "real"):
        assert torch.equal(getattr(first.groups, field), getattr(second.groups, field))
    readings: list[Readings] = [
        observe(vlm, batch, random_photographs(2), checking=True) for vlm, batch in ((model, first), (other, second))
    ]
    for name in ("similarity", "norm_shares"):
        assert getattr(readings[0], name) == pytest.approx(getattr(readings[1], name), abs=1e-6)
