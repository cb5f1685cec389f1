"""The error that a user meets: one clear sentence of what is wrong, where, and what to do."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

#: Characters of a caption, an instruction, a reason or a message.
LONGEST_TEXT = 2_000
#: Characters of the text of one decoded token; vocabularies have tokens of 128 blanks.
LONGEST_TOKEN = 200
#: Texts of one list, such as the captions of a sample.
MOST_TEXTS = 100
# Room for the remark on what is left out.
_REMARK = 50

# How libraries say that memory ran out beside those words that accelerate knows.
_SHORTAGE = re.compile(
    r"could not (create|execute) a (primitive|memory object)(?! descriptor)"  # oneDNN
    r"|out of memory|not enough memory|cannot allocate memory|can't allocate memory|bad_alloc",  # drivers and systems
    re.IGNORECASE,
)


class PhaseError(RuntimeError):
    """Something that the user can mend stands in the way; the message is complete without a traceback.

    Names and texts from data sets and checkpoints get into messages: what a terminal would obey is escaped, and of a
    long text the middle is left out.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(shorten(message)))


def printable(text: str, longest: int | None = None) -> str:
    """The text on one line as a terminal may get it: control characters and line breaks are spelled out as escapes.

    Args:
        text: what was read from a file that somebody else may have written.
        longest: characters from which on the rest is left out; None leaves out nothing.
    """
    if longest is not None and len(text) > longest:
        text = f"{text[:longest]}..."
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def print_to_stderr(line: str) -> None:
    """Print a line on the standard error at once, spelled out as by `shown`."""
    print(printable(line), file=sys.stderr, flush=True)


def first_line(error: object, otherwise: str | None = None) -> str:
    """Return the first line of an error's message; without a message `otherwise`, or the error's repr."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else repr(error) if otherwise is None else otherwise


def last_line(text: str, otherwise: str) -> str:
    """Return the last line of a text; `otherwise` of an empty one."""
    return (text.strip().splitlines() or [otherwise])[-1]


def copy_without_traceback(error: Exception) -> Exception:
    """Return a copy of an error to be raised again later.

    An error keeps the frames in which it came about, their variables with them, and a loaded model may be among those.
    """
    try:
        again = copy.copy(error)
    except Exception:  # One that asks for more than its message to be made.
        again = RuntimeError(f"{type(error).__name__}: {error}")
    # A copy has no frames; what it was raised from would bring them back.
    again.__cause__ = again.__context__ = again.__traceback__ = None
    return again


def error_chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from, the last first; each once, since a chain may be a circle."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error says that memory ran out, on a GPU or on the CPU.

    oneDNN says no more than that a primitive could not be created. One that it does not support has other words, and
    the same words with a single sample end the measurement.
    """
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    shortage: Any = (MemoryError, torch.OutOfMemoryError)
    if isinstance(error, shortage):
        return True
    words = isinstance(error, RuntimeError) and _SHORTAGE.search(str(error))
    return bool(words) or (isinstance(error, Exception) and should_reduce_batch_size(error))


def shorten(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return the text, or its beginning and its end with the number of characters left out between them.

    The result is never longer than `longest`, so that bounding it again keeps the number.
    """
    if len(text) <= longest:
        return text
    kept = longest - _REMARK
    end = kept // 4
    return f"{text[: kept - end]}... ({len(text) - kept:,} characters left out) ...{text[-end:]}"


def shorten_texts(texts: Sequence[str], longest: int = LONGEST_TEXT) -> list[str]:
    """Return the texts, each bounded; of many the first, and a line with the number of the others."""
    more = [f"... ({len(texts) - MOST_TEXTS:,} more left out)"] if len(texts) > MOST_TEXTS else []
    return [shorten(text, longest) for text in texts[:MOST_TEXTS]] + more
