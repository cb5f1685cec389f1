"""Weight files of the bundled models, compared with a known SHA-256 when they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.storage.regular_file import require_regular

if TYPE_CHECKING:
    import torch

Stamp = tuple[int, int, int, int, int]
_MOST_BYTES = 1 << 30
# Files that this process has compared; only root could restore the old stamp of a changed file.
_compared: set[tuple[Stamp, str]] = set()


def checked_tensors(path: Path, sha256: str) -> dict[str, torch.Tensor]:
    """Return the float32 tensors of a safetensors file by name, compared with `sha256` once per process.

    Args:
        path: the file; it stays memory-mapped while the tensors exist.
        sha256: the expected `content_sha256`, which does not depend on the release that wrote the file.

    Raises:
        OSError, safetensors.SafetensorError: the file cannot be read.
        ValueError: its content differs.
    """
    from safetensors.torch import load_file

    require_regular(path, _MOST_BYTES)
    with require_unchanged(path) as stamp:
        tensors = load_file(path)
        # Hash the loaded tensors, not the file, so that no change goes unnoticed.
        if (stamp, sha256) not in _compared and content_sha256(tensors) != sha256:
            raise ValueError(f"{path.name} has other weights")
    _compared.add((stamp, sha256))
    return tensors


def content_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of tensors with their names, types and shapes, in the order of the names."""
    from harness.models.stored_numbers import content_bytes

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        for part in content_bytes(tensor):
            digest.update(part)
    return digest.hexdigest()


@contextmanager
def require_unchanged(path: Path) -> Iterator[Stamp]:
    """Raise if a file changes during the block; yield its stamp.

    Raises:
        OSError: there is no such file.
        ValueError: it was changed or replaced during the block.
    """
    before = _stamp(path)
    yield before
    if _stamp(path) != before:
        raise ValueError(f"{path.name} was changed while it was read")


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
