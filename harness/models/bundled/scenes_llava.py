"""`scenes-llava`: a LLaVA that combines SmolLM2-135M-Instruct with a vision tower and projector trained on scenes.

The architecture, the processor and every line that runs at inference are transformers' own; only the vision tower and
the projector are this project's weights. Declared choices: the token `<empty_output>` (id 16), which the language model
never saw in training, represents the image; the prompt has no system message; padding is on the left with
`<|endoftext|>`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from harness.models.bundled import checkpoint
from harness.models.bundled.language import language_config, language_directory
from harness.models.prompts.chat_templates import SCENES_LLAVA
from harness.models.weights_error import WeightsError

if TYPE_CHECKING:
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

IMAGE_TOKEN, IMAGE_TOKEN_ID = "<empty_output>", 16
IMAGE_TOKENS = checkpoint.PATCHES
TRAINED_PARTS = ("model.vision_tower.", "model.multi_modal_projector.")


def load(
    cache: Path,
    dtype: torch.dtype = torch.float32,
    *,
    trained: Path | None = checkpoint.LLAVA_VISION_FILE,
    seed: int = 0,
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Return the model, in evaluation mode with all parameters frozen and SDPA attention, and its processor.

    The language model comes from `cache`, tower and projector from the file `trained`. With `trained=None` they are
    drawn at random from `seed`, for controls and as the start of training. Two loads give identical tensors. Raises
    WeightsError.
    """
    config = model_config()
    vision = untrained_vision(config, seed) if trained is None else checkpoint.read_trained(trained)
    model = checkpoint.assemble("LlavaForConditionalGeneration", config, cache, dtype, vision, "model.language_model.")
    return model, processor(cache)


def processor(cache: Path) -> LlavaProcessor:
    """Return the processor: images to 96x96 in [-1, 1], text by SmolLM2's tokenizer, 36 image tokens per image."""
    from transformers import LlavaProcessor

    tokenizer = checkpoint.padded_tokenizer(cache)
    if tokenizer.convert_ids_to_tokens(IMAGE_TOKEN_ID) != IMAGE_TOKEN:
        raise WeightsError(
            f"the tokenizer in {language_directory(cache)} has no {IMAGE_TOKEN} at id {IMAGE_TOKEN_ID}: delete that "
            "directory and run again"
        )
    image_processor = checkpoint.pillow_processor("CLIPImageProcessor")(
        **checkpoint.IMAGE_OPTIONS, crop_size=checkpoint.IMAGE_OPTIONS["size"], do_center_crop=False
    )
    result: LlavaProcessor = LlavaProcessor(
        image_processor,
        tokenizer,
        patch_size=checkpoint.PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE_TOKEN,
        chat_template=SCENES_LLAVA,
    )
    return result


def model_config() -> LlavaConfig:
    """Return the configuration: tower of 4 layers of width 192, two-layer projector, SmolLM2; no class token."""
    from transformers import CLIPVisionConfig, LlavaConfig

    vision = CLIPVisionConfig(**checkpoint.TOWER, projection_dim=192)
    config: LlavaConfig = LlavaConfig(
        vision_config=vision,
        text_config=language_config(),
        image_token_index=IMAGE_TOKEN_ID,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=IMAGE_TOKENS,
        projector_hidden_act="gelu",
        tie_word_embeddings=True,
        pad_token_id=checkpoint.PAD_TOKEN_ID,
        attn_implementation="sdpa",
    )
    return config


def untrained_vision(config: LlavaConfig, seed: int) -> dict[str, torch.Tensor]:
    """Return untrained tower and projector, drawn from `seed` without changing the global generator."""
    from transformers import CLIPVisionModel
    from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = dict(
            zip(TRAINED_PARTS, (CLIPVisionModel(config.vision_config), LlavaMultiModalProjector(config)), strict=True)
        )
    return {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.state_dict().items()}
