"""Prompts with videos, which the tiny prompts of a type do not have."""

from __future__ import annotations

from typing import Any

import torch

from harness.models.anatomy import Anatomy
from harness.models.prompts.prompt import TokenGroups
from harness.releases.tiny.prompts import TinyPrompt, tiny_prompt
from harness.releases.tiny.tiny_model import SIDE

_FRAMES, _SECONDS = 2, 3.0


def video_prompt(model: Any, anatomy: Anatomy) -> TinyPrompt:
    """Return a prompt with a video of two frames per sample, three seconds apart."""
    base = tiny_prompt(model, anatomy)
    pixels = base.inputs["pixel_values"]
    count = _FRAMES * int(base.groups.image[0].sum())
    prompt = _replace_pictures(base, model.config.image_token_id, model.config.video_token_id, count)
    samples = len(pixels) // SIDE**2
    video = {
        "pixel_values_videos": _noise(_FRAMES * len(pixels), pixels.shape[1]),
        "video_grid_thw": torch.tensor([[_FRAMES, SIDE, SIDE]] * samples),
        "second_per_grid_ts": torch.tensor([_SECONDS] * samples),
        "mm_token_type_ids": 2 * prompt.groups.image.long(),
    }
    return TinyPrompt({**prompt.inputs, **video}, prompt.groups, prompt.separators)


def _replace_pictures(prompt: TinyPrompt, image_id: int, new_id: int, count: int) -> TinyPrompt:
    """Return the prompt with `count` tokens `new_id` in place of the image tokens of each sample."""
    rows = []
    for ids, real in zip(prompt.inputs["input_ids"].tolist(), prompt.groups.real.tolist(), strict=True):
        first, last = ids.index(image_id), len(ids) - ids[::-1].index(image_id)
        kept = [place for place in range(len(ids)) if real[place]]
        rows.append([place for place in kept if place < first] + [None] * count + [p for p in kept if p >= last])
    longest = max(len(row) for row in rows)

    def arrange(tensor: torch.Tensor, new: int) -> torch.Tensor:
        arranged = torch.zeros(len(rows), longest, dtype=tensor.dtype)
        for sample, row in enumerate(rows):
            values = [new if place is None else tensor[sample, place] for place in row]
            arranged[sample, -len(row) :] = torch.tensor(values, dtype=tensor.dtype)
        return arranged

    groups = TokenGroups(*(arrange(getattr(prompt.groups, n), n in ("image", "real")) for n in TokenGroups.__slots__))
    ids = arrange(prompt.inputs["input_ids"], new_id)
    inputs = {"input_ids": ids, "attention_mask": groups.real.long()}
    return TinyPrompt(inputs, groups, torch.zeros_like(groups.image))


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))
