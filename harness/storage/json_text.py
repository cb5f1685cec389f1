"""JSON as this project stores it: sorted keys, six significant digits, lists of numbers on one line each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np


def round_numbers(values: Any) -> Any:
    """Numbers to six significant digits, nested lists kept."""
    if isinstance(values, np.ndarray | list | tuple):
        return [round_numbers(value) for value in values]
    return float(f"{float(values):.6g}")


def dump(content: Mapping[str, Any]) -> bytes:
    """JSON as it is stored: sorted keys, two spaces, lists of numbers on one line each."""
    return (_compact(content, "") + "\n").encode()


def checksum(content: Mapping[str, Any]) -> str:
    """The SHA-256 of a content as it is stored, in hexadecimal digits: that of what is said, not of how it is set.

    Raises:
        TypeError, ValueError: not JSON types, or a number that JSON has not.
    """
    # Read back first: what was a tuple or a number as a key is no more when the file is read.
    return hashlib.sha256(dump(json.loads(dump(content)))).hexdigest()


def _compact(value: Any, indent: str) -> str:
    if isinstance(value, Mapping) and value:
        inner = indent + "  "
        body = ",\n".join(f"{inner}{json.dumps(str(key))}: {_compact(value[key], inner)}" for key in sorted(value))
        return "{\n" + body + f"\n{indent}}}"
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
