"""Faults that a regression suite must detect: one function each, and tables of them.

A fault damages the model in place, or patches the data or the harness. Layers are numbered from 1.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import harness.measurement.batches
import harness.measurement.drawn_samples
import harness.probe.observation
from harness.data.datasets import DATASETS
from harness.data.sample import Sample, Source
from harness.models.anatomy import find_anatomy
from harness.models.prompts.prompt import Batch, ImagePositions, TokenGroups, encode
from harness.models.vlm import Vlm
from harness.probe.lens import open_lens

Change = Callable[[Vlm, pytest.MonkeyPatch], None]
Draw = Callable[[int, int, Source], Sequence[Sample]]


def copy_vlm(vlm: Vlm) -> Vlm:
    """Return a deep copy of the model that a fault may damage."""
    model = copy.deepcopy(vlm.model)
    return Vlm(vlm.name, model, vlm.processor, find_anatomy(model))


# The image features


def change_features(change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    """Change the first decoder layer's input at the image positions, (batch, image tokens, d)."""

    def damage(vlm: Vlm, _: pytest.MonkeyPatch) -> None:
        positions: list[torch.Tensor] = []

        def look(_: nn.Module, __: Any, kwargs: dict[str, Any]) -> None:
            positions[:] = [kwargs["input_ids"] == vlm.anatomy.image_token_id]

        def rewrite(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            states, mask = args[0].clone(), positions[0]
            image_states = states[mask].view(len(states), -1, states.shape[-1])
            states[mask] = change(image_states).flatten(0, 1)
            return (states, *args[1:])

        vlm.model.register_forward_pre_hook(look, with_kwargs=True)
        vlm.anatomy.layers[0].register_forward_pre_hook(rewrite)

    return damage


# The layers


def swap_layers(first: int) -> Change:
    """Exchange the weights of a layer and the next."""

    def damage(vlm: Vlm, _: pytest.MonkeyPatch) -> None:
        first_weights, second_weights = (vlm.anatomy.layers[index].parameters() for index in (first - 1, first))
        for first_weight, second_weight in zip(first_weights, second_weights, strict=True):
            first_weight.data, second_weight.data = second_weight.data, first_weight.data

    return damage


def skip_layer(number: int) -> Change:
    """Let a layer run, but pass on its input."""

    def damage(vlm: Vlm, _: pytest.MonkeyPatch) -> None:
        vlm.anatomy.layers[number - 1].register_forward_hook(lambda _, args, __: args[0])

    return damage


def scale_mlp(number: int, factor: float) -> Change:
    """Multiply what the MLP of a layer adds to the residual stream."""

    def damage(vlm: Vlm, _: pytest.MonkeyPatch) -> None:
        vlm.anatomy.layers[number - 1].mlp.register_forward_hook(lambda _, __, output: factor * output)

    return damage


def add_low_rank(layers: int, rank: int, share: float) -> Change:
    """Add a matrix of this rank to every matrix of the last layers. Its norm is `share` times that of the matrix."""

    def damage(vlm: Vlm, _: pytest.MonkeyPatch) -> None:
        generator = torch.Generator().manual_seed(0)
        for weight in linear_weights(vlm.anatomy.layers[-layers:]):
            left, right = (torch.randn(size, rank, generator=generator) for size in weight.shape)
            added = left @ right.T
            weight.add_(added * (share * weight.norm() / added.norm()))

    return damage


# Attention and positions


def stretch_positions(factor: float) -> Change:
    """Multiply the frequencies of RoPE."""

    def damage(vlm: Vlm, _: pytest.MonkeyPatch) -> None:
        for name, buffer in vlm.model.named_buffers():
            if name.endswith(".inv_freq"):
                buffer.mul_(factor)

    return damage


def sharpen_attention(numbers: Sequence[int], factor: float) -> Change:
    """Multiply the attention logits in some layers."""

    def damage(vlm: Vlm, _: pytest.MonkeyPatch) -> None:
        for number in numbers:
            vlm.anatomy.layers[number - 1].self_attn.scaling *= factor

    return damage


def unmask_later_tokens(vlm: Vlm, _: pytest.MonkeyPatch) -> None:
    """Let every token attend to every other; for batches without padding."""

    def unmask(_: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, Any]) -> Any:
        batch, tokens, _ = args[0].shape
        return args, kwargs | {"attention_mask": torch.ones(batch, 1, tokens, tokens, dtype=torch.bool)}

    for layer in vlm.anatomy.layers:
        layer.register_forward_pre_hook(unmask, with_kwargs=True)


# The weights


def linear_weights(layers: Sequence[nn.Module]) -> list[torch.Tensor]:
    """Return the matrices inside decoder layers."""
    return [module.weight for layer in layers for module in layer.modules() if isinstance(module, nn.Linear)]


def add_weight_noise(share: float) -> Change:
    """Multiply every entry of the layers' matrices by 1 + share x N(0, 1)."""

    def damage(vlm: Vlm, _: pytest.MonkeyPatch) -> None:
        generator = torch.Generator().manual_seed(0)
        for weight in linear_weights(vlm.anatomy.layers):
            weight.mul_(1.0 + share * torch.randn(weight.shape, generator=generator))

    return damage


def quantise(bits: int) -> Change:
    """Round the layers' matrices to the nearest of 2^bits - 1 symmetric levels, scaled per output channel."""

    def damage(vlm: Vlm, _: pytest.MonkeyPatch) -> None:
        highest = 2 ** (bits - 1) - 1
        for weight in linear_weights(vlm.anatomy.layers):
            step = weight.abs().amax(1, keepdim=True) / highest
            weight.copy_((weight / step).round() * step)

    return damage


def reinitialise(vlm: Vlm, _: pytest.MonkeyPatch) -> None:
    """Initialise decoder, embeddings and head like transformers. Vision tower and projector stay."""
    generator = torch.Generator().manual_seed(0)
    decoder = [vlm.model.get_decoder(), vlm.anatomy.unembedding]
    for module in [module for part in decoder for module in part.modules()]:
        if isinstance(module, nn.Linear | nn.Embedding):
            scale = vlm.anatomy.text_config.initializer_range
            module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * scale)
        elif isinstance(getattr(module, "weight", None), torch.Tensor):
            module.weight.fill_(1.0)


def drop_final_norm_weight(vlm: Vlm, _: pytest.MonkeyPatch) -> None:
    vlm.anatomy.final_norm.weight.fill_(1.0)


# The data and the harness


def patch_draws(patch: pytest.MonkeyPatch, change: Callable[[list[Sample]], list[Sample]]) -> None:
    """Apply `change` to the samples that each dataset draws."""
    for name, dataset in DATASETS.items():

        def draw(n: int, seed: int, source: Source, original_draw: Draw = dataset.draw) -> list[Sample]:
            return change(list(original_draw(n, seed, source)))

        patch.setitem(DATASETS, name, replace(dataset, draw=draw))


def shift_images(_: Vlm, patch: pytest.MonkeyPatch) -> None:
    """Give each sample the image of the previous sample."""
    patch_draws(
        patch,
        lambda samples: [replace(sample, load_image=samples[row - 1].load_image) for row, sample in enumerate(samples)],
    )


def patch_encoding(patch: pytest.MonkeyPatch, change: Callable[[Any, Batch], Batch]) -> None:
    """Apply `change` to the processor and each batch that a measurement or a control encodes."""

    def changed(processor: Any, samples: Sequence[Sample], image_positions: ImagePositions) -> Batch:
        return change(processor, encode(processor, samples, image_positions))

    for module in (harness.measurement.drawn_samples, harness.measurement.batches):
        patch.setattr(module, "encode", changed)


def shift_image_span(_: Vlm, patch: pytest.MonkeyPatch) -> None:
    """Shift the image token group one position to the right. The model's inputs do not change."""

    def shifted(_: Any, batch: Batch) -> Batch:
        old, real = batch.groups, batch.groups.real
        image = old.image.roll(1, dims=1)
        bos = real & ~old.image & ~old.text
        instruction = old.instruction & ~image
        groups = TokenGroups(image, real & ~image & ~bos, instruction, real & ~image & ~instruction, real)
        return replace(batch, groups=groups)

    patch_encoding(patch, shifted)


def shift_image_span_unchecked(vlm: Vlm, patch: pytest.MonkeyPatch) -> None:
    """Shift the image span in a model that does not report feature positions, so that no self-check detects it."""
    patch.setattr(harness.measurement.drawn_samples, "check_image_positions", lambda *_: None)
    shift_image_span(vlm, patch)


def apply_norm_twice(_: Vlm, patch: pytest.MonkeyPatch) -> None:
    """Let LogitLens apply the final norm twice."""

    def twice(task: Any, image: torch.Tensor, unembedding: nn.Module, norm: Any) -> Any:
        return open_lens(task, image, unembedding, lambda rows: norm(norm(rows)))

    patch.setattr(harness.probe.observation, "open_lens", twice)
    # This self-check would detect the fault at once.
    patch.setattr(harness.probe.observation, "check_last_state", lambda *_: None)


GROSS: Mapping[str, Change] = {
    "features zeroed": change_features(torch.zeros_like),
    "layer 21 skipped": skip_layer(21),
    "layers 27 and 28 swapped": swap_layers(27),
    "layers 14 and 15 swapped": swap_layers(14),
    "4-bit round-to-nearest": quantise(4),
    "weights with 5 % noise": add_weight_noise(0.05),
}

SUBTLE: Mapping[str, Change] = {
    "pictures of other samples": shift_images,
    "features of other samples": change_features(lambda states: states.roll(1, dims=0)),
    "features x2": change_features(lambda states: 2.0 * states),
    "image tokens in reverse order": change_features(lambda states: states.flip(1)),
    "MLP of layer 15 x0.7": scale_mlp(15, 0.7),
    "RoPE x1.02": stretch_positions(1.02),
    "RoPE x1.2": stretch_positions(1.2),
    "attention bidirectional": unmask_later_tokens,
    "attention sharper in layers 12-15": sharpen_attention(range(12, 16), 1.5),
    "weights with 0.5 % noise": add_weight_noise(0.005),
    "language model re-initialised": reinitialise,
    "rank-4 change of the last five layers": add_low_rank(5, 4, 0.05),
    "final norm's weight dropped": drop_final_norm_weight,
    "lens normed twice": apply_norm_twice,
    "image span off by one": shift_image_span_unchecked,
}
