"""Known causes of changes between releases of transformers, with their sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version


@dataclass(frozen=True, slots=True)
class UpstreamCause:
    """The cause of a change of a type in a release of transformers, and its source there."""

    model_type: str
    release: str
    text: str


def _shared(model_types: str, release: str, text: str) -> list[UpstreamCause]:
    """Return the cause of each of several types, which are separated by spaces."""
    return [UpstreamCause(model_type, release, text) for model_type in model_types.split()]


_POSITIONS = "glm46v glm4v glm4v_moe glm_ocr paddleocr_vl qwen2_5_vl qwen2_vl qwen3_5 qwen3_5_moe qwen3_vl qwen3_vl_moe"
_TEXT_POSITIONS = (
    "without mm_token_type_ids, which only newer processors return, images silently get positions of text "
    "(transformers change 43972)"
)
_RENAMED = (
    "aya_vision emu3 fuyu gemma3 got_ocr2 internvl llava llava_next llava_next_video llava_onevision mistral3 "
    "paligemma pp_chart2table qwen3_5 qwen3_5_moe shieldgemma2 video_llava vipllava"
)
_WINDOW = "image tokens see no further than the sliding window (transformers change 46850)"

#: In the order of the releases.
KNOWN_CAUSES: Sequence[UpstreamCause] = (
    UpstreamCause(
        "qwen3_vl_moe",
        "5.2.0",
        "experts are read as one tensor per layer; 5.1.0 saved them one by one (transformers change 44037)",
    ),
    *_shared(_POSITIONS, "5.3.0", _TEXT_POSITIONS),
    UpstreamCause("qwen2_5_vl", "5.3.0", "temporal positions of still images are scaled (transformers issue 45325)"),
    *_shared(
        _POSITIONS.replace("qwen2_5_vl ", ""),
        "5.4.0",
        "inputs with an image but without mm_token_type_ids are refused (transformers change 44433)",
    ),
    UpstreamCause(
        "qwen3_5_moe",
        "5.4.0",
        "its own map of weights is gone, so experts that were saved one by one are not found (conversion_mapping.py)",
    ),
    UpstreamCause(
        "aria",
        "5.4.0",
        "weights under the prefix language_model.model, as in the published checkpoints, are not found "
        "(conversion_mapping.py; repaired by transformers change 47151)",
    ),
    *_shared(
        "aya_vision chameleon cohere2_vision ernie4_5_vl_moe paddleocr_vl",
        "5.4.0",
        "truth values are declared as numbers, which newer releases of huggingface_hub refuse (corrected by "
        "transformers change 45007)",
    ),
    *_shared(
        "qwen3_5 qwen3_5_moe",
        "5.5.2",
        "5.4.0 to 5.5.1 save weights under a doubled prefix (transformers issue 45216), and such files are not loaded "
        "after the correction (transformers change 45340)",
    ),
    UpstreamCause("qwen2_5_vl", "5.5.4", "they are no longer scaled (transformers change 45330)"),
    *_shared(
        _RENAMED,
        "5.6.0",
        "5.4.0 to 5.5.4 save weights under other names than published checkpoints have (transformers issue 45357), and "
        "such files are not loaded after the correction (transformers change 45358); most load again in 5.9.0",
    ),
    UpstreamCause(
        "paligemma",
        "5.9.0",
        "a prompt without token types is causal, and separate tokens of type 0 see each other "
        "(transformers change 45477)",
    ),
    UpstreamCause(
        "kosmos-2.5",
        "5.10.1",
        "positions of generated tokens come from the token ids, no longer from the attention mask "
        "(modeling_kosmos2_5.py)",
    ),
    UpstreamCause(
        "paddleocr_vl", "5.13.0", "vision positions are interpolated with aligned corners (modeling_paddleocr_vl.py)"
    ),
    *_shared("gemma3 shieldgemma2", "5.13.0", _WINDOW),
    UpstreamCause(
        "cohere_compass",
        "5.17.0",
        "rotary frequencies are in sections for height, width and time, in another order (modeling_cohere_compass.py)",
    ),
    UpstreamCause(
        "cohere_compass",
        "5.21.0",
        "rotary frequencies of time, height and width are interleaved, no longer in sections "
        "(modeling_cohere_compass.py)",
    ),
    UpstreamCause(
        "minimax_m3_vl",
        "5.22.0",
        "earlier releases also rename the vision tower's layers when they save; such files are not found "
        "(conversion_mapping.py)",
    ),
    UpstreamCause(
        "kosmos-2",
        "5.23.0",
        "loading no longer draws the token embeddings at random (modeling_kosmos2.py)",
    ),
    UpstreamCause(
        "paddleocr_vl",
        "5.23.0",
        "vision positions are interpolated without aligned corners (modeling_paddleocr_vl.py)",
    ),
    UpstreamCause(
        "step3p7",
        "5.23.0",
        "vision positions have the width before the height (modeling_step3p7.py)",
    ),
    UpstreamCause(
        "muse_glimmer",
        "5.24.0",
        "the table of vision positions is read with width and height exchanged (modeling_muse_glimmer.py)",
    ),
)


def causes_of(model_type: str, old: str, new: str) -> list[str]:
    """Return the known causes of changes of a type between two releases; none for a checkout or an older release."""
    try:
        first, last = sorted(map(Version, (old, new)))
    except InvalidVersion:
        return []
    return [
        f"{cause.release}: {cause.text}"
        for cause in KNOWN_CAUSES
        if cause.model_type == model_type and first < Version(cause.release) <= last
    ]
