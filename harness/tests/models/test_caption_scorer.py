"""Likelihoods from the prompt's key-value cache, compared with the complete pass on several architectures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AddedToken,
    Gemma3Config,
    InstructBlipConfig,
    PaliGemmaConfig,
    PreTrainedConfig,
    Qwen2VLConfig,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
)

from harness.data.sample import Sample
from harness.models import caption_scorer
from harness.models.anatomy import find_anatomy
from harness.models.caption_scorer import CaptionScorer
from harness.models.likelihood import answer_tokens, caption_likelihoods
from harness.models.prompts.chat import PromptError
from harness.models.prompts.prompt import encode
from harness.models.vlm import Vlm
from harness.tests.support.processors import FAMILIES, make_processor
from harness.tests.support.tiny import tiny_samples, tiny_tokenizer, tiny_vlm
from harness.tests.support.topology import REDUCED, random_model

CAPTIONS = ("a red circle above a blue square", "a green star")
_SIZES = {**REDUCED.sizes(), "num_hidden_layers": 3}
_EYES = {**REDUCED.sizes(), "num_hidden_layers": 1, "image_size": 56, "patch_size": 14}


class StillQwen(Qwen2VLProcessor):
    """Qwen2-VL's processor without its video processor, which needs torchvision."""

    @classmethod
    def get_attributes(cls) -> list[str]:
        return ["image_processor", "tokenizer"]

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> None:
        return None


def processor_of(kind: str) -> Any:
    """Return a processor of a model type."""
    family = FAMILIES[kind]
    if kind != "qwen2_vl":
        return make_processor(family)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=True) for token in family.more])
    pictures = Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=112 * 112)
    processor = StillQwen(image_processor=pictures, tokenizer=tokenizer, video_processor=None)
    processor.chat_template = family.template.replace("IMAGE", family.placeholder)
    return processor


def config_of(kind: str, vocabulary: int, image_token: int) -> PreTrainedConfig:
    """Return a small configuration of a model type."""
    text: dict[str, Any] = {**_SIZES, "vocab_size": vocabulary}
    gemma = {**text, "head_dim": 16, "num_key_value_heads": 2}
    if kind == "instructblip":
        return InstructBlipConfig(
            vision_config=_EYES,
            qformer_config={**_SIZES, "vocab_size": 400, "encoder_hidden_size": REDUCED.hidden},
            text_config={"model_type": "llama", **text},
            num_query_tokens=8,
            image_token_index=image_token,
        )
    if kind == "qwen2_vl":
        return Qwen2VLConfig(
            text_config={
                **text,
                "num_key_value_heads": 2,
                "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
            },
            vision_config={"depth": 1, "embed_dim": 32, "num_heads": 2, "hidden_size": REDUCED.hidden},
            image_token_id=image_token,
            vision_start_token_id=image_token + 2,
        )
    if kind == "paligemma":
        return PaliGemmaConfig(
            text_config={"model_type": "gemma", **gemma},
            vision_config=_EYES,
            image_token_index=image_token,
            projection_dim=64,
        )
    layers = {"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
    return Gemma3Config(
        text_config={**gemma, **layers, "sliding_window": 16},
        vision_config=_EYES,
        mm_tokens_per_image=16,
        image_token_id=image_token,
    )


def drawn_vlm(kind: str, dtype: torch.dtype) -> Vlm:
    """Return a random model of a type with a processor of the same type."""
    if kind == "llava":
        return tiny_vlm(dtype=dtype)
    processor = processor_of(kind)
    image_token = processor.tokenizer.convert_tokens_to_ids(FAMILIES[kind].feature)
    model = random_model(config_of(kind, len(processor.tokenizer) + 8, image_token), dtype=dtype)
    return Vlm(f"drawn-{kind}", model, processor, find_anatomy(model))


def rows_of(samples: Sequence[Sample]) -> tuple[list[Sample], list[str]]:
    """Return each sample with each caption."""
    return [sample for sample in samples for _ in CAPTIONS], [*CAPTIONS] * len(samples)


@contextmanager
def counted_layers(vlm: Vlm) -> Iterator[list[tuple[int, ...]]]:
    """Collect the shapes (rows, tokens) of the states that reach the first decoder layer."""
    shapes: list[tuple[int, ...]] = []
    handle = vlm.anatomy.layers[0].register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append((args[0] if args else kwargs["hidden_states"]).shape[:2]),
        with_kwargs=True,
    )
    try:
        yield shapes
    finally:
        handle.remove()


# Some processors pass PIL images to numpy in a deprecated way.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("kind", ["llava", "instructblip", "qwen2_vl", "paligemma", "gemma3"])
def test_the_cache_gives_the_likelihoods_of_the_complete_pass(kind: str, dtype: torch.dtype) -> None:
    """Prompts are padded on the left, except for InstructBLIP, whose prompts must have one length."""
    vlm = drawn_vlm(kind, dtype)
    samples = tiny_samples(3)
    if FAMILIES[kind].one_length:
        samples = [Sample(s.id, s.load_image, "describe the image", s.captions, s.cluster) for s in samples]
    rows, captions = rows_of(samples)
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    assert bool(batch.groups.real.all()) is FAMILIES[kind].one_length
    scorer = CaptionScorer(vlm)
    with counted_layers(vlm) as shapes:
        likelihoods = scorer(rows, captions)
        again = scorer(rows, captions)
    complete = caption_likelihoods(vlm, rows, captions)
    np.testing.assert_allclose(likelihoods, complete, rtol=1e-5)
    np.testing.assert_array_equal(again, likelihoods)
    # The prompts, the captions behind them, the complete pass over the first item; then without the check.
    prompts, after, checked, *later = shapes
    assert prompts == tuple(batch.inputs["input_ids"].shape)
    assert after == (len(rows), answer_tokens(vlm.processor, rows, captions)[0].shape[1] - 1)
    assert checked[0] == 4
    assert later == [prompts, after]


def test_logits_that_the_model_scales_after_its_unembedding_need_the_complete_pass(fresh_vlm: Vlm) -> None:
    fresh_vlm.model.register_forward_hook(lambda _, __, output: setattr(output, "logits", 0.5 * output.logits))
    rows, captions = rows_of(tiny_samples(2))
    complete = caption_likelihoods(fresh_vlm, rows, captions)
    np.testing.assert_array_equal(CaptionScorer(fresh_vlm)(rows, captions), complete)


def test_a_model_whose_cache_is_wrong_is_scored_by_the_complete_pass(fresh_vlm: Vlm) -> None:
    """A cache with the wrong values gives wrong likelihoods without an error."""
    rows, captions = rows_of(tiny_samples(3))

    def forget_values(_: Any, __: Any, output: Any) -> None:
        for layer in output.cache.layers if output.cache else ():
            layer.values.zero_()

    forget = fresh_vlm.model.get_decoder().register_forward_hook(forget_values)
    scorer = CaptionScorer(fresh_vlm)
    complete = caption_likelihoods(fresh_vlm, rows, captions)
    with torch.inference_mode():
        wrong = caption_scorer._cached_likelihoods(fresh_vlm, rows, captions)
    assert np.abs(wrong - complete).max() > 1e-3
    np.testing.assert_array_equal(scorer(rows, captions), complete)
    forget.remove()
    with counted_layers(fresh_vlm) as shapes:
        scorer(rows, captions)
    assert len(shapes) == 1


def test_a_cache_that_fails_later_is_replaced_by_the_complete_pass(fresh_vlm: Vlm) -> None:
    rows, captions = rows_of(tiny_samples(3))
    scorer = CaptionScorer(fresh_vlm)
    scorer(rows, captions)

    def fail(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        if kwargs.get("use_cache"):
            raise ValueError("no cache")

    fresh_vlm.model.get_decoder().register_forward_pre_hook(fail, with_kwargs=True)
    np.testing.assert_array_equal(scorer(rows, captions), caption_likelihoods(fresh_vlm, rows, captions))


def test_running_out_of_memory_is_no_fault_of_the_cache(fresh_vlm: Vlm) -> None:
    rows, captions = rows_of(tiny_samples(3))
    scorer, room = CaptionScorer(fresh_vlm), 2

    def run_out(_: Any, args: tuple[torch.Tensor, ...]) -> None:
        if len(args[0]) > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = fresh_vlm.anatomy.layers[1].register_forward_pre_hook(run_out)
    with pytest.raises(torch.OutOfMemoryError):
        scorer(rows, captions)
    handle.remove()
    with counted_layers(fresh_vlm) as shapes:
        scorer(rows, captions)
    assert [shape[0] for shape in shapes] == [3, 6, 4]


def test_a_prompt_that_attends_to_its_caption_is_refused(fresh_vlm: Vlm) -> None:
    """The cache cannot show it, because the prompt runs without a caption there."""

    def attend_to_all(_: Any, __: Any, kwargs: dict[str, Any]) -> Any:
        visible = torch.ones((1, 1, 1, kwargs["hidden_states"].shape[1]), dtype=torch.bool)
        return (), kwargs | {"attention_mask": visible}

    for layer in fresh_vlm.anatomy.layers:
        layer.self_attn.register_forward_pre_hook(attend_to_all, with_kwargs=True)
    with pytest.raises(PromptError, match="the prompt attends to the caption and its likelihood is undefined"):
        CaptionScorer(fresh_vlm)(*rows_of(tiny_samples(1)))
