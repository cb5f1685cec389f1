"""JSON files of a dataset: text that is read as a whole, within bounds."""

from __future__ import annotations

import json
from pathlib import Path

from harness.storage.regular_file import read_regular

#: The largest list of COCO Captions has 92 MB and 3 million values.
MOST_BYTES, MOST_VALUES = 1_000_000_000, 50_000_000


def json_text(path: Path) -> str:
    """Return the text of a file that holds one JSON document, or one a line, in any encoding of JSON.

    Raises:
        OSError: there is no such file, or none that is read; `strerror` is the reason.
        ValueError: it is no text, or holds more values than fit into memory: `[],` takes 3 bytes and makes 70.
    """
    content = read_regular(path, MOST_BYTES)
    values = sum(content.count(sign) for sign in (b"[", b"{", b",", b"\n"))
    if values > MOST_VALUES:
        raise ValueError(f"it has {values:,} values or lines, more than the {MOST_VALUES:,} that are read")
    return content.decode(json.detect_encoding(content), "surrogatepass")
