"""A table of facts about model types that their structure does not show, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from harness.models.prompts.chat_templates import BARE, IMAGE_FIRST, IMAGE_LAST, LLAVA


@dataclass(frozen=True, slots=True)
class Kind:
    """Facts about a model type that its structure does not show, and the `reason` for them.

    `refused` is True if the type cannot be measured. `chat_template` is used if a processor has no template.
    `image_input` is the model input that marks the image positions, for types without an image token id. `image_field`
    is the configuration's field with that id, if it has an unusual name. `answer_type` is the token type of an answer.
    """

    reason: str
    refused: bool = False
    chat_template: str = ""
    image_input: str = ""
    image_field: str = ""
    answer_type: int = 0


#: The predicate of a message about an encoder-decoder model.
ENCODER_DECODER = (
    "is an encoder-decoder: image and instruction tokens do not share one residual stream, so the phases are not "
    "defined for it. Use a decoder-only model."
)
_CROSS = Kind(
    "image features enter by cross-attention; no position of the residual stream is an image token", refused=True
)
_STREAMS = Kind("several residual streams run side by side, so there is no single stream to measure", refused=True)
_BLOCKS = Kind(
    "its layers also attend over the sums of earlier blocks of layers, so there is no single stream to measure",
    refused=True,
)
_NO_ROLES = Kind("its prompts have no roles, and its processors have no template", chat_template=BARE)
_MARKED = Kind("the processor marks the positions; no token id does", image_input="image_embeds_position_mask")

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        **dict.fromkeys(("blip", "idefics", "mllama"), _CROSS),
        **dict.fromkeys(("gemma3n", "glm5_next", "hy_v4_vl", "qwen4_exp"), _STREAMS),
        **dict.fromkeys(("inkling2", "inkling2_loop"), _BLOCKS),
        **dict.fromkeys(("blip-2", "instructblip"), _NO_ROLES),
        **dict.fromkeys(("kosmos-2", "kosmos-2.5"), _MARKED),
        "diffusion_gemma": Kind(
            "a block of tokens is denoised beside the prompt: prompt and answer share no residual stream", refused=True
        ),
        "evolla": Kind("it reads proteins, not images", refused=True),
        "git": Kind("its attention function cannot be exchanged (no AttentionInterface)", refused=True),
        "mistral4": Kind("it takes no images", refused=True),
        "pi0": Kind("it predicts a robot's actions and has no vocabulary to decode with", refused=True),
        "llava": Kind("early checkpoints were published without the template of LLaVA-1.5", chat_template=LLAVA),
        "paligemma": Kind(
            "its prompts have no roles, and its processor adds BOS and the final line break; tokens of type 0 are its "
            "prefix, which attends in both directions and would see the answer",
            chat_template=IMAGE_FIRST,
            answer_type=1,
        ),
        "instructblipvideo": Kind("its images are frames of a video", image_field="video_token_index"),
        "chameleon": Kind(
            "its authors' examples have the image after the question, and it has no template",
            chat_template=IMAGE_LAST,
        ),
        "pixtral": Kind("older releases list it, but it is only a vision tower", refused=True),
        "vision-encoder-decoder": Kind("it is an encoder-decoder of any two models", refused=True),
    }
)


def kind_of(model_type: str) -> Kind:
    """Return the row of a model type; an empty row if the structure shows everything."""
    return KINDS.get(model_type, Kind("the structure shows everything"))
