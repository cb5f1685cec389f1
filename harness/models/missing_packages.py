"""Packages that transformers asks for, by its own words."""

from __future__ import annotations

import re

# The wording of a package that is missing where transformers raises no ImportError.
_LACKING = "Missing optional dependencies"
_COMMAND = re.compile(r"pip install (?:-U |--upgrade )?['\"]?([A-Za-z][\w.-]*)")
_LISTED = re.compile(rf"{_LACKING}: ([A-Za-z][\w-]*)")
_DEVICE = re.compile(r"requires an? (?:\w+ or )?(?:GPU|CUDA|XPU)", re.IGNORECASE)
_LIBRARY = re.compile(r"(?:requires?(?: the)?|A valid) ([A-Za-z][\w.-]*)(?: library| version)?\b")


def missing_package(error: Exception) -> str:
    """Return the predicate of a sentence about the package whose absence an error is about, or "" for another error."""
    text = " ".join(str(error).split())
    if (not isinstance(error, ImportError) and _LACKING not in text) or _DEVICE.search(text):
        return ""
    text = text[text.find(_LACKING) :] if _LACKING in text else text
    sentence = re.split(r"\.(?: |$)", text)[0].strip()
    name = getattr(error, "name", None) or next(
        (match[1].lower() for pattern in (_COMMAND, _LISTED, _LIBRARY) if (match := pattern.search(text))), ""
    )
    remedy = f"run `pip install {name}`" if name else "install it"
    return f"needs a package that is not installed: {sentence}; {remedy} and try again"
