"""Changes of a single setting of the model's configuration, its processor or its modules."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import reduce
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from harness.models.anatomy import find_anatomy
from harness.models.vlm import Vlm

SettingChange = Callable[[Vlm], None]


def _set_value(path: str, value: Any, of: Callable[[Vlm], Any]) -> SettingChange:
    """Return a change of an attribute or a dictionary entry. A callable `value` receives the old value."""

    def change(vlm: Vlm) -> None:
        *parts, last = path.split(".")
        owner = reduce(getattr, parts, of(vlm))
        entries = owner if isinstance(owner, dict) else vars(owner)
        new = value(entries[last]) if callable(value) else value
        if isinstance(owner, dict):
            owner[last] = new
        else:
            setattr(owner, last, new)

    return change


def _change_config(path: str, value: Any) -> SettingChange:
    return _set_value(path, value, lambda vlm: vlm.model.config)


def _change_image_processor(path: str, value: Any) -> SettingChange:
    return _set_value(path, value, lambda vlm: vlm.processor.image_processor)


#: Changes of the model's configuration and of its processor, by the beginning of the message that reports them.
SETTING_CHANGES: Mapping[str, SettingChange] = {
    "text_config.rope_parameters.rope_theta: 10000 -> 10100": _change_config(
        "text_config.rope_parameters.rope_theta", lambda theta: theta * 1.01
    ),
    "text_config.rms_norm_eps: 1e-06 -> 1e-05": _change_config("text_config.rms_norm_eps", lambda eps: 10 * eps),
    "vision_config.layer_norm_eps: 1e-05 -> 0.0001": _change_config(
        "vision_config.layer_norm_eps", lambda eps: 10 * eps
    ),
    "vision_feature_layer: -1 -> -2": _change_config("vision_feature_layer", -2),
    "vision_feature_select_strategy: default -> full": _change_config("vision_feature_select_strategy", "full"),
    "vision_config.hidden_act: quick_gelu -> gelu_pytorch_tanh": _change_config(
        "vision_config.hidden_act", "gelu_pytorch_tanh"
    ),
    "projector_hidden_act: gelu -> gelu_pytorch_tanh": _change_config("projector_hidden_act", "gelu_pytorch_tanh"),
    "processor.image_processor.resample: 3 -> 2": _change_image_processor("resample", 2),
    "processor.image_processor.size.height: 32 -> 64": _change_image_processor("size", {"height": 64, "width": 64}),
    "processor.image_processor.image_mean: [0.481455, 0.457827, 0.408211] -> [0.5, 0.5, 0.5]": _change_image_processor(
        "image_mean", [0.5, 0.5, 0.5]
    ),
}


def _scale_attention(vlm: Vlm) -> None:
    for layer in vlm.anatomy.layers[1:3]:
        layer.self_attn.scaling *= 1.5


def _scale_rope(vlm: Vlm) -> None:
    for name, buffer in vlm.model.named_buffers():
        if name.endswith("inv_freq"):
            buffer.mul_(1.02)


def _replace_eps(vlm: Vlm) -> None:
    for module in vlm.model.get_decoder().modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 1e-3


def _replace_activation(vlm: Vlm) -> None:
    vlm.anatomy.layers[2].mlp.act_fn = nn.GELU(approximate="tanh")


def _use_eager_vision_attention(vlm: Vlm) -> None:
    vlm.model.set_attn_implementation({"vision_config": "eager"})


_LAYERS = "model.language_model.layers.*"
#: Changes of a loaded model that leave its configuration as it was, by the same key.
MODULE_CHANGES: Mapping[str, SettingChange] = {
    f"{_LAYERS}.self_attn.scaling: 0.353553 -> 0.53033 in layers 2-3": _scale_attention,
    "model.language_model.rotary_emb.inv_freq: 1 to 0.001, sum 1.111 -> 1.02 to 0.00102, sum 1.13322": _scale_rope,
    f"{_LAYERS}.input_layernorm.variance_epsilon: 1e-06 -> 0.001 (and 2 modules alike)": _replace_eps,
    f"{_LAYERS}.mlp.act_fn: SiLUActivation -> GELU(approximate=tanh) in layer 3": _replace_activation,
    "vision_config.attn_implementation: sdpa -> eager": _use_eager_vision_attention,
}


def rebuild(vlm: Vlm, change: SettingChange = lambda _: None) -> Vlm:
    """Rebuild the model from a changed configuration and image processor, with the same weights."""
    processor = copy.copy(vlm.processor)
    processor.image_processor = copy.deepcopy(vlm.processor.image_processor)
    config = copy.deepcopy(vlm.model.config)
    # The change runs before the model is built.
    unbuilt: Any = SimpleNamespace(model=SimpleNamespace(config=config), processor=processor)
    change(unbuilt)
    model = type(vlm.model)(config).to(vlm.dtype).eval().requires_grad_(False)
    with torch.no_grad():
        model.load_state_dict(vlm.model.state_dict())
    return Vlm(vlm.name, model, processor, find_anatomy(model))
