"""JSON as this project stores it: sorted keys, six significant digits, lists of numbers on one line each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np


def rounded(values: Any) -> Any:
    """Numbers to six significant digits, nested lists kept."""
    if isinstance(values, np.ndarray | list | tuple):
        return [rounded(value) for value in values]
    return float(f"{float(values):.6g}")


def dump(content: Mapping[str, Any]) -> bytes:
    """JSON as it is stored: sorted keys, two spaces, lists of numbers on one line each."""
    return (_compact(content, "") + "\n").encode()


def _compact(value: Any, indent: str) -> str:
    if isinstance(value, Mapping) and value:
        inner = indent + "  "
        body = ",\n".join(f"{inner}{json.dumps(str(key))}: {_compact(value[key], inner)}" for key in sorted(value))
        return "{\n" + body + f"\n{indent}}}"
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
