"""Random-weight LLaVA models of any depth and prompts of an exact length, without download or tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch

from harness.lab.cost.subject import Subject
from harness.models.anatomy import find_anatomy
from harness.models.prompts.prompt import TokenGroups
from harness.probe.lens_task import LensTask, References

PATCH = 14
# As many content words as five captions of a photograph have, each with a few vocabulary entries.
WORDS, SPELLINGS = 20, 3
_MIN_TEXT = 20
# BOS and template tokens before the image and after the instruction, as in "USER: ... ASSISTANT:".
_BEFORE, _AFTER = 4, 5
# Standard deviations relative to 1 / sqrt(inputs). Large queries and keys give attention peaks. Small output weights
# prevent the tokens of an untrained tower from collapsing into one direction.
_SPREADS = {"q_proj": 1.5, "k_proj": 1.5, "o_proj": 0.3, "out_proj": 0.3, "down_proj": 0.3, "fc2": 0.3}


@dataclass(frozen=True, slots=True)
class Topology:
    """The widths of a LLaVA: decoder (d, heads, feed-forward width, vocabulary) and vision tower.

    `layers` is the number of decoder layers of the published model, 0 if there is none. With fewer decoder layers, the
    tower shrinks in proportion, so that its share of the cost stays the same.
    """

    hidden: int
    heads: int
    inner: int
    vocabulary: int
    tower_hidden: int
    tower_heads: int
    tower_inner: int
    tower_layers: int
    layers: int = 0

    def tower_depth(self, layers: int) -> int:
        """Return the tower's depth for `layers` decoder layers: at least two, of which the last but one is read."""
        share = min(1.0, layers / self.layers) if self.layers else 1.0
        return max(2, round(self.tower_layers * share))


#: A decoder of 100 to 300 M parameters with a small tower, which a laptop can run.
SMALL = Topology(768, 12, 2048, 32_000, 192, 3, 768, 4)
#: LLaVA-1.5-7B as published: Vicuna-7B with CLIP ViT-L.
LLAVA_7B = Topology(4096, 32, 11_008, 32_064, 1024, 16, 4096, 24, layers=32)


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
    """Return a random-weight model of `layers` decoder layers with a batch of prompts of `tokens` tokens each.

    Raises:
        ValueError: too few tokens for an image.
    """
    side = image_side(tokens)
    model = drawn_llava(topology, layers, side=side, tokens=tokens, dtype=dtype, device=device)
    anatomy = find_anatomy(model)
    groups = drawn_groups(tokens, side * side, batch).to(torch.device(device))
    generator = torch.Generator().manual_seed(1)
    task = LensTask(drawn_references(topology.vocabulary, batch, generator), ())
    other, drawn = (Subject(model, anatomy, drawn_inputs(model, groups, generator), groups, task) for _ in range(2))
    return drawn.with_learnt_block(other)


def drawn_llava(topology: Topology, layers: int, *, side: int, tokens: int, dtype: torch.dtype, device: str) -> Any:
    """Return the model for images of `side` x `side` patches, with states of order one at every depth."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
    from transformers.initialization import no_init_weights

    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=topology.tower_hidden,
            intermediate_size=topology.tower_inner,
            num_hidden_layers=topology.tower_depth(layers),
            num_attention_heads=topology.tower_heads,
            image_size=side * PATCH,
            patch_size=PATCH,
        ),
        text_config=LlamaConfig(
            vocab_size=topology.vocabulary,
            hidden_size=topology.hidden,
            intermediate_size=topology.inner,
            num_hidden_layers=layers,
            num_attention_heads=topology.heads,
            max_position_embeddings=max(4096, tokens),
        ),
        image_token_index=topology.vocabulary - 1,
        image_seq_length=side * side,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        attn_implementation="sdpa",
        dtype=dtype,
    )
    with torch.device(device), no_init_weights():
        model = LlavaForConditionalGeneration(config).to(dtype)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            part = name.split(".")[-2]
            if parameter.ndim == 1:
                parameter.normal_(float("norm" in part and name.endswith("weight")), 0.1, generator=generator)
            elif "embed" in part:
                parameter.normal_(0.0, 1.0, generator=generator)
            else:
                spread = _SPREADS.get(part, 1.0) * parameter[0].numel() ** -0.5
                parameter.normal_(0.0, spread, generator=generator)
    return model.eval().requires_grad_(False)


def drawn_groups(tokens: int, image_tokens: int, batch: int) -> TokenGroups:
    """Return token groups, bool (batch, tokens), of unpadded prompts: BOS, template, image, instruction, template."""
    position = torch.arange(tokens).expand(batch, -1)
    image = (position >= _BEFORE) & (position < _BEFORE + image_tokens)
    instruction = (position >= _BEFORE + image_tokens) & (position < tokens - _AFTER)
    real = torch.ones_like(image)
    return TokenGroups(
        image=image, text=~image & (position > 0), instruction=instruction, other=~image & ~instruction, real=real
    )


def drawn_inputs(model: Any, groups: TokenGroups, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
    """Return random token ids and noise images, on the model's device and in its dtype."""
    config = model.config
    batch, tokens = groups.real.shape
    words = torch.randint(3, config.text_config.vocab_size - 1, (batch, tokens), generator=generator)
    edge = config.vision_config.image_size
    pixels = torch.randn((batch, 3, edge, edge), generator=generator)
    return {
        "input_ids": torch.where(groups.image, config.image_token_id, words.to(groups.image.device)),
        "attention_mask": groups.real.long(),
        "pixel_values": pixels.to(groups.real.device, model.dtype),
    }


def drawn_references(vocabulary: int, batch: int, generator: torch.Generator) -> References:
    """Return 20 reference words and 20 chance words per sample, each of three random vocabulary entries."""
    drawn = torch.randint(3, vocabulary - 1, (2, batch, WORDS, SPELLINGS), generator=generator).tolist()
    true, chance = (tuple(tuple(tuple(sorted(word)) for word in sample) for sample in kind) for kind in drawn)
    return References(true, chance)
