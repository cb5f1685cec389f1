"""Recognition of directories with weights in other formats than transformers' safetensors, with a remedy for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.models.checkpoints.readable_files import read_settings
from harness.models.weights_error import WeightsError

ADAPTER = "adapter_config.json"
_UNNAMED = "BASE"
_NEW = "save_pretrained('merged')"
_CLASSES = "AutoModelForImageTextToText as M, AutoProcessor as P"


# Formats that are not read: shell patterns of the files, the name, and the remedy, in which FOLDER is replaced by the
# directory. More specific file names come first.
_FORMATS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("global_step*", "*_model_states.pt", "zero_to_fp32.py"),
        "a DeepSpeed checkpoint",
        "run its zero_to_fp32.py with --safe_serialization, put config.json and the processor's files beside its "
        "output, and give that directory",
    ),
    (
        ("pytorch_model_fsdp*", "*.distcp"),
        "FSDP shards",
        "merge them with `accelerate merge-weights`, and put config.json and the processor's files beside the weights",
    ),
    (
        ("mp_rank_*", "iter_*", "latest_checkpointed_iteration.txt", "*.nemo"),
        "a Megatron checkpoint",
        "convert it to transformers with the exporter of the training program",
    ),
    (
        ("consolidated*", "params.json"),
        "weights in their publisher's own format",
        "take the version for transformers, or convert them with transformers' script for this model",
    ),
    (
        ("pytorch_model*.bin", "*.pth", "model*.pt"),
        "pickles, which can run code and are never opened",
        f"if you trust them, save them as safetensors: from transformers import {_CLASSES}; "
        "M.from_pretrained('FOLDER').save_pretrained('new'); P.from_pretrained('FOLDER').save_pretrained('new')",
    ),
    (("*.gguf",), "GGUF", "give the transformers checkpoint that it was made from"),
    (("*.onnx",), "ONNX", "give the transformers checkpoint that it was made from"),
    (
        ("tf_model.h5", "*.msgpack"),
        "TensorFlow or Flax weights",
        "load them with transformers 4 (from_tf, from_flax) and save them with save_pretrained",
    ),
    (
        ("*.incomplete", "*.part", "*.crdownload", "*.aria2"),
        "an unfinished download",
        "finish it, or copy the file again",
    ),
    (("*.ckpt",), "a training checkpoint", "save its model with save_pretrained"),
    (
        ("model-*-of-*.safetensors",),
        "shards without their index",
        "put model.safetensors.index.json back, or save the model again with save_pretrained",
    ),
    (("adapter_model*",), "an adapter without its configuration", f"put {ADAPTER} back and merge it into its model"),
    (
        ("*.safetensors",),
        "safetensors under another name",
        "rename a single file to model.safetensors, or save the model again with save_pretrained",
    ),
)


def no_safetensors(folder: Path) -> str:
    """Return the predicate of a message about a directory without transformers' safetensors, with a remedy."""
    if reason := _broken_link(folder) or _format_of(folder):
        return f"has no model.safetensors but {reason}"
    return "has no weights, neither model.safetensors nor an index with shards: copy them, or save the model again"


def no_configuration(folder: Path) -> str:
    """Return the predicate of a message about a directory without config.json, with a remedy."""
    if (folder / ADAPTER).is_file():
        return adapter_without_model(folder)
    inner = [path for depth in ("*", "*/*") for path in folder.glob(f"{depth}/config.json")]
    if inner:
        newest = max(inner, key=lambda path: path.stat().st_mtime).parent
        choice = f" (the newest of {len(inner)})" if len(inner) > 1 else ""
        return f"has no config.json, but a directory in it does: give {str(newest)!r}{choice}"
    if (folder / "config.json").exists():
        return "has a config.json that is not a regular file: replace it by the file itself"
    if reason := _broken_link(folder) or _format_of(folder):
        return f"has no config.json but {reason}"
    return "has no config.json, so it is not a checkpoint: give the directory that save_pretrained wrote"


def adapter_without_model(folder: Path) -> str:
    """Return the predicate of a message about the directory of a PEFT adapter, with the commands that merge it."""
    try:
        base = read_settings(folder / ADAPTER).get("base_model_name_or_path")
    except (OSError, WeightsError, RecursionError):
        base = None
    base = base if base and isinstance(base, str) else _UNNAMED
    if (folder / "config.json").is_file() and any(folder.glob("model*.safetensors")):
        return (
            f"has a PEFT adapter ({ADAPTER}) beside the weights of a model, and transformers would apply it: move "
            f"adapter_* out of the directory to measure the model alone, or {_merging(str(folder), str(folder))}"
        )
    target = f"for {base!r}" if base != _UNNAMED else f"for a model that it does not name ({_UNNAMED} below)"
    return f"is a PEFT adapter ({ADAPTER}) {target} and not a complete model: {_merging(base, str(folder))}"


def original_format(settings: dict[str, Any]) -> str:
    """Return the predicate of a message about a config.json for another program than transformers, or "".

    LLaVA's own code has the multimodal settings `mm_*` in the place of `vision_config`.
    """
    names = sorted(name for name in settings if name.startswith("mm_"))
    if not names or "vision_config" in settings:
        return ""
    return (
        f"is in the format of LLaVA's own code (config.json has {names[0]} and no vision_config): take the version for "
        "transformers, as published by llava-hf, or convert it with convert_llava_weights_to_hf.py of transformers"
    )


def _broken_link(folder: Path) -> str:
    """Return a description of the broken links in a directory, with a remedy; "" if there are none."""
    links = sorted(path for path in folder.iterdir() if path.is_symlink() and not path.exists())
    if not links:
        return ""
    return (
        f"links to missing files (first {links[0].name} to {str(links[0].readlink())!r}, {len(links)} in "
        "all): copy the files themselves from the hub's cache (cp -rL)"
    )


def _merging(base: str, adapter: str) -> str:
    return (
        f"merge them and give the result: from transformers import {_CLASSES}; from peft import PeftModel; "
        f"PeftModel.from_pretrained(M.from_pretrained({base!r}), {adapter!r}).merge_and_unload().{_NEW}; "
        f"P.from_pretrained({base!r}).{_NEW}"
    )


def _format_of(folder: Path) -> str:
    """Return the first format whose files are in the directory, with an example and the remedy; "" if there is none."""
    for patterns, form, remedy in _FORMATS:
        for pattern in patterns:
            if name := min((path.name for path in folder.glob(pattern)), default=""):
                return f"{form} ({name}): {remedy.replace('FOLDER', str(folder))}"
    return ""
