"""Texts of others as pages, tables and messages show them: of bounded length, with the number of what is left out."""

from __future__ import annotations

from collections.abc import Sequence

#: Characters of a caption, an instruction, a reason or a message.
LONGEST_TEXT = 2_000
#: Characters of the text of one decoded token; vocabularies have tokens of 128 blanks.
LONGEST_TOKEN = 200
#: Texts of one list, such as the captions of a sample.
MOST_TEXTS = 100
# Room for the remark on what is left out.
_REMARK = 50


def bounded(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return the text, or its beginning and its end with the number of characters left out between them.

    The result is never longer than `longest`, so that bounding it again keeps the number.
    """
    if len(text) <= longest:
        return text
    kept = longest - _REMARK
    end = kept // 4
    return f"{text[: kept - end]}... ({len(text) - kept:,} characters left out) ...{text[-end:]}"


def bounded_texts(texts: Sequence[str], longest: int = LONGEST_TEXT) -> list[str]:
    """Return the texts, each bounded; of many the first, and a line with the number of the others."""
    more = [f"... ({len(texts) - MOST_TEXTS:,} more left out)"] if len(texts) > MOST_TEXTS else []
    return [bounded(text, longest) for text in texts[:MOST_TEXTS]] + more
