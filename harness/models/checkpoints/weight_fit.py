"""Checks for missing, misshapen and unused weights, before and after loading."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch

from harness.errors import printable
from harness.interface import option_text
from harness.models.checkpoints.weight_files import StoredTensor
from harness.models.library_messages import quiet_transformers
from harness.models.registry import ModelEntry
from harness.models.weights_error import WeightsError

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_CODES = ("I8", "U8")
_TIED = "tie_word_embeddings"
_ADAPTER = re.compile(r"\.(lora_\w+|base_layer|modules_to_save|original_module)\.|^base_model\.")
# Buffers that a model computes; older releases saved them with the weights.
_COMPUTED = re.compile(r"(^|\.)(inv_freq|position_ids|masked_bias)$")
# Parts of names that transformers added or moved between releases.
_RENAMED = ("model", "language_model")
# Names under which distributed training and compilation wrap the model.
_WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")
_INDEXED = re.compile(r"^(.*\.)(\d+)\.")


def try_weights(config: Any, entry: ModelEntry, headers: Mapping[str, StoredTensor]) -> None:
    """Raise unless the weights fit their model, from their headers: a trial load on torch's meta device.

    Quantised models, and models that transformers cannot load in this way, are checked only after loading.

    Raises:
        WeightsError: the weights do not fit, see `refuse_misfit`; or they are floating although config.json declares
            them quantised, or codes although it does not.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    quantised = getattr(config, "quantization_config", None) is not None
    if quantised and all(tensor.floating for tensor in headers.values()):
        raise WeightsError(
            f"the checkpoint {entry.source} is quantised according to its config.json (quantization_config), but its "
            "weights are not: remove quantization_config from config.json to measure the weights as they are"
        )
    codes = [name for name, tensor in headers.items() if tensor.dtype in _CODES and name.endswith("weight")]
    if codes and not quantised:
        raise WeightsError(
            f"the checkpoint {entry.source} stores weights as 8-bit codes ({printable(codes[0])}, {len(codes)} in "
            "all), but its config.json has no quantization_config to decode them: copy config.json again from the "
            "quantised model, or give the weights from before quantisation"
        )
    readable = all(tensor.dtype in _DTYPES for tensor in headers.values())
    model_class = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(config), None)
    if quantised or not readable or model_class is None:
        return
    state = {
        name: torch.empty(tensor.shape, dtype=_DTYPES[tensor.dtype], device="meta") for name, tensor in headers.items()
    }
    try:
        with quiet_transformers():
            model, info = model_class.from_pretrained(
                None,
                config=config,
                state_dict=state,
                device_map={"": "meta"},
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except Exception:  # Some models cannot be loaded without values; the check after loading decides.
        return
    names = model.state_dict().keys()
    refuse_misfit(info, names, entry)
    _refuse_doubles(headers.keys(), names, entry)


def _refuse_doubles(stored: Collection[str], names: Collection[str], entry: ModelEntry) -> None:
    """Raise if a weight is stored under an old and a new name, of which transformers silently takes one."""
    bare = {_bare(name) for name in names}
    # If two weights of the model itself have the same bare name, equal bare names prove nothing.
    distinct = len(bare) == len(names)
    first: dict[str, str] = {}
    for name in stored:
        other = first.setdefault(_bare(name), name)
        if other != name and distinct and not entry.unused_weights:
            raise WeightsError(
                f"the checkpoint {entry.source} has two weights for one weight of its model ({printable(other)}, "
                f"{printable(name)}): its files mix two sets of weights; save the model again, or to measure with the "
                f"one that transformers takes, add {option_text('allow_unused_weights', entry.source)}"
            )


def _bare(name: str) -> str:
    """Return the name of a weight without the parts in which releases of transformers differ."""
    return ".".join(part for part in name.split(".") if part not in _RENAMED)


def refuse_misfit(info: Mapping[str, Any], names: Collection[str], entry: ModelEntry) -> list[str]:
    """Raise unless every weight was present in its shape and none was unused.

    transformers only warns: it draws missing weights at random and ignores unexpected ones.

    Args:
        info: the loading report of transformers.
        names: the names of the model's tensors.
        entry: the checkpoint.

    Returns:
        The names of unused weights, if the entry allows them.

    Raises:
        WeightsError: there are such weights; the message names the first, their number and the likely cause.
    """
    source = entry.source
    extra = sorted(name for name in info["unexpected_keys"] if not _COMPUTED.search(name))
    adapted = any(_ADAPTER.search(name) for name in extra)
    merge = "they belong to a PEFT model that was not merged: call merge_and_unload() and save it again"
    missing = sorted(info["missing_keys"])
    layers = _layers(names, {*names, *extra} - set(missing))
    if missing:
        cause = (merge if adapted else layers or _wrapped(missing, info["unexpected_keys"]) or _headless(missing)) or (
            "check that config.json and weights belong together, or save it again"
        )
        raise WeightsError(
            f"the checkpoint {source} lacks weights of its model ({printable(missing[0])}, {len(missing)} in all), "
            f"which would be random numbers: {cause}"
        )
    if mismatched := sorted(info["mismatched_keys"], key=lambda row: str(row[0])):
        name, stored, expected = mismatched[0]
        raise WeightsError(
            f"the checkpoint {source} has weights of another shape than its config.json describes "
            f"({printable(str(name))}: {tuple(stored)} in the file and {tuple(expected)} in the model, "
            f"{len(mismatched)} in all): check that config.json and weights belong together, or save it again"
        )
    if extra and not entry.unused_weights:
        cause = merge if adapted else layers or "check that config.json and weights belong together"
        raise WeightsError(
            f"the checkpoint {source} has weights that its model does not use ({printable(extra[0])}, {len(extra)} "
            f"in all): {cause}; to measure without them add {option_text('allow_unused_weights', source)}"
        )
    return extra


def refuse_untied(model: Any, settings: Mapping[str, Any], entry: ModelEntry) -> None:
    """Raise if config.json ties the head to the embeddings but the two differ.

    Releases of transformers differ in which of the two they use.

    Raises:
        WeightsError: config.json ties them, and the weights have two different tensors.
    """
    decoder = model.config.get_text_config(decoder=True)
    levels = [settings, *(settings[key] for key in settings if getattr(model.config, key, None) is decoder)]
    stated = [part[_TIED] for part in levels if isinstance(part, dict) and _TIED in part]
    if entry.unused_weights or stated[:1] != [True]:
        return
    parts = (model.get_output_embeddings(), model.get_input_embeddings())
    head, embeddings = (getattr(part, "weight", None) for part in parts)
    if not isinstance(head, torch.Tensor) or not isinstance(embeddings, torch.Tensor) or head is embeddings:
        return
    if head.is_meta or embeddings.is_meta or head.shape != embeddings.shape:
        return
    if torch.equal(head, embeddings.to(head.device)):
        return
    raise WeightsError(
        f"the checkpoint {entry.source} declares in config.json that its head and its embeddings are one weight "
        "(tie_word_embeddings), but its weights have two that differ: set it to false if the head was trained "
        "separately, else remove lm_head.weight from the weights, or measure with the head of the weights by "
        f"{option_text('allow_unused_weights', entry.source)}"
    )


def _wrapped(missing: Collection[str], extra: Collection[str]) -> str:
    """Return the cause if all names start with the prefix of a model wrapper, else ""."""
    prefix = next((part for part in _WRAPPERS if extra and all(name.startswith(part) for name in extra)), "")
    return prefix and (
        f"their names begin with {prefix!r}, the prefix of a wrapper of the model: remove it from the names, or save "
        "the model inside the wrapper"
    )


def _headless(missing: Collection[str]) -> str:
    """Return the cause if only the head is missing, else ""."""
    return (
        f'write "{_TIED}": true into config.json if its head and its embeddings are one weight, or save the model again'
        if all(name.endswith("lm_head.weight") for name in missing)
        else ""
    )


def _layers(configured: Collection[str], stored: Collection[str]) -> str:
    """Return the cause if config.json and the weights differ in the number of layers, else ""."""
    sides = (_counts(configured), _counts(stored))
    for prefix in (name for name in sides[0] if name in sides[1]):
        configured_count, stored_count = (counts[prefix] for counts in sides)
        if configured_count != stored_count:
            return (
                f"config.json gives {prefix.rstrip('.')} {configured_count} layers and the weights have {stored_count}"
                f": write {stored_count} into config.json (num_hidden_layers), or complete or shorten the weights"
            )
    return ""


def _counts(names: Collection[str]) -> dict[str, int]:
    """Return the number of layers by the prefix of their names."""
    counts: dict[str, int] = {}
    for name in names:
        if match := _INDEXED.search(name):
            counts[match[1]] = max(counts.get(match[1], 0), int(match[2]) + 1)
    return counts
