"""A tiny random LLaVA with grouped KV heads, biases and a real processor."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from harness.data.sample import Sample
from harness.measurement.measure import measure
from harness.models.anatomy import find_anatomy
from harness.models.bundled.checkpoint import pillow_processor
from harness.models.prompts.prompt import Batch, TokenGroups, encode
from harness.models.vlm import Vlm
from harness.probe.lens_task import LensTask, References
from harness.probe.observation import observing
from harness.probe.readings import Readings
from harness.probe.separators import exclude_separators
from harness.profile.profile import Profile

SIDE, PATCH = 32, 8
N = 6  # samples of a tiny profile
TEXTS = [
    "a red circle above a blue square",
    "a green star left of a yellow heart",
    "describe the image please",
    "what is in the picture?",
]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<image>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" " + text for text in TEXTS] * 20, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
        padding_side="left",
    )


def tiny_vlm(
    seed: int = 0,
    *,
    dtype: torch.dtype = torch.float32,
    bias: bool = True,
    layers: int = 4,
    width: int = 32,
    attention: str = "sdpa",
) -> Vlm:
    # Initialising a model of transformers takes longer than copying one.
    model, processor = copy.deepcopy(_tiny_model(seed, dtype, bias, layers, width, attention))
    return Vlm("tiny-llava", model, processor, find_anatomy(model))


@cache
def _tiny_model(
    seed: int, dtype: torch.dtype, bias: bool, layers: int, width: int, attention: str
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    tokenizer = tiny_tokenizer()
    processor = LlavaProcessor(
        pillow_processor("CLIPImageProcessor")(
            size={"height": SIDE, "width": SIDE}, crop_size={"height": SIDE, "width": SIDE}
        ),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=(
            "<s>USER: {% for part in messages[0]['content'] %}{% if part['type'] == 'image' %}<image>\n{% else %}"
            "{{ part['text'] }}{% endif %}{% endfor %} ASSISTANT:"
        ),
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=PATCH,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            attention_bias=bias,
            bos_token_id=tokenizer.bos_token_id,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(SIDE // PATCH) ** 2,
        attn_implementation=attention,
    )
    generator = torch.Generator().manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.25 if parameter.ndim > 1 else 0.1
            offset = 1.0 if parameter.ndim == 1 and float(parameter.mean()) > 0.5 else 0.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale + offset)
    return model.to(dtype).eval().requires_grad_(False), processor


def tiny_samples(n: int = 4) -> list[Sample]:
    instructions = ["describe the image please", "what is in the picture?", "a red circle above a blue square"]

    def picture(index: int) -> Any:
        generator = torch.Generator().manual_seed(1000 + index)
        pixels = torch.randint(0, 256, (SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
        return lambda: Image.fromarray(pixels.numpy())

    captions = [("a red circle above a blue square",), ("a green star left of a yellow heart",)]
    return [
        Sample(f"tiny-{index}", picture(index), instructions[index % 3], captions[index % 2], f"tiny-{index}")
        for index in range(n)
    ]


def observe(vlm: Vlm, samples: Sequence[Sample], lens: LensTask | None = None, *, checking: bool = True) -> Readings:
    """Return the readings of one forward pass over `samples`, with all self-checks."""
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    ids = [sample.id for sample in samples]
    with (
        torch.inference_mode(),
        observing(vlm.model, vlm.anatomy, batch.groups, sample_ids=ids, lens=lens, checking=checking) as seen,
    ):
        vlm.model(**cast_inputs(vlm, batch), use_cache=False, logits_to_keep=1)
        return seen.readings()


def cast_inputs(vlm: Vlm, batch: Batch) -> dict[str, torch.Tensor]:
    """Return the inputs of the batch in the model's dtype."""
    return {key: value.to(vlm.dtype) if value.is_floating_point() else value for key, value in batch.inputs.items()}


def try_separators(vlm: Vlm) -> None:
    """Detect separators once, so that all later passes are measurements."""
    exclude_separators(vlm, encode(vlm.processor, tiny_samples(1), vlm.anatomy.image_positions))


def dense_lens_task(n: int) -> LensTask:
    """Return a dense lens task with one word per sample."""
    words = (((5,),),) * n
    return LensTask(References(words, words), (), dense=True)


def random_groups(rng: np.random.Generator, batch: int) -> TokenGroups:
    """Return groups of left-padded prompts: BOS, image, template, instruction, template, each of two or more tokens."""
    rows = []
    for _ in range(batch):
        counts = rng.integers(2, 7, 4)
        rows.append("b" + "i" * counts[0] + "t" * counts[1] + "u" * counts[2] + "t" * counts[3])
    width = max(map(len, rows)) + int(rng.integers(0, 3))
    letters = np.array([list(row.rjust(width, "p")) for row in rows])
    return TokenGroups(
        image=torch.tensor(letters == "i"),
        text=torch.tensor((letters == "t") | (letters == "u")),
        instruction=torch.tensor(letters == "u"),
        other=torch.tensor((letters == "t") | (letters == "b")),
        real=torch.tensor(letters != "p"),
    )


def tiny_profile(vlm: Vlm, dataset: str = "tiny", **options: Any) -> Profile:
    """Return the profile of N samples in one batch without controls; `options` of `measure` override that."""
    return measure(vlm, dataset, **({"samples": N, "batch_size": N, "controls": (), "progress": False} | options))


def have_same_numbers(first: Profile, second: Profile) -> bool:
    """Return True if two profiles hold the same numbers bit for bit and have the same inputs."""
    assert first.arrays.keys() == second.arrays.keys()
    arrays = [np.array_equal(first.arrays[name], second.arrays[name]) for name in first.arrays]
    return all(arrays) and (first.token_hashes, first.pixel_hashes) == (second.token_hashes, second.pixel_hashes)


def largest_difference(first: Profile, second: Profile) -> float:
    """Return the largest absolute difference between two profiles over all arrays."""
    return max(float(np.abs(first.arrays[name] - second.arrays[name]).max()) for name in first.arrays)
