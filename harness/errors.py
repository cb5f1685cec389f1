"""The base of all errors that users see, and helpers that make texts safe to print."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any

#: Most characters of a caption, an instruction, a reason or a message.
LONGEST_TEXT = 2_000
#: Most characters of the text of one decoded token; vocabularies have tokens of 128 blanks.
LONGEST_TOKEN = 200
#: Most texts of one list, such as the captions of a sample.
MOST_TEXTS = 100
# Room for the note on how many characters are left out.
_REMARK = 50

# Out-of-memory messages of libraries that accelerate does not recognise.
_SHORTAGE = re.compile(
    r"could not (create|execute) a (primitive|memory object)(?! descriptor)"  # oneDNN
    r"|out of memory|not enough memory|cannot allocate memory|can't allocate memory|bad_alloc",  # drivers and systems
    re.IGNORECASE,
)


class PhaseError(RuntimeError):
    """An error that the user can fix; its message is complete without a traceback.

    Messages may contain names and texts from data sets and checkpoints. Control characters are therefore escaped, and
    the middle of a long message is left out.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(shorten(message)))


def printable(text: str, longest: int | None = None) -> str:
    """Return the text on one line, safe for a terminal: control characters and line breaks become escapes.

    Args:
        text: any text, such as one from an untrusted file.
        longest: number of characters after which the text is cut; None keeps all of them.
    """
    if longest is not None and len(text) > longest:
        text = f"{text[:longest]}..."
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return `; did you mean 'inter'?` for a name that resembles a known one, else an empty text."""
    similar = get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {similar[0]!r}?" if similar else ""


def print_to_stderr(line: str) -> None:
    """Print a line to standard error and flush it, made safe by `printable`."""
    print(printable(line), file=sys.stderr, flush=True)


def first_line(error: object, otherwise: str | None = None) -> str:
    """Return the first line of an error's message. If it is empty, return `otherwise` or the error's repr."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else repr(error) if otherwise is None else otherwise


def last_line(text: str, otherwise: str) -> str:
    """Return the last line of a text, or `otherwise` if the text is empty."""
    return (text.strip().splitlines() or [otherwise])[-1]


def copy_without_traceback(error: Exception) -> Exception:
    """Return a copy of an error without its traceback, to be raised again later.

    A traceback keeps the variables of its frames alive, and a loaded model may be among them.
    """
    try:
        duplicate = copy.copy(error)
    except Exception:  # Its constructor takes more than a message.
        duplicate = RuntimeError(f"{type(error).__name__}: {error}")
    # The copy has no traceback itself, but its cause and context would bring theirs.
    duplicate.__cause__ = duplicate.__context__ = duplicate.__traceback__ = None
    return duplicate


def error_chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and then its causes, latest first; each once, because a chain may be a circle."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error means that memory ran out, on a GPU or on the CPU.

    oneDNN only reports that a primitive could not be created. It words an unsupported primitive differently. If the
    message was misleading, the batch shrinks to one sample and the error then ends the measurement.
    """
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    kinds: Any = (MemoryError, torch.OutOfMemoryError)
    if isinstance(error, kinds):
        return True
    known = isinstance(error, RuntimeError) and _SHORTAGE.search(str(error))
    return bool(known) or (isinstance(error, Exception) and should_reduce_batch_size(error))


def shorten(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return the text; of a long one, the beginning, the number of characters left out, and the end.

    The result is never longer than `longest`, so shortening it again changes nothing.
    """
    if len(text) <= longest:
        return text
    shown = longest - _REMARK
    end = shown // 4
    return f"{text[: shown - end]}... ({len(text) - shown:,} characters left out) ...{text[-end:]}"


def shorten_texts(texts: Sequence[str], longest: int = LONGEST_TEXT) -> list[str]:
    """Return the first texts, each shortened, and a line with the number of the others if there are more."""
    rest = [f"... ({len(texts) - MOST_TEXTS:,} more left out)"] if len(texts) > MOST_TEXTS else []
    return [shorten(text, longest) for text in texts[:MOST_TEXTS]] + rest
