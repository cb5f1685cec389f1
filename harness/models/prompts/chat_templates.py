"""Chat templates: those that models and kinds name, the one that a processor uses, and the fixed date in it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

#: The day that widely used templates write by themselves where they cannot ask for one; noon, without a time zone.
DATE = datetime(2024, 7, 26, 12)
_FUNCTION = "strftime_now"
_DIRECTIVES = "aAbBcdDeFGHIjmMpRSTuUVwWxXyYzZ"
_UNPADDED = "dHIjmMSy"
_PERCENT = "\x00"  # stands for %% while the directives are replaced


def _chatml(image: str) -> str:
    """Return the template of the bundled language model without a system message, with `image` for a picture."""
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
#: What the bundled models were trained on; the second one's processor puts the queries before the prompt itself.
SCENES_LLAVA, SCENES_INSTRUCTBLIP = _chatml("<empty_output>\n"), _chatml("")
#: Templates of the harness itself, which come to an end.
HARNESS_TEMPLATES = frozenset({LLAVA, BARE, IMAGE_FIRST, IMAGE_LAST, SCENES_LLAVA, SCENES_INSTRUCTBLIP})


def chosen_template(template: Any) -> str:
    """Return the text of a chat template; of several by name, the one that is used by default."""
    text = template.get("default") if isinstance(template, dict) else template
    return text if isinstance(text, str) else ""


def asks_for_date(template: str) -> bool:
    """Return True if a chat template asks for the day."""
    return _FUNCTION in template


def with_fixed_date(template: str) -> str:
    """Return a chat template in which `strftime_now` gives `DATE`; unchanged where it does not ask for the day.

    A macro of that name in front of the template takes precedence over the function of transformers. A variable of
    that name would not do: transformers hands templates plain data only.
    """
    if not asks_for_date(template):
        return template
    forms = [("%%", _PERCENT)]
    forms += [(f"%-{letter}", DATE.strftime(f"%{letter}").lstrip("0") or "0") for letter in _UNPADDED]
    forms += [(f"%{letter}", DATE.strftime(f"%{letter}")) for letter in _DIRECTIVES]
    forms += [(_PERCENT, "%")]
    steps = "".join(f" | replace({json.dumps(form)}, {json.dumps(text)})" for form, text in forms)
    # The line break behind a block's end is not rendered, and the template still begins a line.
    return f"{{% macro {_FUNCTION}(format) %}}{{{{ format{steps} }}}}{{% endmacro %}}\n{template}"
