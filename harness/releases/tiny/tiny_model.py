"""A tiny random model of any type, configured by shrinking the default fields according to their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from harness.models.anatomy import refuse_unmeasurable
from harness.releases.tiny.tiny_fields import TINY_FIELDS

DEPTH = 4
# Patches along one side of an image, enough for every kind of patch merging.
SIDE = 8
# Tokens that a layer with a sliding window sees: fewer than a picture has, so that prompts and pictures cross it.
WINDOW = 12
# The head width equals most defaults, for which the rotary sections are written.
_WIDTH, _HEADS, _KEY_HEADS, _HEAD_WIDTH, _INNER = 64, 2, 1, 32, 48
_PATCH = 16
# Ids of image placeholders and other markers start here; ids of text are lower.
_FIRST_MARKER = 200
# Substitute for an image token id that a configuration leaves open.
_PLACEHOLDER = 10**9

_DEPTHS = ("num_hidden_layers", "n_layers", "num_layers", "layers", "encoder_layers", "decoder_layers", "depth")
_MARKER = r".*(token_id|token_index|patch_id|image_\w+_id|im_\w+_id)s?$"
_INDEXES = r".*(indexes|indices|layer_ids|_idxs|_target_layers|attention_layers|feature_layers?)$"
_UNCHANGED = ("id2label", "label2id", "rope_parameters")
_PLACEHOLDERS = ("image_token_id", "image_token_index", "video_token_index")
# All widths are equal, so that references to another part's width fit.
_SIZES: tuple[tuple[str, int], ...] = (
    (r"(linear_)?num_(key|value)_heads", _HEADS),
    (r".*(num|n)_.*heads|.*attention_heads|num_heads|resampler_heads|index_n_heads|mamba_num_heads", _HEADS),
    (r"qk_rope_head_dim", _HEAD_WIDTH // 2),
    (r".*head_dim|resampler_dim_head|d_kv|mamba_head_dim", _HEAD_WIDTH),
    (r".*lora_rank|hc_lowrank|d_rel", 32),
    (r"(n_routed|num|num_local|moe_num)_experts", 4),
    (r"num_experts_per_tok|moe_k|moe_topk", 2),
    (r"n_group|topk_group|n_groups", 1),
    (r"pooling_kernel_size", 2),
    (r"patch_size", _PATCH),
    (r"hidden_size_per_layer_input", _INNER),
    (r"output_channels", _WIDTH),
    (r".*vocab_size(_per_layer_input)?|vocab_offset", 320),
    (
        r".*(intermediate|ffn|mlp|d_ff|moe_hidden|share_expert|alignment_intermediate|merged_hidden).*(size|dim)|d_ff",
        _INNER,
    ),
    (
        r".*(hidden_size|embed_dim|d_model|projection_dim|proj_dim|text_hidden|image_text_hidden_size|adapter_(in|out)_dim"
        r"|adapter_input_size|output_proj_dims|output_dim|projection_hidden_dim|pooler_output_size|hidden_dim"
        r"|vision_output_dim|projector_input_dim)",
        _WIDTH,
    ),
    (r"sliding_window(_size)?|attention_chunk_size", WINDOW),
    (r"num_position_embeddings|position_embedding_size|num_patches|max_num_patches|num_image_tokens", SIDE * SIDE),
    (r"mm_tokens_per_image|image_seq_length", 16),
    (r"(pos_emb_(height|width)|posemb_grid_size|max_image_size_in_patches)", SIDE),
    (r"num_query_tokens|latent_query_num|resampler_n(um)?_latents", 8),
)


def tiny_model(model_type: str, class_name: str) -> Any:
    """Return a model of the named class with a tiny configuration and random weights, frozen and in eval mode.

    Raises:
        AnatomyError: a model with this configuration cannot be measured.
        ImportError: a required library is not installed.
    """
    import transformers

    config = tiny_config(model_type)
    refuse_unmeasurable(config, class_name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, class_name)(config)
        draw_weights(model)
    return model.requires_grad_(False).eval()


@torch.no_grad()
def draw_weights(model: Any, seed: int = 0) -> None:
    """Randomise all parameters so that attention is not uniform: scale matrices by fan-in, perturb vectors."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            continue
        drawn = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim < 2:
            # Some parameters are created from uninitialised memory.
            parameter.nan_to_num_(0.0, 0.0, 0.0).clamp_(-2.0, 2.0).add_(0.1 * drawn)
        elif "embed" in name:
            parameter.copy_(0.5 * drawn)
        else:
            # Deep convolutional towers have residual sums without norms, so use a smaller gain.
            gain = 1.0 if parameter.ndim == 4 else 2.0
            parameter.copy_(drawn * (gain / max(1, parameter[0].numel())) ** 0.5)


def tiny_config(model_type: str) -> Any:
    """Return the configuration of a type with small widths, few layers, a small vocabulary and its `TINY_FIELDS`.

    Args:
        model_type: a key of transformers' configuration mapping.

    Raises:
        Exception: the configuration class rejects fields that do not fit each other.
    """
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[model_type]
    content = kind().to_dict()
    vision = getattr(kind, "sub_configs", {}).get("vision_config")
    if vision is not None and content.get("vision_config", vision) is None:
        content["vision_config"] = getattr(vision, "config_class", vision)().to_dict()
    small = _Shrinker().shrink(content)
    if small.get("image_grid_pinpoints"):
        side = small["vision_config"]["image_size"]
        small["image_grid_pinpoints"] = [[side, side], [side, 2 * side]]
    _, fields = TINY_FIELDS.get(model_type, ("", {}))
    for path, value in fields.items():
        *parts, name = path.split(".")
        part = small
        for key in parts:
            part = part.setdefault(key, {})
        part[name] = value
    config = kind.from_dict(small)
    for part in (config, config.get_text_config(decoder=True)):
        # Models of some releases read `pad_token_id` although their configurations lack it.
        if not hasattr(part, "pad_token_id"):
            part.pad_token_id = None
    return config


@dataclass(frozen=True, slots=True)
class _Shrinker:
    """Shrinks fields; `markers` maps old marker ids to new ones, the same in all parts."""

    markers: dict[int, int] = field(default_factory=dict)

    def shrink(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields with small values."""
        layers = _selected_layers(content, _depth(content))
        small: dict[str, Any] = {}
        for name, value in content.items():
            if name == "per_layer_config" and value:
                selected = {int(layer): fields for layer, fields in value.items() if int(layer) in layers}
                small[name] = {layers.index(layer): self.shrink(fields) for layer, fields in selected.items()}
            elif isinstance(value, Mapping) and all(isinstance(key, str) for key in value) and name not in _UNCHANGED:
                small[name] = self.shrink(value)
            elif isinstance(value, (list, tuple)):
                small[name] = self._list(name, value, content, layers)
            elif isinstance(value, int) and not isinstance(value, bool):
                small[name] = self._number(name, value, content)
            elif value is None and name in _PLACEHOLDERS:
                small[name] = self._marker(_PLACEHOLDER)
            else:
                small[name] = value
        if small.get("sliding_window", WINDOW) is None and any("sliding" in kind for kind in _kinds(content)):
            small["sliding_window"] = WINDOW
        if isinstance(small.get("rope_parameters"), Mapping):
            small["rope_parameters"] = _rotary(small["rope_parameters"], small)
        return small

    def _list(
        self, name: str, value: Sequence[Any], content: Mapping[str, Any], layers: Sequence[int]
    ) -> Sequence[Any]:
        indexes, depth = re.fullmatch(_INDEXES, name), _depth(content)
        if depth and len(value) == depth and not indexes:
            value = [value[layer] for layer in layers]
        if name.endswith(("intermediate_size", "hidden_size", "hidden_sizes")):
            return [_INNER for _ in value]
        if re.fullmatch(_MARKER, name):
            return [self._marker(number) for number in value]
        if indexes and value and all(isinstance(index, int) for index in value):
            count = max(depth, *(abs(index) + 1 for index in value))
            scaled = [(abs(index) * DEPTH // count) * (-1 if index < 0 else 1) for index in value]
            fixed = (index or (-1 if original < 0 else 0) for index, original in zip(scaled, value, strict=True))
            return list(dict.fromkeys(fixed))
        if name == "image_size":
            return [SIDE * _patch(content)] * len(value)
        return value

    def _number(self, name: str, value: int, content: Mapping[str, Any]) -> int:
        if name in _DEPTHS:
            return min(value, DEPTH)
        if re.fullmatch(_MARKER, name):
            return int(self._marker(value))
        if value <= 0:
            return value
        if re.fullmatch(r".*(num_)?(key_value|kv)_heads", name):
            attention_heads = content.get("num_attention_heads", 0)
            heads = content.get(name.replace("key_value_heads", "attention_heads"), attention_heads)
            return _KEY_HEADS if isinstance(heads, int) and value < heads else _HEADS
        if name in ("image_size", "max_img_size", "max_image_size"):
            return SIDE * _patch(content)
        size = next((size for names, size in _SIZES if re.fullmatch(names, name)), value)
        return size if size in (_WIDTH, _HEAD_WIDTH) else min(value, size)

    def _marker(self, value: Any) -> Any:
        """Return a small id for a marker; ids within the small vocabulary, such as BOS, stay."""
        if not isinstance(value, int) or value < _FIRST_MARKER:
            return value
        return self.markers.setdefault(value, _FIRST_MARKER + len(self.markers))


def _selected_layers(content: Mapping[str, Any], depth: int) -> list[int]:
    """Return the layers to keep: the first of every kind, then the first layers, DEPTH in total."""
    kinds = _kinds(content)
    firsts = [kinds.index(kind) for kind in dict.fromkeys(kinds)]
    return sorted(list(dict.fromkeys([*firsts, *range(depth)]))[: max(DEPTH, len(firsts))])


def _depth(content: Mapping[str, Any]) -> int:
    """Return the number of layers, or 0 if the fields have none."""
    return next((int(content[name]) for name in _DEPTHS if isinstance(content.get(name), int)), 0)


def _patch(content: Mapping[str, Any]) -> int:
    """Return the side of a small patch in pixels."""
    patch = content.get("patch_size")
    side = patch[0] if isinstance(patch, (list, tuple)) else patch
    return min(side, _PATCH) if isinstance(side, int) else _PATCH


def _kinds(content: Mapping[str, Any]) -> Sequence[str]:
    """Return the kind of every layer, or nothing if the layers have no kinds."""
    return next((content[name] for name in ("layer_types", "layers_block_type") if content.get(name)), ())


def _rotary(parameters: Mapping[str, Any], small: Mapping[str, Any]) -> dict[str, Any]:
    """Return rotary parameters with integer sections scaled to the small heads in the same proportions."""
    nested = {name: _rotary(value, small) for name, value in parameters.items() if isinstance(value, Mapping)}
    section = parameters.get("mrope_section")
    if nested or not section:
        return {**parameters, **nested}
    width = small.get("head_dim") or small["hidden_size"] // small["num_attention_heads"]
    share = parameters.get("partial_rotary_factor", small.get("partial_rotary_factor")) or 1.0
    total = int(width * share) // 2
    scaled = [part * total // sum(section) for part in section]
    for index in range(total - sum(scaled)):
        scaled[index % len(scaled)] += 1
    return {**parameters, "mrope_section": scaled}
