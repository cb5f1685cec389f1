"""A small configuration of any model type, made of its defaults by the names and places of their fields."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# Heads as wide as the defaults of most types, whose rotary sections are written for them.
WIDTH, HEADS, KEY_HEADS, HEAD_WIDTH, INNER, DEPTH, VOCABULARY = 256, 2, 1, 128, 128, 4, 320
# Patches along one side of a picture: enough for every merging of neighbours.
SIDE = 8
_TOKENS_PER_PICTURE = 16
# The first ids that placeholders of pictures and other markers get; texts stay below.
FIRST_MARKER = 200
# Stands for the image token where a configuration leaves it open.
PLACEHOLDER = 10**9

_DEPTHS = ("num_hidden_layers", "n_layers", "num_layers", "layers", "encoder_layers", "decoder_layers", "depth")
_MARKER = re.compile(r".*(token_id|token_index|patch_id|image_\w+_id|im_\w+_id)s?$")
_INDEXES = re.compile(r".*(indexes|indices|layer_ids|_idxs|_target_layers|attention_layers|feature_layers?)$")
_AS_THEY_ARE = ("id2label", "label2id", "rope_parameters")
_PLACEHOLDERS = ("image_token_id", "image_token_index", "video_token_index")
# All widths are one width, so that whatever refers to another part's width fits it.
_SIZES: tuple[tuple[str, int], ...] = (
    (r"(linear_)?num_(key|value)_heads|linear_num_(key|value)_heads", HEADS),
    (r".*(num|n)_.*heads|.*attention_heads|num_heads|resampler_heads|index_n_heads|mamba_num_heads", HEADS),
    (r"qk_rope_head_dim", HEAD_WIDTH // 2),
    (r".*head_dim|resampler_dim_head|d_kv|mamba_head_dim", HEAD_WIDTH),
    (r".*lora_rank|hc_lowrank|d_rel", 32),
    (r"(n_routed|num|num_local|moe_num)_experts", 4),
    (r"num_experts_per_tok|moe_k|moe_topk", 2),
    (r"n_group|topk_group|n_groups", 1),
    (r"pooling_kernel_size", 2),
    (r".*vocab_size(_per_layer_input)?|vocab_offset", VOCABULARY),
    (
        r".*(intermediate|ffn|mlp|d_ff|moe_hidden|share_expert|alignment_intermediate|merged_hidden).*(size|dim)|d_ff",
        INNER,
    ),
    (
        r".*(hidden_size|embed_dim|d_model|projection_dim|proj_dim|text_hidden|image_text_hidden_size|adapter_(in|out)_dim|adapter_input_size|output_proj_dims"
        r"|output_dim|projection_hidden_dim|pooler_output_size|hidden_dim|vision_output_dim|projector_input_dim)",
        WIDTH,
    ),
    (r"num_position_embeddings|num_patches|max_num_patches|num_image_tokens", SIDE * SIDE),
    (r"mm_tokens_per_image|image_seq_length", _TOKENS_PER_PICTURE),
    (r"(pos_emb_(height|width)|posemb_grid_size|max_image_size_in_patches)", SIDE),
    (r"num_query_tokens|latent_query_num|resampler_n(um)?_latents", 8),
)
_RULES: tuple[tuple[re.Pattern[str], int], ...] = tuple((re.compile(names), size) for names, size in _SIZES)


def tiny_config(model_type: str, changes: Mapping[str, Any] | None = None) -> Any:
    """The configuration of a type with small widths, few layers and a small vocabulary.

    Args:
        model_type: a key of transformers' configuration mapping.
        changes: fields to set beside, by dotted path ("vision_config.depth"); their values are taken as they are.

    Raises:
        whatever the configuration class raises of fields that do not fit each other.
    """
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[model_type]
    content = kind().to_dict()
    vision = getattr(kind, "sub_configs", {}).get("vision_config")
    if vision is not None and content.get("vision_config", vision) is None:
        content["vision_config"] = getattr(vision, "config_class", vision)().to_dict()
    markers: dict[int, int] = {}
    small = _shrunk(content, markers)
    if small.get("image_grid_pinpoints"):
        side = small["vision_config"]["image_size"]
        small["image_grid_pinpoints"] = [[side, side]]
    for path, value in (changes or {}).items():
        *parts, name = path.split(".")
        place = small
        for part in parts:
            place = place.setdefault(part, {})
        place[name] = value
    config = kind.from_dict(small)
    for part in (config, config.get_text_config(decoder=True)):
        # Some releases' models ask for it although their configurations do not have it.
        if not hasattr(part, "pad_token_id"):
            part.pad_token_id = None
    return config


def _shrunk(content: Mapping[str, Any], markers: dict[int, int]) -> dict[str, Any]:
    """The same fields with small values; `markers` maps every marker's id to its new one, the same in all parts."""
    depth = next((int(content[name]) for name in _DEPTHS if isinstance(content.get(name), int)), 0)
    kept = _kept_layers(content, depth)
    small: dict[str, Any] = {}
    for name, value in content.items():
        if name == "per_layer_config" and value:
            small[name] = {kept.index(int(at)): _shrunk(own, markers) for at, own in value.items() if int(at) in kept}
        elif isinstance(value, Mapping) and all(isinstance(key, str) for key in value) and name not in _AS_THEY_ARE:
            small[name] = _shrunk(value, markers)
        elif isinstance(value, (list, tuple)):
            small[name] = _short_list(name, value, depth, kept, markers)
        elif isinstance(value, int) and not isinstance(value, bool):
            small[name] = _small_number(name, value, content, markers)
        elif value is None and name in _PLACEHOLDERS:
            small[name] = _marker(PLACEHOLDER, markers)
        else:
            small[name] = value
    if isinstance(small.get("rope_parameters"), Mapping):
        small["rope_parameters"] = _rotary(small["rope_parameters"], small)
    return small


def _kept_layers(content: Mapping[str, Any], depth: int) -> list[int]:
    """Which layers stay: the first of every kind, then the first ones, DEPTH in all."""
    kinds = next((content[name] for name in ("layer_types", "layers_block_type") if content.get(name)), None)
    firsts = [kinds.index(kind) for kind in dict.fromkeys(kinds)] if kinds else []
    chosen = list(dict.fromkeys([*firsts, *range(depth)]))[: max(DEPTH, len(firsts))]
    return sorted(chosen)


def _short_list(
    name: str, value: Sequence[Any], depth: int, kept: Sequence[int], markers: dict[int, int]
) -> Sequence[Any]:
    of_layers = depth and len(value) == depth
    if of_layers and not _INDEXES.fullmatch(name):
        return [value[layer] for layer in kept]
    if _MARKER.fullmatch(name):
        return [_marker(number, markers) for number in value]
    if _INDEXES.fullmatch(name) and value and all(isinstance(index, int) for index in value):
        most = max(depth, *(abs(index) + 1 for index in value))
        scaled = [(abs(index) * DEPTH // most) * (-1 if index < 0 else 1) for index in value]
        return list(dict.fromkeys(index or (-1 if old < 0 else 0) for index, old in zip(scaled, value, strict=True)))
    if name.endswith(("intermediate_size", "hidden_size")):
        return [INNER for _ in value]
    return value


def _small_number(name: str, value: int, content: Mapping[str, Any], markers: dict[int, int]) -> int:
    if name in _DEPTHS:
        return min(value, DEPTH)
    if _MARKER.fullmatch(name):
        return int(_marker(value, markers))
    if value <= 0:
        return value
    if re.fullmatch(r".*(num_)?(key_value|kv)_heads", name):
        heads = content.get(name.replace("key_value_heads", "attention_heads"), content.get("num_attention_heads", 0))
        return KEY_HEADS if isinstance(heads, int) and value < heads else HEADS
    if name == "image_size":
        patch = content.get("patch_size")
        return SIDE * (patch if isinstance(patch, int) else 16)
    for names, size in _RULES:
        if names.fullmatch(name):
            return size if size in (WIDTH, HEAD_WIDTH) else min(value, size)
    return value


def _marker(value: Any, markers: dict[int, int]) -> Any:
    """A small id for a marker's; those within the small vocabulary stay, so that a BOS is still what it was."""
    if not isinstance(value, int) or value < FIRST_MARKER:
        return value
    return markers.setdefault(value, FIRST_MARKER + len(markers))


def _rotary(parameters: Mapping[str, Any], small: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary sections cut to the small heads, their proportions kept."""
    if any(isinstance(value, Mapping) for value in parameters.values()):
        return {
            name: _rotary(value, small) if isinstance(value, Mapping) else value for name, value in parameters.items()
        }
    section = parameters.get("mrope_section")
    if not section:
        return dict(parameters)
    width = small.get("head_dim") or small["hidden_size"] // small["num_attention_heads"]
    share = parameters.get("partial_rotary_factor", small.get("partial_rotary_factor")) or 1.0
    return {**parameters, "mrope_section": _parts(section, int(width * share) // 2)}


def _parts(section: Sequence[int], total: int) -> list[int]:
    """Whole numbers in the proportions of `section` that sum to `total`."""
    cut = [part * total // sum(section) for part in section]
    for index in range(total - sum(cut)):
        cut[index % len(cut)] += 1
    return cut
