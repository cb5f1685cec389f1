"""The date that chat templates see: a fixed one, so that a prompt and its baseline are the same on every day."""

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
