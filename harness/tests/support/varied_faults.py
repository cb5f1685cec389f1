"""Faults of padding, resizing and configuration, with the point and the setting that a report must name.

Like those of `faults`, each damages the model in place, or patches the data or the processor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from transformers.activations import ACT2FN, GELUActivation
from transformers.configuration_utils import PreTrainedConfig

from harness.data.sample import Sample
from harness.models.vlm import Vlm
from harness.tests.support.faults import Change, patch_draws

LLAVA, INSTRUCTBLIP = "scenes-llava", "scenes-instructblip"
TANH = "gelu_pytorch_tanh"


def ignore_padding(vlm: Vlm, _: pytest.MonkeyPatch) -> None:
    """Let real tokens attend to the padding before them."""

    def unmask(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, kwargs | {"attention_mask": torch.ones_like(kwargs["attention_mask"])}

    vlm.model.register_forward_pre_hook(unmask, with_kwargs=True)


def resample_bilinear(vlm: Vlm, patch: pytest.MonkeyPatch) -> None:
    """Resize images with the bilinear instead of the bicubic filter."""
    patch.setattr(vlm.processor.image_processor, "resample", Image.Resampling.BILINEAR)


def swap_height_and_width(_: Vlm, patch: pytest.MonkeyPatch) -> None:
    """Swap height and width without moving the bytes. A square image does not change."""

    def swapped(sample: Sample) -> Sample:
        picture = sample.load_image

        def reshaped() -> Image.Image:
            whole = picture()
            return Image.frombytes(whole.mode, whole.size[::-1], whole.tobytes())

        return replace(sample, load_image=reshaped)

    patch_draws(patch, lambda samples: [swapped(sample) for sample in samples])


def approximate_gelu(vlm: Vlm, _: pytest.MonkeyPatch) -> None:
    """Replace GELU by its tanh approximation, in modules and configuration."""
    for module in list(vlm.model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, GELUActivation):
                setattr(module, name, ACT2FN[TANH])
    for config in configurations(vlm.model.config):
        for name, value in list(vars(config).items()):
            if value == "gelu":
                setattr(config, name, TANH)


def configurations(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    """Yield a configuration and those inside it."""
    yield config
    for value in list(vars(config).values()):
        if isinstance(value, PreTrainedConfig):
            yield from configurations(value)


def raise_theta(vlm: Vlm, _: pytest.MonkeyPatch) -> None:
    """Make the base of RoPE's frequencies 1 % larger."""
    config = vlm.anatomy.text_config
    config.rope_parameters = {**config.rope_parameters, "rope_theta": 1.01 * config.rope_parameters["rope_theta"]}
    for module in vlm.model.modules():
        if hasattr(module, "inv_freq"):
            module.inv_freq = type(module)(config).inv_freq


def lower_eps(vlm: Vlm, _: pytest.MonkeyPatch) -> None:
    """Divide the epsilon of RMS norms by ten."""
    config = vlm.anatomy.text_config
    config.rms_norm_eps /= 10
    for module in vlm.model.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = config.rms_norm_eps


def take_the_layer_before(vlm: Vlm, _: pytest.MonkeyPatch) -> None:
    """Take the image features from the previous layer of the tower."""
    vlm.model.config.vision_feature_layer -= 1


def reverse_key_value_heads(vlm: Vlm, _: pytest.MonkeyPatch) -> None:
    """Reverse the order of the key-value heads."""

    def reverse(module: nn.Module, _: Any, output: torch.Tensor) -> torch.Tensor:
        heads = vlm.anatomy.text_config.num_key_value_heads
        return output.unflatten(-1, (heads, -1)).flip(-2).flatten(-2)

    for layer in vlm.anatomy.layers:
        for projection in (layer.self_attn.k_proj, layer.self_attn.v_proj):
            projection.register_forward_hook(reverse)


@dataclass(frozen=True, slots=True)
class Located:
    """A fault and the facts that a report must state about it.

    `point` is the first residual point that changes, or None if the inputs change. `named` holds the settings that a
    message names. `models` holds the bundled models that show the fault.
    """

    change: Change
    point: int | None
    named: tuple[str, ...] = ()
    models: tuple[str, ...] = (LLAVA, INSTRUCTBLIP)


LOCATED: Mapping[str, Located] = {
    # InstructBLIP's prompts are never padded, because its Q-Former would read the padding.
    "padding mask ignored": Located(ignore_padding, 1, models=(LLAVA,)),
    "bilinear for bicubic": Located(resample_bilinear, None, ("image_processor.resample",)),
    "height and width swapped": Located(swap_height_and_width, None),
    "tanh GELU": Located(approximate_gelu, 0, ("hidden_act",)),
    "RoPE theta +1 %": Located(raise_theta, 1, ("rope_theta",)),
    "norm eps": Located(lower_eps, 1, ("rms_norm_eps",)),
    "feature layer": Located(take_the_layer_before, 0, ("vision_feature_layer",), models=(LLAVA,)),
    "KV head order": Located(reverse_key_value_heads, 1),
}
