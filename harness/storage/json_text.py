"""Canonical JSON of this project: sorted keys, six significant digits, each list of numbers on one line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np


def round_numbers(values: Any) -> Any:
    """Return numbers rounded to six significant digits; nested lists stay nested."""
    if isinstance(values, np.ndarray | list | tuple):
        return [round_numbers(value) for value in values]
    return float(f"{float(values):.6g}")


def dump(content: Mapping[str, Any]) -> bytes:
    """Return JSON in the stored form: sorted keys, indented by two spaces, each list of numbers on one line."""
    return (_compact(content, "") + "\n").encode()


def checksum(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the canonical JSON in hexadecimal digits; it is independent of formatting.

    Raises:
        TypeError, ValueError: a type or number that JSON cannot represent.
    """
    # A round trip first: tuples and numeric keys become lists and strings when the file is read.
    return hashlib.sha256(dump(json.loads(dump(content)))).hexdigest()


def _compact(value: Any, indent: str) -> str:
    if isinstance(value, Mapping) and value:
        inner = indent + "  "
        body = ",\n".join(f"{inner}{json.dumps(str(key))}: {_compact(value[key], inner)}" for key in sorted(value))
        return "{\n" + body + f"\n{indent}}}"
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
