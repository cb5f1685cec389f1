"""The layers in which a knockout blocks attention: windows of neighbouring layers, and all layers from one on."""

from __future__ import annotations

import math

#: The decoder is divided into this many windows unless a size is requested.
_WINDOWS = 6


def window_size(depth: int, requested: int | None = None) -> int:
    """Return the number of layers in a window: as requested, at most `depth`; by default a sixth of the depth."""
    return min(depth, requested or math.ceil(depth / _WINDOWS))


def knockout_windows(depth: int, size: int) -> tuple[range, ...]:
    """Return windows of `size` neighbouring layers that cover all layers from 0 on; the last may be shorter."""
    return tuple(range(start, min(start + size, depth)) for start in range(0, depth, size))


def onward_starts(depth: int, size: int) -> tuple[int, ...]:
    """Return the layers (from 0) from which on attention is blocked in all later layers.

    These are the first layers of the windows and every layer of the last third. There the image is usually no longer
    needed, and a pass from the layer on is cheap.
    """
    third = depth - depth // 3
    return tuple(sorted({window.start for window in knockout_windows(depth, size)} | set(range(third, depth))))
