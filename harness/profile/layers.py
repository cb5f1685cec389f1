"""Layers as a reader writes them."""

from __future__ import annotations

from collections.abc import Iterable


def layer_ranges(layers: Iterable[int]) -> str:
    """Layers as a reader writes them: '3, 17-19'."""
    runs: list[list[int]] = []
    for layer in sorted(set(layers)):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
