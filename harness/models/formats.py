"""How an instruction is worded where a processor does not say: the chat templates that models and kinds name."""

from __future__ import annotations


def _chatml(image: str) -> str:
    """Return the template of the embedded language model without a system message, with `image` for a picture."""
    return (
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\n' }}"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}{{ '" + image + "' }}{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endif %}"
        "{{ '<|im_end|>\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


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
#: What the embedded models were trained on; the second one's processor puts the queries before the prompt itself.
SCENES_LLAVA, SCENES_INSTRUCTBLIP = _chatml("<empty_output>\n"), _chatml("")
#: Templates of the harness itself, which come to an end.
OWN = frozenset({LLAVA, BARE, IMAGE_FIRST, IMAGE_LAST, SCENES_LLAVA, SCENES_INSTRUCTBLIP})
