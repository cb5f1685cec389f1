"""The settings of a model as one flat mapping: configuration, processor, and attributes of its modules."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.profile.environment import installed_version
from harness.storage.json_text import round_numbers

if TYPE_CHECKING:
    from torch import nn

    from harness.models.vlm import Vlm

#: The key of the checkpoint's hash, and the prefixes of the keys of processor and modules.
CHECKPOINT, PROCESSOR, MODULES = "weights.checkpoint", "processor.", "modules."

# Settings that do not affect the computation: paths, versions, labels of classifiers, and classes that are read from
# the loaded objects instead. The environment records the data type.
_DROPPED = re.compile(
    r"_.*|name_or_path|transformers_version|auto_map|(torch_)?dtype|id2label|label2id|chat_template|"
    r"image_processor_type|processor_class"
)
_COMPONENT = re.compile("tokenizer|processor|feature_extractor")
# Attributes of modules: floats are recorded except `_TRAINING_ONLY`, other types only if they match `_LIVE`.
_TRAINING_ONLY = re.compile("drop|norm_type|momentum|loss|jitter|^p$|std$")
_LIVE = re.compile("causal|window|approximate|rope_type|eps|softcap")
_NO_ACTIVATION = re.compile("drop|identity|list|dict", re.IGNORECASE)
_INDEX = re.compile(r"(?<=\.)\d+(?=\.|$)")


def read_configuration(vlm: Vlm, checkpoint: str = "") -> dict[str, Any]:
    """Return the settings of a loaded model, sorted by key; values are JSON types without objects.

    Keys come from the model's configuration (`text_config.rope_parameters.rope_theta`), its processor
    (`processor.image_processor.resample`) and the attributes of its modules (`modules.model.norm.variance_epsilon`). A
    setting changed in memory shows only in the attributes. A key with `*` stands for a stack of layers: one value if
    all layers share it, else a list with one value per layer. Paths, names and versions of transformers are omitted.

    Args:
        vlm: the loaded model.
        checkpoint: hash of the parameters and persistent buffers (`environment.weight_hashes`), empty if unknown.
    """
    settings = {
        **_flat(vlm.model.config.to_dict()),
        **_attention_of_other_parts(vlm),
        **_processor_settings(vlm.processor),
        **_module_settings(vlm.model),
        "torchvision": installed_version("torchvision").split("+")[0],
    }
    if checkpoint:
        settings[CHECKPOINT] = checkpoint
    return dict(sorted(settings.items()))


def _flat(settings: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if _DROPPED.fullmatch(str(name)) or (isinstance(value, str) and Path(value).is_absolute()):
            continue
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = _plain(value)
    return flat


def _plain(value: Any) -> Any:
    """Return the value as JSON types: floats with six significant digits, objects as the name of their class."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return round_numbers(value) if math.isfinite(value) else str(value)
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return [[str(name), _plain(item)] for name, item in sorted(value.items(), key=str)]
    return _class(value)


def _class(value: Any) -> str:
    if type(value).__module__ == "torch":  # a data type or a device
        return str(value).removeprefix("torch.")
    return str(getattr(value, "__name__", type(value).__name__))


def _attention_of_other_parts(vlm: Vlm) -> dict[str, str]:
    """Return the attention implementation of every part but the decoder, whose attention the environment records."""
    parts = {key: getattr(vlm.model.config, key, None) for key in getattr(vlm.model.config, "sub_configs", {})}
    implementations = {
        f"{key}.attn_implementation": getattr(part, "_attn_implementation", None)
        for key, part in parts.items()
        if part is not vlm.anatomy.text_config
    }
    return {key: str(attention) for key, attention in implementations.items() if attention}


def _processor_settings(processor: Any) -> dict[str, Any]:
    """Return the classes of a processor and its components, its own settings, and those of its image processor."""
    settings: dict[str, Any] = {f"{PROCESSOR}class": _class(processor)}
    attributes = getattr(processor, "__dict__", {})
    settings |= _flat({name: value for name, value in attributes.items() if _is_setting(value)}, PROCESSOR)
    for name, part in attributes.items():
        if not _COMPONENT.search(name) or name.startswith("_") or part is None or _is_setting(part):
            continue
        settings[f"{PROCESSOR}{name}.class"] = _class(part)
        # Pixels depend on every setting of an image processor. A changed tokenizer shows in the samples' token hashes.
        if "image_processor" in name and hasattr(part, "to_dict"):
            settings |= _flat(part.to_dict(), f"{PROCESSOR}{name}.")
    return settings


def _is_setting(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | list | tuple | dict)


def _module_settings(model: nn.Module) -> dict[str, Any]:
    """Return numbers, activations and computed buffers of the modules, by path with `*` for a stack of layers."""
    stacks: dict[str, dict[tuple[str, ...], Any]] = {}
    for path, module in model.named_modules():
        for name, value in _settings_of_module(model, path, module):
            key = ".".join(filter(None, (path, name)))
            stacks.setdefault(_INDEX.sub("*", key), {})[tuple(_INDEX.findall(key))] = value
    return {f"{MODULES}{key}": _stack_value(values) for key, values in stacks.items()}


def _stack_value(values: Mapping[tuple[str, ...], Any]) -> Any:
    """Return the value that all modules of a stack share, else a list with None for layers without the module."""
    first = next(iter(values.values()))
    if all(value == first for value in values.values()):
        return first
    if {len(index) for index in values} != {1}:
        return list(values.values())
    by_layer = {int(index): value for (index,), value in values.items()}
    return [by_layer.get(layer) for layer in range(max(by_layer) + 1)]


def _settings_of_module(model: nn.Module, path: str, module: nn.Module) -> Iterator[tuple[str, Any]]:
    facts = {name: _plain(value) for name, value in _attributes(module) if _is_live(name, value)}
    if path and not (module._modules or module._parameters or module._buffers):
        # A module without parameters, buffers and submodules is an activation or a similar function.
        if not _NO_ACTIVATION.search(_class(module)):
            settings = ", ".join(f"{name}={value}" for name, value in facts.items() if not name.startswith("act"))
            yield "", _class(module) + (f"({settings})" if settings else "")
        return
    yield from facts.items()
    for name in sorted(module._non_persistent_buffers_set):
        value = _buffer(model, f"{path}.{name}".lstrip("."), getattr(module, name, None))
        # Rotary embeddings keep a second copy for prompts of another length.
        if value and "original_" not in name:
            yield name, value


def _is_live(name: str, value: Any) -> bool:
    """Return True for an attribute that affects the computation: a number, a switch or an activation."""
    if isinstance(value, float):
        return not _TRAINING_ONLY.search(name)
    if isinstance(value, bool | int | str):
        return bool(_LIVE.search(name))
    return name.startswith("act") and callable(value)


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the public attributes of a module; items of a dictionary one by one, as adapters store their scale."""
    for name, value in vars(module).items():
        if name.startswith("_"):
            continue
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", item) for key, item in value.items())
        else:
            yield name, value


def _buffer(model: nn.Module, name: str, tensor: Any) -> str:
    """Return a short summary of a floating buffer that ignores its last bits; empty for other buffers."""
    from harness.models.offloaded import load_offloaded

    if tensor is None or not tensor.is_floating_point() or not tensor.numel():
        return ""
    numbers = load_offloaded(model, name, tensor)
    if numbers is None:
        return ""
    values = numbers.detach().double().flatten().cpu()
    first, last, total = (f"{float(value):.6g}" for value in (values[0], values[-1], values.sum()))
    return f"{first} to {last}, sum {total}"
