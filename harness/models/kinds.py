"""What must be known of a model type beyond its structure: the one table of such rows, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from harness.models.prompts.chat_templates import BARE, IMAGE_FIRST, IMAGE_LAST, LLAVA


@dataclass(frozen=True, slots=True)
class Kind:
    """What structure does not tell of a model type, and `reason`, why.

    `refused` says that the type cannot be measured. `chat_template` words the prompt where a processor has no template
    of its own. `image_input` is the model input that marks the image positions, where no token id does; `image_field`
    the configuration's field of that id, where it has an unusual name. `answer_type` is the token type of an answer.
    """

    reason: str
    refused: bool = False
    chat_template: str = ""
    image_input: str = ""
    image_field: str = ""
    answer_type: int = 0


#: The predicate of the sentence about a model with an encoder beside its decoder.
ENCODER_DECODER = (
    "is an encoder-decoder: image and instruction tokens do not share one residual stream, so the phases are not "
    "defined for it. Use a decoder-only model."
)
_CROSS = Kind(
    "image features enter by cross-attention; no position of the residual stream is an image token", refused=True
)
_STREAMS = Kind("several residual streams run side by side, so there is no one stream to follow", refused=True)
_BLOCKS = Kind(
    "its layers attend over the sums of earlier blocks of layers too, so there is no one stream to follow", refused=True
)
_NO_ROLES = Kind("it knows no roles, and its processors have no template", chat_template=BARE)
_MARKED = Kind("the processor marks the positions, no token id does", image_input="image_embeds_position_mask")

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
        "evolla": Kind("it reads proteins, not pictures", refused=True),
        "git": Kind("its attention function cannot be exchanged (no AttentionInterface)", refused=True),
        "mistral4": Kind("it takes no pictures", refused=True),
        "pi0": Kind("it predicts a robot's actions and has no vocabulary to decode with", refused=True),
        "llava": Kind("early checkpoints were published without the template of LLaVA-1.5", chat_template=LLAVA),
        "paligemma": Kind(
            "it knows no roles, and its processor adds BOS and the line break behind; tokens of type 0 are its prefix, "
            "which attends in both directions, and would see the answer",
            chat_template=IMAGE_FIRST,
            answer_type=1,
        ),
        "instructblipvideo": Kind("its pictures are frames of a video", image_field="video_token_index"),
        "chameleon": Kind(
            "its authors' examples have the image behind the question, and it has no template",
            chat_template=IMAGE_LAST,
        ),
        "pixtral": Kind("older releases list it, but it is a vision tower alone", refused=True),
        "vision-encoder-decoder": Kind("it is an encoder-decoder of any two models", refused=True),
    }
)


def kind_of(model_type: str) -> Kind:
    """Return the row of a type; an empty one where structure tells everything."""
    return KINDS.get(model_type, Kind("structure tells everything"))
