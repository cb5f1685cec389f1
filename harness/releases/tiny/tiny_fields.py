"""Fields of small configurations that the defaults leave open or that do not follow from widths and depths."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Fields = Mapping[str, Any]


def _under(path: str, **fields: Any) -> dict[str, Any]:
    return {f"{path}.{name}": value for name, value in fields.items()}


def _rope(theta: float, **fields: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta, **fields}


_LARGE = {"image_size": 256, "num_hidden_layers": 1, "global_attn_indexes": [0]}
_SAM = _under("vision_config.sam_config", **_LARGE, downsample_channels=[64, 64])
_HALF_ROTARY = (
    "half of each head is rotated in the published models, which the default configuration leaves out",
    _under("text_config", rope_parameters=_rope(1e4, partial_rotary_factor=0.5, mrope_section=[2, 3, 3])),
)
_SECTIONS = "older releases have no rotary sections by default"
_ROTARY = _under("text_config", rope_parameters=_rope(1e6, mrope_section=[4, 6, 6]))
_CODES = "the default configuration lacks the map from image codes to vocabulary entries"
_CHANNELS = {"base_channels": 32, "channel_multiplier": [1, 1, 1, 1, 2]}
_CODEBOOK = {"resolution": 64, "embed_dim": 64, "latent_channels": 64, **_CHANNELS}
_SHARED = (
    "the published models' last layers share the keys and values of earlier ones, which is off by default",
    _under("text_config", layer_types=["sliding_attention", "full_attention"] * 2, num_kv_shared_layers=2),
)
_MERGED = (
    "its patches are merged after a layer that a small tower does not have",
    {"insert_layer_id": 1, "vision_config.insert_layer_id": 1},
)
_FOLDED = "neighbouring patches are merged into one patch of four times the width"
_THINKER = "the thinker's markers are in the configuration of the full model"

#: By model type: the reason, and the fields by dotted path.
TINY_FIELDS: Mapping[str, tuple[str, Fields]] = MappingProxyType(
    {
        "kosmos-2.5": (
            "patches are flattened, each with its position",
            _under("vision_config", max_num_patches=64, patch_embed_hidden_size=768),
        ),
        "aria": (
            "a table maps the number of patches to the number of queries",
            {"projector_patch_to_query_dict": {64: 16, 32: 8}},
        ),
        "chameleon": (
            _CODES,
            {
                "image_token_id": 300,
                "vocabulary_map": {"<image>": 300} | {f"IMGIMG{chr(65 + code)}Z": 301 + code for code in range(10)},
                **_under("vq_config", **_CODEBOOK, num_embeddings=10),
            },
        ),
        "emu3": (
            _CODES,
            {
                "image_token_id": 290,
                "vocabulary_map": {"<image>": 290, "<|extra_200|>": 291}
                | {f"<|visual token {code:06d}|>": 292 + code for code in range(16)},
                **_under(
                    "vq_config", codebook_size=16, resolution=64, base_channels=32, channel_multiplier=[1, 1, 1, 2]
                ),
                **_under("vq_config", embed_dim=4, hidden_size=64),
            },
        ),
        "ernie4_5_vl_moe": (
            "the default rotary sections are for wide heads",
            _under("text_config", rope_parameters=_rope(5e5, mrope_section=[5, 5, 6])),
        ),
        "cohere_compass": (
            "every kind of layer has its own rotary parameters, which the default configuration leaves out",
            _under(
                "text_config",
                rope_parameters={
                    layers: _rope(1e4, mrope_section=[6, 5, 5]) for layers in ("full_attention", "sliding_attention")
                },
            ),
        ),
        "deepseek_ocr2": (
            "the default configuration leaves the experts' layers open; the image of its tower is large",
            {
                **_under("text_config", mlp_layer_types=["dense", *["sparse"] * 3], num_experts_per_tok=2),
                **_SAM,
            },
        ),
        "unlimited_ocr": (
            "the image of its tower is large",
            {**_SAM, "vision_config.encoder_config.image_size": 56},
        ),
        "deepseek_vl_hybrid": (
            "the features of two vision towers must have the same grid",
            _under("high_res_vision_config", **_LARGE) | _under("vision_config", image_size=128, patch_size=16),
        ),
        "dots3_note": (
            "every sliding layer has its own widths, and the rotated and unrotated parts of a head add up",
            {
                "text_config.per_layer_config": {
                    layer: {"qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "head_dim": 32} for layer in (2, 3)
                }
            },
        ),
        "fast_vlm": ("its vision tower has a fixed width", {"vision_config.hidden_size": 3072}),
        "paddleocr_vl": (_SECTIONS, _ROTARY),
        "qwen2_vl": (_SECTIONS, _ROTARY),
        "qwen2_5_vl": (_SECTIONS, _ROTARY),
        "gemma4": _SHARED,
        "gemma4_unified": _SHARED,
        "glm46v": _HALF_ROTARY,
        "glm4v": _HALF_ROTARY,
        "glm4v_moe": _HALF_ROTARY,
        "glm_ocr": _HALF_ROTARY,
        "glmga": _HALF_ROTARY,
        "granite4_vision": (
            "the map from vision layers to decoder layers is left open",
            {
                "deepstack_layer_map": [[1, 1], [2, 2]],
                "downsample_rate": "4/8",
                # Older releases use another default decoder, whose configuration lacks these fields.
                **_under(
                    "text_config",
                    attention_multiplier=1.0,
                    embedding_multiplier=1.0,
                    residual_multiplier=1.0,
                    logits_scaling=1.0,
                ),
            },
        ),
        "hunyuan_vl": (
            "rotary axes are left open",
            _under("text_config", head_dim=32, rope_parameters=_rope(1e4, mrope_section=[4, 4, 4, 4])),
        ),
        "inkling_mm_model": (
            "every patch is halved once in every layer of its tower; its table of sounds is large",
            _under("vision_config", patch_size=16) | _under("audio_config", n_mel_bins=8, mel_vocab_size=16),
        ),
        "janus": ("its table of codes is large", _under("vq_config", num_embeddings=16, **_CODEBOOK)),
        "kimi_k25": ("its head width equals the width of the rotated part", {"text_config.head_dim": 16}),
        "minicpmv4_6": _MERGED,
        "minicpmv4_7": _MERGED,
        "minicpm_ocr": _MERGED,
        "minimax_m3_vl": (_FOLDED, {"merged_hidden_size": 256}),
        "apertus1p5": (
            "images and sounds become vocabulary entries in consecutive ranges",
            {
                "image_token_id": 280,
                "audio_token_id": 281,
                "image_token_offset": 290,
                "audio_token_offset": 306,
                **_under("vision_config", **_CODEBOOK, codebook_size=16),
                **_under("audio_config", codebook_size=8, codebook_dim=64, num_filters=4),
            },
        ),
        "llama4": (_FOLDED, {"vision_config.intermediate_size": 256}),
        "muse_glimmer": (_FOLDED, {"out_hidden_size": 256}),
        "muse_spark": (_FOLDED, {"out_hidden_size": 256}),
        "qwen2_5_omni_thinker": (f"{_THINKER}; {_SECTIONS}", {"vision_start_token_id": 310, **_ROTARY}),
        "qwen3_omni_moe_thinker": (_THINKER, {"vision_start_token_id": 310}),
        "perception_lm": (
            "its vision tower's size is left open",
            _under(
                "vision_config",
                architecture="vit_pe_core_tiny_patch16_384",
                model_args={"embed_dim": 192, "img_size": [128, 128], "depth": 2, "global_pool": ""},
            ),
        ),
        "step3p7": (
            "its sliding layers and the width of their windows are left open",
            {"text_config.sliding_window": 12},
        ),
    }
)
