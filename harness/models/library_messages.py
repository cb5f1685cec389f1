"""Library messages about checkpoints, with control characters escaped for the terminal."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

from harness.errors import error_chain, printable

_COLOURS = re.compile(r"\x1b\[[\d;]*m")
# Line breaks and tabs stay, for tables and lists.
_LINE_TEXT = re.compile(r"[^\n\t]+")
# The text by which transformers reports a missing package where it raises no ImportError.
_LACKING = "Missing optional dependencies"
_COMMAND = re.compile(r"pip install (?:-U |--upgrade )?['\"]?([A-Za-z][\w.-]*)")
_LISTED = re.compile(rf"{_LACKING}: ([A-Za-z][\w-]*)")
_DEVICE = re.compile(r"requires an? (?:\w+ or )?(?:GPU|CUDA|XPU)", re.IGNORECASE)
_LIBRARY = re.compile(r"(?:requires?(?: the)?|A valid) ([A-Za-z][\w.-]*)(?: library| version)?\b")


@contextmanager
def plain_messages() -> Iterator[None]:
    """Escape control characters in log records and warnings inside the block.

    Libraries log names and values of a checkpoint's files verbatim.
    """
    make_record, show_warning = logging.getLogRecordFactory(), warnings.showwarning

    def plain_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        return _escaped(make_record(*args, **kwargs))

    def show_plain(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        text = plain(str(message))
        show_warning(message if text == str(message) else Warning(text), *args, **kwargs)

    logging.setLogRecordFactory(plain_record)
    warnings.showwarning = show_plain
    try:
        yield
    finally:
        logging.setLogRecordFactory(make_record)
        warnings.showwarning = show_warning


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence warnings and progress bars of transformers inside the block, for loads whose warnings need no action."""
    from transformers.utils import logging as messages

    verbosity, bars = messages.get_verbosity(), messages.is_progress_bar_enabled()
    messages.set_verbosity_error()
    messages.disable_progress_bar()
    try:
        # The progress bar of the GGUF reader cannot be disabled, so stderr is redirected.
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        messages.set_verbosity(verbosity)
        if bars:
            messages.enable_progress_bar()


def plain(text: str) -> str:
    """Return a text, possibly of several lines, without colours and with its control characters escaped."""
    return _LINE_TEXT.sub(lambda match: printable(match[0]), _COLOURS.sub("", text))


def printable_cause(error: BaseException) -> BaseException | None:
    """Return an error for `raise ... from`, or None if its traceback would print control characters."""
    return error if all(plain(str(link)) == str(link) for link in error_chain(error)) else None


def _escaped(record: logging.LogRecord) -> logging.LogRecord:
    try:
        text = record.getMessage()
    except Exception:  # The handler reports arguments that do not fit.
        return record
    if plain(text) != text:
        record.msg, record.args = plain(text), ()
    if record.exc_info:
        lines = logging.Formatter().formatException(record.exc_info)
        if plain(lines) != lines:
            record.exc_text = plain(lines)
    return record


def missing_package(error: Exception) -> str:
    """Return the predicate of a message about the missing package that raised an error, or "" for another error."""
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
