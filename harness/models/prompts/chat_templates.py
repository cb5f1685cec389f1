"""Chat templates: the declared ones, the choice of a processor's template, and a fixed date for templates."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

#: The default date in widely used templates without `strftime_now`; noon, without a time zone.
DATE = datetime(2024, 7, 26, 12)
_FUNCTION = "strftime_now"
_DIRECTIVES = "aAbBcdDeFGHIjmMpRSTuUVwWxXyYzZ"
_UNPADDED = "dHIjmMSy"
_PERCENT = "\x00"  # stands for %% while the directives are replaced


def _chatml(image: str) -> str:
    """Return the template of the bundled language model without a system message; `image` is the text for an image."""
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

#: "USER: <image>\nINSTRUCTION ASSISTANT:", the training prompt of LLaVA-1.5 without its system message.
LLAVA = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    + _TEXT
    + "{% else %} ASSISTANT: "
    + _TEXT
    + "</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
#: The instruction only, without roles: the processor inserts the queries before BOS.
BARE = "{% for message in messages %}" + _TEXT + "{% endfor %}"
#: The image, then the instruction, without roles.
IMAGE_FIRST = "<image>" + BARE
#: The instruction, then the image, without roles.
IMAGE_LAST = BARE + "<image>"
#: The training prompts of the bundled models; the processor of InstructBLIP inserts the queries before the prompt.
SCENES_LLAVA, SCENES_INSTRUCTBLIP = _chatml("<empty_output>\n"), _chatml("")
#: Templates of the harness, which need no limits of rendering.
HARNESS_TEMPLATES = frozenset({LLAVA, BARE, IMAGE_FIRST, IMAGE_LAST, SCENES_LLAVA, SCENES_INSTRUCTBLIP})


def chosen_template(template: Any) -> str:
    """Return the text of a chat template; of several named templates, the default."""
    text = template.get("default") if isinstance(template, dict) else template
    return text if isinstance(text, str) else ""


def asks_for_date(template: str) -> bool:
    """Return True if a chat template asks for the current date."""
    return _FUNCTION in template


def with_fixed_date(template: str) -> str:
    """Return a chat template in which `strftime_now` returns `DATE`; unchanged if it does not ask for the date.

    A macro with that name before the template overrides the function of transformers. A variable cannot, because
    transformers passes only plain data to templates.
    """
    if not asks_for_date(template):
        return template
    forms = [("%%", _PERCENT)]
    forms += [(f"%-{letter}", DATE.strftime(f"%{letter}").lstrip("0") or "0") for letter in _UNPADDED]
    forms += [(f"%{letter}", DATE.strftime(f"%{letter}")) for letter in _DIRECTIVES]
    forms += [(_PERCENT, "%")]
    steps = "".join(f" | replace({json.dumps(form)}, {json.dumps(text)})" for form, text in forms)
    # jinja2 removes the line break after the macro, so the template's own text is unchanged.
    return f"{{% macro {_FUNCTION}(format) %}}{{{{ format{steps} }}}}{{% endmacro %}}\n{template}"
