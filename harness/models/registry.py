"""The models that the harness knows by name. A model is a row of this table; how it is measured is the same for all."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# By short and by torch's name; kept where no torch is imported, because the options name them.
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A named model.

    `loader` is 'module:function'; the function takes the cache directory and a dtype and returns (model, processor) on
    the CPU in eval mode. It is named and not imported, so that listing the models needs no torch. `datasets` are the
    data it is measured on when nobody says otherwise.
    """

    name: str
    summary: str
    loader: str
    datasets: tuple[str, ...]
    embedded: bool = False

    def load(self, cache: Path, dtype: torch.dtype) -> tuple[Any, Any]:
        """Model and processor.

        Raises:
            WeightsError: the weights cannot be had; the message says where from and what to do.
        """
        module, function = self.loader.split(":")
        loader: Callable[[Path, Any], tuple[Any, Any]] = getattr(importlib.import_module(module), function)
        return loader(cache, dtype)


MODELS: dict[str, ModelEntry] = {
    entry.name: entry
    for entry in (
        ModelEntry(
            name="scenes-llava",
            summary="LLaVA architecture: frozen SmolLM2-135M-Instruct, our own small tower and projector",
            loader="harness.models.embedded.scenes_llava:load",
            datasets=("scenes", "scenes-order"),
            embedded=True,
        ),
    )
}


def find_model(name: str) -> ModelEntry:
    """The entry of that name.

    Raises:
        LookupError: there is none; the message lists the known names.
    """
    try:
        return MODELS[name]
    except KeyError:
        raise LookupError(f"unknown model {name!r}; known models: {', '.join(sorted(MODELS))}") from None
