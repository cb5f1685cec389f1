"""The files of a checkpoint that are opened: regular ones, each of a bounded size, inside of its directory."""

from __future__ import annotations

import codecs
import json
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from harness.models.weights_error import WeightsError
from harness.storage.regular_file import read_regular, require_regular

_MB = 1 << 20
#: Bytes of the largest settings, an index of weights; that of 10^12 parameters has 20 MB.
SETTINGS_BYTES = 64 * _MB
# Bytes of a tokenizer; that of a million tokens has 60 MB.
_TOKENIZER_BYTES = 128 * _MB
# Shell patterns of the names that transformers opens, with the bytes of such a file at most. The first match holds.
_BOUNDS = (
    ("*.safetensors.index.json", SETTINGS_BYTES),
    # Weights are read tensor by tensor.
    ("*.safetensors", sys.maxsize),
    # 6 MB for 30,000 added tokens, and 4 MB where 70,000 parts are named that are not quantised.
    ("*tokenizer_config.json", 32 * _MB),
    ("*config.json", 16 * _MB),
    # The trial of a template stops at a million characters of what it writes.
    ("*.jinja", 4 * _MB),
    ("chat_template.json", 4 * _MB),
    *(
        (pattern, _TOKENIZER_BYTES)
        for pattern in (
            *("tokenizer*.json", "tokenizer.model*", "*.tokenizer", "tekken.json", "*.model", "*.spm", "*.tiktoken"),
            *("*.vocab", "bpe.codes", "vocab*.json", "vocab*.txt", "merges*.txt", "special_tokens_map.json"),
            *("added_tokens.json", "entity_vocab.json", "emoji.json", "byte_maps.json", "word_shape.json"),
            *("word_pronunciation.json", "normalizer.json", "dict.txt"),
        )
    ),
)
# Folders that transformers looks into: further tokenizers of a processor, and chat templates by name.
_FOLDERS = ("*tokenizer*", "additional_chat_templates")
# Brackets in a file of settings; a tokenizer of 30,000 added tokens has as many, and each takes 20 us several times.
_MOST_BRACKETS = 1 << 18
# The name of a blob in the hub's cache.
_HASH = re.compile("[0-9a-f]{40,}")


def readable_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a checkpoint directory that may be opened, in the order of their names.

    Their names alone count: what they are is for `refuse_unreadable` to say. Links to nowhere are left out.
    """
    for path in sorted(folder.iterdir()):
        if _is_readable(path):
            yield path
        elif any(fnmatchcase(path.name, pattern) for pattern in _FOLDERS) and path.is_dir():
            yield from filter(_is_readable, sorted(path.iterdir()))


def refuse_unreadable(folder: Path, source: str) -> None:
    """Assert that the files of a checkpoint that may be opened are regular, bounded, and lie in its directory.

    A snapshot of the hub's cache consists of links to the blobs of its repository, which count as its own. They may
    have been moved to another disk and linked; files of any other name are not read there.

    The directory itself may be reached through links.

    Raises:
        WeightsError: there is a file that is none of this; none has been opened.
        OSError: the directory cannot be read.
    """
    root = folder.resolve()
    for path in readable_files(folder):
        name = path.relative_to(folder).as_posix()
        bound = _bound(path.name)
        try:
            require_regular(path, SETTINGS_BYTES if bound is None else bound)
        except OSError as error:
            raise WeightsError(
                f"the checkpoint {source} has {name!r}, which is not read ({error.strerror}): put a regular file in "
                "its place, or take it out of the directory"
            ) from error
        target = path.resolve()
        if not target.is_relative_to(root) and not _is_blob(target, root):
            raise WeightsError(
                f"the checkpoint {source} has {name!r}, a link out of the directory (to {str(target)!r}), and only "
                "files inside are read: give a copy of it without links (cp -rL), or the directory that holds the files"
            )


def read_settings(path: Path) -> dict[str, Any]:
    """Return the contents of a JSON file of settings.

    Raises:
        WeightsError: the file is no JSON object as transformers reads it, or has more parts than any settings.
        OSError, RecursionError: it cannot be read, or is no regular file of bounded size.
    """
    raw = read_regular(path, SETTINGS_BYTES)
    if raw.startswith(codecs.BOM_UTF8):
        raise WeightsError(f"{path} starts with a byte order mark, which transformers does not read: save it without")
    if raw.count(b"[") + raw.count(b"{") > _MOST_BRACKETS:
        raise WeightsError(f"{path} has more than {_MOST_BRACKETS:,} lists and groups: copy it again, or save it anew")
    try:
        content = json.loads(raw)
    except ValueError as error:
        raise WeightsError(f"{path} is no readable JSON ({error}): mend it or copy it again") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds no settings: copy it again, or save the model anew")
    return content


def read_configuration(folder: Path) -> dict[str, Any]:
    """Return the contents of config.json, empty where a directory has none; raises as `read_settings`."""
    path = folder / "config.json"
    return read_settings(path) if path.is_file() else {}


def _bound(name: str) -> int | None:
    """Return the bytes that a file of a name has at most; None if no file of that name is opened."""
    return next((bytes_ for pattern, bytes_ in _BOUNDS if fnmatchcase(name, pattern)), None)


def _is_readable(path: Path) -> bool:
    return _bound(path.name) is not None and path.exists() and not path.is_dir()


def _is_blob(target: Path, root: Path) -> bool:
    """True if a file is a blob of a version in the hub's cache: models--ORG--NAME/snapshots/COMMIT beside blobs/."""
    if root.parent.name != "snapshots":
        return False
    repository, blobs = root.parents[1], root.parents[1] / "blobs"
    if repository.name.startswith("models--") and target.is_relative_to(blobs):
        return True
    return target.parent == blobs.resolve() and _HASH.fullmatch(target.name) is not None
