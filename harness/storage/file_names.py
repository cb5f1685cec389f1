"""Safe names of files, directories and page elements, derived from names of models, datasets and samples."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import PureWindowsPath

#: Most characters and bytes of a name with its endings; far below the 255 of file systems, because paths add up.
LONGEST_NAME = 120
#: Most characters of a name in a heading, a table or a legend.
LONGEST_SHOWN = 80
#: Room for `-<figure>.<format>`, and for `.<device>-<dtype>.<12 digits>.<format>`.
FIGURE_ENDING, BASELINE_ENDING = 20, 40
_DIGITS = 12
# The sign before the hash. Unaltered names never contain it, so they never equal an altered name.
_MARK = "~"
_SIGNS = re.compile(r"[^\w.-]+")
_SIGNS_AND_LETTERS = re.compile(r"[^\w.-]+", re.ASCII)
# Windows reserves these for devices, with any ending and in any case.
_DEVICE = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9\u00b9\u00b2\u00b3])(\.|$)", re.IGNORECASE)


def file_name(text: str, *, ending: int = 0, ascii_only: bool = False) -> str:
    """Return a file name for a text that is valid on every system; different texts have different names.

    A text of letters, digits, `_`, `-` and `.` is returned unchanged. Exceptions are texts that are too long, begin
    with `.` or `-`, end with `.`, or name a Windows device. Any other text is cleaned, cut, and ends with `~` and a
    hash of the original text.

    Args:
        text: the name of a model, dataset, pair or sample.
        ending: number of characters that the caller appends; the total stays within `LONGEST_NAME`.
        ascii_only: replace letters outside ASCII too, for ids in a page and for tools that need ASCII.
    """
    clean, room = _clean(text, ascii_only), LONGEST_NAME - ending
    if clean == text and len(text.encode()) <= room and text and not _DEVICE.match(text):
        return text
    return _altered(clean, room, text)


def short_name(text: str) -> str:
    """Return a name for headings, tables and legends; a long name is cut and ends with `...~` and its hash."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - _DIGITS - 4]}...{_MARK}{text_digest(text)}"


def text_digest(text: str, digits: int = _DIGITS) -> str:
    """Return the first hexadecimal digits of a text's SHA-256."""
    # File names may contain half of a surrogate pair, which UTF-8 cannot encode.
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:digits]


def folded_name(name: str) -> str:
    """Return a key that is equal for names which some file system treats as equal, by case or Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_plain_name(name: str) -> bool:
    """Return True if a name is a file name without a directory, on every system."""
    # Windows' rules cover both slashes and drive letters.
    return name == PureWindowsPath(name).name and name not in ("", "..")


def stays_inside(path: str) -> bool:
    """Return True if a relative path stays inside its directory, on every system."""
    pure = PureWindowsPath(path)
    return bool(pure.parts) and not (pure.drive or pure.root or ".." in pure.parts)


@dataclass
class FileNames:
    """The names in use in one directory or page; no two are equal even if case is ignored."""

    used: set[str] = field(default_factory=set)

    def add(self, text: str, kind: str = "") -> str:
        """Return an unused ASCII file name for a text, followed by `-kind`."""
        suffix = f"-{kind}" if kind else ""
        name, attempt = file_name(text, ending=FIGURE_ENDING, ascii_only=True) + suffix, 1
        while folded_name(name) in self.used:
            attempt += 1
            name = _altered(_clean(text, True), LONGEST_NAME - FIGURE_ENDING, f"{text} {attempt}") + suffix
        self.used.add(folded_name(name))
        return name


def _clean(text: str, ascii_only: bool) -> str:
    signs = _SIGNS_AND_LETTERS if ascii_only else _SIGNS
    return signs.sub("-", unicodedata.normalize("NFC", text)).lstrip(".-").rstrip(".")


def _altered(clean: str, room: int, text: str) -> str:
    # Reserve one character for the `_` before a device's name.
    clean = clean.encode()[: room - _DIGITS - len(_MARK) - 1].decode(errors="ignore")
    if not clean or _DEVICE.match(clean):
        clean = f"_{clean}"
    return f"{clean}{_MARK}{text_digest(text)}"
