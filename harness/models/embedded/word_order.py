"""Does `scenes-llava` tell captions apart that differ in word order alone? Winoground's scores on `scenes-order`.

Source: Thrush et al. 2022, section 3: text score s(c0, i0) > s(c1, i0) and s(c1, i1) > s(c0, i1); image score
s(c0, i0) > s(c0, i1) and s(c1, i1) > s(c1, i0); group score both. Here s is the log-likelihood of the caption.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from harness.data.order import order_item
from harness.data.scenes import INSTRUCTION, Scene

_BATCH = 12  # items at once, four rows each


@torch.inference_mode()
def caption_scores(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, scenes: Sequence[Scene], captions: Sequence[str]
) -> torch.Tensor:
    """Log-likelihoods (n,) of the captions, each after the picture of its scene, summed over tokens and end of turn."""
    content = [{"type": "image"}, {"type": "text", "text": INSTRUCTION}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    ends = [caption + "<|im_end|>" for caption in captions]
    batch = processor(
        images=[scene.picture() for scene in scenes],
        text=[prompt + end for end in ends],
        padding=True,
        return_tensors="pt",
    )
    batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
    lengths = torch.tensor([len(processor.tokenizer(end).input_ids) for end in ends])
    longest = int(lengths.max())
    logits = model(**batch, use_cache=False, logits_to_keep=longest + 1).logits[:, :-1].float()
    wanted = batch["input_ids"][:, -longest:]
    each: torch.Tensor = logits.log_softmax(dim=-1).gather(2, wanted[..., None])[..., 0]
    in_caption = torch.arange(longest)[None, :] >= longest - lengths[:, None]
    total: torch.Tensor = (each * in_caption).sum(dim=1)
    return total


def winoground_scores(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, items: int, seed: int
) -> dict[str, float]:
    """Text, image and group score over the first `items` word-order items, with the canonical captions."""
    tables = []
    for first in range(0, items, _BATCH):
        pairs = [order_item(index, seed) for index in range(first, min(items, first + _BATCH))]
        rows = [(pair[image], pair[text].captions()[0]) for pair in pairs for image in (0, 1) for text in (0, 1)]
        scores = caption_scores(model, processor, *zip(*rows, strict=True))
        tables.append(scores.reshape(len(pairs), 2, 2))
    return judge_scores(torch.cat(tables))


def judge_scores(scores: torch.Tensor) -> dict[str, float]:
    """Text, image and group score of a table (items, images, captions). A tie is wrong."""
    s = scores
    text = (s[:, 0, 0] > s[:, 0, 1]) & (s[:, 1, 1] > s[:, 1, 0])
    image = (s[:, 0, 0] > s[:, 1, 0]) & (s[:, 1, 1] > s[:, 0, 1])
    named = {"text": text, "image": image, "group": text & image}
    return {name: float(right.float().mean()) for name, right in named.items()}
