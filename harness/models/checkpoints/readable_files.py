"""Access to the files of a checkpoint: only regular files of bounded size inside its directory are opened."""

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
#: Bytes of the largest settings file, an index of weights. The index for 10^12 parameters has 20 MB.
SETTINGS_BYTES = 64 * _MB
# Bytes of a tokenizer. One with a million tokens has 60 MB.
_TOKENIZER_BYTES = 128 * _MB
# Shell patterns of the files that transformers opens, with the largest size in bytes. The first match counts.
_BOUNDS = (
    ("*.safetensors.index.json", SETTINGS_BYTES),
    # Weights are read tensor by tensor.
    ("*.safetensors", sys.maxsize),
    # 30,000 added tokens take 6 MB; a list of 70,000 parts that are not quantised takes 4 MB.
    ("*tokenizer_config.json", 32 * _MB),
    ("*config.json", 16 * _MB),
    # The output of a template is limited separately, to a million characters.
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
# Directories that transformers searches: further tokenizers of a processor, and named chat templates.
_FOLDERS = ("*tokenizer*", "additional_chat_templates")
# The most brackets in a settings file, enough for 30,000 added tokens. Each takes 20 us, several times per load.
_MOST_BRACKETS = 1 << 18
# The name of a blob in the hub's cache.
_HASH = re.compile("[0-9a-f]{40,}")


def readable_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a checkpoint directory that may be opened, in the order of their names.

    Only the names are checked here; `refuse_unreadable` checks the files. Broken links are omitted.
    """
    for path in sorted(folder.iterdir()):
        if _is_readable(path):
            yield path
        elif any(fnmatchcase(path.name, pattern) for pattern in _FOLDERS) and path.is_dir():
            yield from filter(_is_readable, sorted(path.iterdir()))


def refuse_unreadable(folder: Path, source: str) -> None:
    """Raise unless all files of a checkpoint that may be opened are regular, bounded and in its directory.

    A snapshot of the hub's cache consists of links to the blobs of its repository, which count as inside. The blobs may
    be linked to another disk; there, only files named like blobs are read. The directory itself may be a link.

    Raises:
        WeightsError: a file violates this; no file has been opened.
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
                f"the checkpoint {source} has {name!r}, which is not read ({error.strerror}): replace it by a regular "
                "file, or remove it from the directory"
            ) from error
        target = path.resolve()
        if not target.is_relative_to(root) and not _is_blob(target, root):
            raise WeightsError(
                f"the checkpoint {source} has {name!r}, a link out of the directory (to {str(target)!r}), but only "
                "files inside are read: give a copy of it without links (cp -rL), or the directory that holds the files"
            )


def read_settings(path: Path) -> dict[str, Any]:
    """Return the contents of a JSON settings file.

    Raises:
        WeightsError: the file is not a JSON object that transformers can read, or has too many parts.
        OSError, RecursionError: it cannot be read, or is not a regular file of bounded size.
    """
    raw = read_regular(path, SETTINGS_BYTES)
    if raw.startswith(codecs.BOM_UTF8):
        raise WeightsError(f"{path} starts with a byte order mark, which transformers does not read: save it without")
    if raw.count(b"[") + raw.count(b"{") > _MOST_BRACKETS:
        raise WeightsError(
            f"{path} has more than {_MOST_BRACKETS:,} lists and objects: copy it again, or save it again"
        )
    try:
        content = json.loads(raw)
    except ValueError as error:
        raise WeightsError(f"{path} is not valid JSON ({error}): fix it or copy it again") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds no settings: copy it again, or save the model again")
    return content


def read_configuration(folder: Path) -> dict[str, Any]:
    """Return the contents of config.json, empty if it is missing. Raises like `read_settings`."""
    path = folder / "config.json"
    return read_settings(path) if path.is_file() else {}


def _bound(name: str) -> int | None:
    """Return the largest size in bytes of a file with a name; None if files with that name are not opened."""
    return next((bytes_ for pattern, bytes_ in _BOUNDS if fnmatchcase(name, pattern)), None)


def _is_readable(path: Path) -> bool:
    return _bound(path.name) is not None and path.exists() and not path.is_dir()


def _is_blob(target: Path, root: Path) -> bool:
    """Return True if a file is a blob of the snapshot `root` in the hub's cache, models--ORG--NAME/snapshots/COMMIT."""
    if root.parent.name != "snapshots":
        return False
    repository, blobs = root.parents[1], root.parents[1] / "blobs"
    if repository.name.startswith("models--") and target.is_relative_to(blobs):
        return True
    return target.parent == blobs.resolve() and _HASH.fullmatch(target.name) is not None
