"""How an instruction is worded where a processor does not say: the chat templates that models and kinds name."""

from __future__ import annotations

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
