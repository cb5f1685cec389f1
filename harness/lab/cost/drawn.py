"""Subjects with random weights: small LLaVA models of any depth, and the paper's models at full width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch

from harness.lab.cost.published import PATCH, Layout, Published, Width, random_model
from harness.lab.cost.subject import Subject
from harness.models.anatomy import Anatomy, find_anatomy
from harness.models.prompts.prompt import TokenGroups
from harness.probe.lens_task import LensTask, References

# As many content words as five captions of a photograph have, each with a few vocabulary entries.
WORDS, SPELLINGS = 20, 3
_MIN_TEXT = 20
# BOS and template tokens before the image and after the instruction, as in "USER: ... ASSISTANT:".
_BEFORE, _AFTER = 4, 5
# Tokens of the instruction that a Q-Former reads.
_READ_TOKENS = 7


@dataclass(frozen=True, slots=True)
class Topology:
    """The sizes of a small LLaVA: width and vocabulary of the decoder, width and depth of the tower."""

    decoder: Width
    vocabulary: int
    tower: Width
    tower_layers: int


#: A decoder of 100 to 300 M parameters with a small tower, which a laptop can run.
SMALL = Topology(Width(768, 12, 2048), 32_000, Width(192, 3, 768), 4)


def image_side(tokens: int) -> int:
    """Return the image side in patches: the largest square that leaves 20 of `tokens` tokens for text.

    Raises:
        ValueError: fewer than 24 tokens, too few for an image of two by two patches.
    """
    if tokens < _MIN_TEXT + 4:
        raise ValueError(f"{tokens} tokens hold no image beside {_MIN_TEXT} tokens of text; use 24 or more")
    return isqrt(tokens - _MIN_TEXT)


def drawn_subject(
    topology: Topology,
    tokens: int,
    layers: int,
    *,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Subject:
    """Return a LLaVA of `layers` decoder layers with a batch of prompts of `tokens` tokens each.

    Raises:
        ValueError: too few tokens for an image.
    """
    side = image_side(tokens)
    config = _small_config(topology, layers, side, tokens)
    layout = Layout(_BEFORE, side * side, tokens - side * side - _BEFORE - _AFTER, _AFTER)
    return _subject(random_model(config, dtype=dtype, device=device), layout, batch)


def published_subject(published: Published, layers: int, *, dtype: torch.dtype, device: str) -> Subject:
    """Return a published model of `layers` decoder layers with one prompt."""
    return _subject(random_model(published.config(layers=layers), dtype=dtype, device=device), published.layout, 1)


def _small_config(topology: Topology, layers: int, side: int, tokens: int) -> Any:
    """Return the configuration of a LLaVA for images of `side` x `side` patches."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            **topology.tower.sizes(),
            num_hidden_layers=topology.tower_layers,
            image_size=side * PATCH,
            patch_size=PATCH,
        ),
        text_config=LlamaConfig(
            **topology.decoder.sizes(),
            vocab_size=topology.vocabulary,
            num_hidden_layers=layers,
            max_position_embeddings=max(4096, tokens),
        ),
        image_token_index=topology.vocabulary - 1,
        image_seq_length=side * side,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def _subject(model: Any, layout: Layout, batch: int) -> Subject:
    """Return the model with a batch of drawn prompts, its block learnt from another batch."""
    anatomy = find_anatomy(model)
    groups = drawn_groups(layout, batch).to(torch.device(model.device))
    generator = torch.Generator().manual_seed(1)
    task = LensTask(drawn_references(anatomy.vocabulary_size, batch, generator), ())
    other, drawn = (
        Subject(model, anatomy, drawn_inputs(model, anatomy, groups, generator), groups, task) for _ in range(2)
    )
    return drawn.with_learnt_block(other)


def drawn_groups(layout: Layout, batch: int) -> TokenGroups:
    """Return token groups, bool (batch, tokens), of prompts with this layout."""
    position = torch.arange(layout.tokens).expand(batch, -1)
    end = layout.before + layout.image
    image = (position >= layout.before) & (position < end)
    bos = position == (0 if layout.before else end)
    instruction = (position >= end) & (position < layout.tokens - layout.after) & ~bos
    return TokenGroups(
        image=image,
        text=~image & ~bos,
        instruction=instruction,
        other=~image & ~instruction,
        real=torch.ones_like(image),
    )


def drawn_inputs(
    model: Any, anatomy: Anatomy, groups: TokenGroups, generator: torch.Generator
) -> Mapping[str, torch.Tensor]:
    """Return random token ids and noise images, on the model's device and in its dtype."""
    config = model.config
    device, batch = groups.real.device, len(groups.real)

    def words(vocabulary: int, *size: int) -> torch.Tensor:
        return torch.randint(3, vocabulary - 1, size, generator=generator).to(device)

    ids = words(min(config.text_config.vocab_size, anatomy.image_token_id), *groups.real.shape)
    edge = config.vision_config.image_size
    pixels = torch.randn((batch, 3, edge, edge), generator=generator)
    inputs = {
        "input_ids": torch.where(groups.image, anatomy.image_token_id, ids),
        "attention_mask": groups.real.long(),
        "pixel_values": pixels.to(device, model.dtype),
    }
    if hasattr(config, "qformer_config"):
        inputs["qformer_input_ids"] = words(config.qformer_config.vocab_size, batch, _READ_TOKENS)
        inputs["qformer_attention_mask"] = torch.ones_like(inputs["qformer_input_ids"])
    return inputs


def drawn_references(vocabulary: int, batch: int, generator: torch.Generator) -> References:
    """Return 20 reference words and 20 chance words per sample, each of three random vocabulary entries."""
    drawn = torch.randint(3, vocabulary - 1, (2, batch, WORDS, SPELLINGS), generator=generator).tolist()
    true, chance = (tuple(tuple(tuple(sorted(word)) for word in sample) for sample in kind) for kind in drawn)
    return References(true, chance)
