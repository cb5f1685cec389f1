"""A loaded vision-language model with its processor, parts, device and dtype."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.errors import PhaseError
from harness.interface import option_text
from harness.models.anatomy import Anatomy, find_anatomy
from harness.models.linear import COMPUTING_TYPES
from harness.models.offloaded import computing_device
from harness.models.placement import sweep_offloaded
from harness.models.prompts.hashes import map_tensors
from harness.models.registry import DTYPES, LoadRequest, ModelEntry, find_model
from harness.storage.cache_directory import default_cache


class DeviceError(PhaseError):
    """The requested device is unavailable; the message lists the available ones."""


class VlmError(PhaseError):
    """Model, processor and anatomy do not belong together."""


@dataclass(frozen=True, slots=True)
class Vlm:
    """A loaded model and its processor; `name` is the name in its baselines, `revision` its commit on the hub.

    `Vlm.load` loads a checkpoint. A model in memory needs its name and processor; `anatomy` locates its parts, by
    default with `find_anatomy`.

    Raises:
        VlmError: the processor has no tokenizer, or the anatomy belongs to another model.
        AnatomyError: the model lacks a part that a measurement needs.

    Example:
        >>> import harness
        >>> from transformers import AutoModelForImageTextToText, AutoProcessor
        >>> model = AutoModelForImageTextToText.from_pretrained("path/to/model").eval()  # doctest: +SKIP
        >>> processor = AutoProcessor.from_pretrained("path/to/model")  # doctest: +SKIP
        >>> vlm = harness.Vlm("my-vlm", model, processor)  # doctest: +SKIP
        >>> profile = harness.measure(vlm, "scenes")  # doctest: +SKIP
    """

    name: str
    model: Any
    processor: Any
    anatomy: Anatomy = None  # type: ignore[assignment]  # `__post_init__` finds it.
    revision: str = ""

    def __post_init__(self) -> None:
        if self.anatomy is None:
            object.__setattr__(self, "anatomy", find_anatomy(self.model))
        if not callable(self.processor) or getattr(self.processor, "tokenizer", None) is None:
            raise VlmError(
                f"{self.name}: {type(self.processor).__name__} is no processor of images and prompts: load one with "
                "AutoProcessor.from_pretrained from a directory that has the files of image processor and tokenizer"
            )
        if not {*self.model.modules()}.issuperset(self.anatomy.layers):
            raise VlmError(
                f"{self.name}: the anatomy belongs to another model than the {type(self.model).__name__} that is "
                "measured, perhaps to the original of a copy: make it with harness.find_anatomy(model)"
            )

    @classmethod
    def load(
        cls,
        name: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        download: bool = False,
        trust_code: bool = False,
        allow_unused_weights: bool = False,
        cache: Path | None = None,
        say: Callable[[str], None] | None = None,
    ) -> Vlm:
        """Return a model with its processor, on a device and in eval mode.

        Args:
            name: a directory of save_pretrained, a repository ORG/NAME, or the name of a registered model.
            device: auto (a GPU if there is one), cpu, cuda, cuda:N or mps.
            dtype: fp32, bf16, fp16 or torch's names; auto is fp32 for bundled models and on a CPU, else bf16.
            download: True to download files that are missing from the hub's local cache.
            trust_code: True to run the Python code of the checkpoint, which is refused otherwise.
            allow_unused_weights: True to load a checkpoint although its model does not use all weights in its files.
            cache: directory of bundled weights; None uses the user's cache directory.
            say: receives a line per download; None prints it.

        Raises:
            LookupError: there is no such model, or no such dtype.
            WeightsError: the weights are unavailable or unusable.
            DeviceError: the device is unavailable.
            AnatomyError: the model lacks a part that a measurement needs.

        Example:
            >>> import harness
            >>> vlm = harness.Vlm.load("path/or/ORG/NAME", device="cuda", dtype="bf16")  # doctest: +SKIP
        """
        entry = replace(find_model(name), trusted=trust_code, unused_weights=allow_unused_weights)
        cache = cache or default_cache()
        return load_vlm(entry, cache=cache, device=device, dtype=dtype, download=download, say=say)

    @property
    def device(self) -> torch.device:
        """The device for inputs; for offloaded weights, the device where they compute."""
        device = torch.device(self.model.device)
        return (computing_device(self.model) or device) if device.type == "meta" else device

    @property
    def dtype(self) -> torch.dtype:
        """The floating dtype in which the decoder computes."""
        # The decoder's weights come first; if they are quantised codes, the other weights show the dtype.
        parts = chain(islice(self.anatomy.layers[0].parameters(), 1), [self.model], self.model.parameters())
        return next((part.dtype for part in parts if part.dtype in COMPUTING_TYPES), torch.float32)

    def to_device(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the inputs on the model's device, floating tensors in its dtype; lists of tensors stay lists."""

        def move(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(self.device, self.dtype if tensor.is_floating_point() else None)

        return {key: map_tensors(move, value) for key, value in inputs.items()}

    @property
    def attention(self) -> str:
        """The decoder's attention implementation."""
        return str(self.anatomy.text_config._attn_implementation)


def choose_device(name: str) -> torch.device:
    """Return the device with that name; 'auto' is the first GPU if there is one, else the CPU.

    Raises:
        DeviceError: the requested GPU is unavailable, or the name is not a device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"{name!r} is no device; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            f"{option_text('device', name)}: torch {torch.__version__} sees no CUDA device here; use cpu or auto"
        )
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise DeviceError(
            f"{option_text('device', name)}: there are only {torch.cuda.device_count()} CUDA devices here"
        )
    return device


def choose_dtype(name: str, device: torch.device, *, bundled: bool) -> torch.dtype:
    """Return the dtype of a short or torch name; 'auto' is fp32 for bundled models and on a CPU, else bf16.

    Raises:
        LookupError: the name is unknown.
    """
    if name == "auto":
        return torch.float32 if bundled or device.type == "cpu" else torch.bfloat16
    full = DTYPES.get(name, name)
    if full not in DTYPES.values():
        raise LookupError(f"unknown dtype {name!r}; use auto, {', '.join(DTYPES)}")
    dtype: torch.dtype = getattr(torch, full)
    return dtype


def load_vlm(
    entry: ModelEntry,
    *,
    cache: Path,
    device: str = "auto",
    dtype: str = "auto",
    download: bool = False,
    say: Callable[[str], None] | None = None,
) -> Vlm:
    """Return the model of a registry entry, on its device, in eval mode.

    `download` allows downloads of files that are not in the local cache of the hub. `say` receives a line per download.

    Raises:
        WeightsError: the weights are unavailable.
        DeviceError: the device is unavailable.
        AnatomyError: the model lacks a part that a measurement needs.
    """
    target = choose_device(device)
    sweep_offloaded(cache)
    request = LoadRequest(cache, choose_dtype(dtype, target, bundled=entry.bundled), target, download)
    model, processor = entry.load(request if say is None else replace(request, say=say))
    # The loader has already placed a model with a device map.
    if not getattr(model, "hf_device_map", None):
        model = model.to(target)
    return Vlm(
        entry.name, model.eval(), processor, find_anatomy(model), str(getattr(model.config, "_commit_hash", None) or "")
    )


def count_image_features(model: Any, inputs: Mapping[str, Any]) -> int | None:
    """Return the number of image features that the model makes of a batch, from its `get_image_features`.

    Return None if it has no such method, or if the method needs other inputs, as in some older releases.
    """
    if not hasattr(model, "get_image_features"):
        return None
    # A Q-Former also reads the instruction, so its token ids are inputs too.
    parameters = inspect.signature(model.get_image_features).parameters
    extra = {key: parameter for key, parameter in parameters.items() if key not in inputs}
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    if any(parameter.default is parameter.empty and parameter.kind not in variadic for parameter in extra.values()):
        return None
    arguments = {
        key: value
        for key, value in inputs.items()
        if key in parameters or (torch.is_tensor(value) and value.is_floating_point())
    }
    with torch.inference_mode():
        features = getattr(model.get_image_features(**arguments, return_dict=True), "pooler_output", None)
    return None if features is None else sum(int(np.prod(part.shape[:-1])) for part in features)
