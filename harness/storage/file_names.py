"""Names of files, directories and page elements, made of names that somebody else chose: models, datasets, samples."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import PureWindowsPath

#: Characters and bytes of a name with its endings: far below what file systems take (255), because paths add up.
LONGEST_NAME = 120
#: Characters of a name in a heading, a table or a legend.
LONGEST_SHOWN = 80
#: Room for `-<figure>.<format>`, and for `.<device>-<dtype>.<12 digits>.<format>`.
FIGURE_ENDING, BASELINE_ENDING = 20, 40
_DIGITS = 12
# The sign before the digits. No name that stays as it is has it, so none equals an altered one.
_MARK = "~"
_SIGNS = re.compile(r"[^\w.-]+")
_SIGNS_AND_LETTERS = re.compile(r"[^\w.-]+", re.ASCII)
# Windows keeps these for devices, with any ending and in any case.
_DEVICE = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9\u00b9\u00b2\u00b3])(\.|$)", re.IGNORECASE)


def file_name(text: str, *, ending: int = 0, ascii_only: bool = False) -> str:
    """Return a file name for a text, valid on every system; different texts have different names.

    A text of letters, digits, `_`, `-` and `.` stays as it is, unless it is too long, begins with `.` or `-`, ends
    with `.`, or names a device of Windows. Any other is cleaned, cut, and ends with `~` and a hash of the whole text.

    Args:
        text: the name of a model, dataset, pair or sample.
        ending: characters that are put behind it; together they stay within `LONGEST_NAME` characters and bytes.
        ascii_only: treat letters outside ASCII as signs, for ids in a page and for tools that take no others.
    """
    clean, room = _clean(text, ascii_only), LONGEST_NAME - ending
    if clean == text and len(text.encode()) <= room and text and not _DEVICE.match(text):
        return text
    return _altered(clean, room, text)


def short_name(text: str) -> str:
    """Return a name as headings, tables and legends show it: a long one is cut and ends with `...~` and its hash."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - _DIGITS - 4]}...{_MARK}{text_digest(text)}"


def text_digest(text: str, digits: int = _DIGITS) -> str:
    """Return the first hexadecimal digits of a text's SHA-256."""
    # Half of a surrogate pair has no UTF-8, and file names may hold one.
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:digits]


def folded_name(name: str) -> str:
    """Return the form that is the same for all names that some file system takes for one, by case or composition."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_plain_name(name: str) -> bool:
    """Return True if a name is one of a file without any directory, on every system."""
    # Windows' rules know both slashes and drive letters.
    return name == PureWindowsPath(name).name and name not in ("", "..")


def stays_inside(path: str) -> bool:
    """Return True if a path leads to something inside the directory that it is taken in, on every system."""
    pure = PureWindowsPath(path)
    return bool(pure.parts) and not (pure.drive or pure.root or ".." in pure.parts)


@dataclass
class FileNames:
    """The names given out in one directory or page. No two are the same, also where a file system ignores case."""

    taken: set[str] = field(default_factory=set)

    def add(self, text: str, kind: str = "") -> str:
        """Return the file name of a text in ASCII, with `-kind` behind it; one that is taken is altered until free."""
        behind = f"-{kind}" if kind else ""
        name, again = file_name(text, ending=FIGURE_ENDING, ascii_only=True) + behind, 1
        while folded_name(name) in self.taken:
            again += 1
            name = _altered(_clean(text, True), LONGEST_NAME - FIGURE_ENDING, f"{text} {again}") + behind
        self.taken.add(folded_name(name))
        return name


def _clean(text: str, ascii_only: bool) -> str:
    signs = _SIGNS_AND_LETTERS if ascii_only else _SIGNS
    return signs.sub("-", unicodedata.normalize("NFC", text)).lstrip(".-").rstrip(".")


def _altered(clean: str, room: int, text: str) -> str:
    # One character more may stand before a device's name.
    clean = clean.encode()[: room - _DIGITS - len(_MARK) - 1].decode(errors="ignore")
    if not clean or _DEVICE.match(clean):
        clean = f"_{clean}"
    return f"{clean}{_MARK}{text_digest(text)}"
