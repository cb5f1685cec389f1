"""How an instruction is worded for models whose processor does not say: one row per type of transformers, as data."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_TEXT = "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"

#: "USER: <image>\nINSTRUCTION ASSISTANT:", what LLaVA-1.5 was tuned on, without a system message.
LLAVA = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    + _TEXT
    + "{% else %} ASSISTANT: "
    + _TEXT
    + "</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
#: The instruction alone: the processor itself puts the queries before BOS, and no role is named.
BARE = "{% for message in messages %}" + _TEXT + "{% endfor %}"
#: The image before the instruction, and nothing else.
IMAGE_FIRST = "<image>" + BARE
#: The instruction before the image, and nothing else.
IMAGE_LAST = BARE + "<image>"

#: By `config.model_type`, with the reason; used only where a processor has no chat template of its own.
FORMATS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "llava": (LLAVA, "the format of LLaVA-1.5; early checkpoints were published without a template"),
        "instructblip": (BARE, "InstructBLIP knows no roles, and its processors have no template"),
        "blip-2": (BARE, "BLIP-2 knows no roles, and its processors have no template"),
        "paligemma": (IMAGE_FIRST, "PaliGemma knows no roles; its processor adds BOS and the line break behind"),
        "chameleon": (IMAGE_LAST, "its authors' examples have the image behind the question, and it has no template"),
    }
)

#: The token type of an answer by `config.model_type`, with the reason; 0 in every other type.
ANSWER_TYPES: Mapping[str, tuple[int, str]] = MappingProxyType(
    {"paligemma": (1, "tokens of type 0 are its prefix, which attends in both directions, and would see the answer")}
)
