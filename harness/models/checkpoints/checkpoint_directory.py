"""Checks that a checkpoint directory holds everything that is loaded, and that its model can be measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import PhaseError
from harness.models.checkpoints.configuration_bounds import refuse_numbers
from harness.models.checkpoints.foreign_formats import ADAPTER, adapter_without_model, original_format
from harness.models.checkpoints.named_files import is_plain, names_files, refuse_named_files
from harness.models.checkpoints.processor_parts import refuse_without_processor
from harness.models.checkpoints.readable_files import (
    read_configuration,
    read_settings,
    readable_files,
    refuse_unreadable,
)
from harness.models.checkpoints.weight_files import refuse_weight_files
from harness.models.kinds import ENCODER_DECODER, kind_of
from harness.models.weights_error import WeightsError

_INDEX = ".safetensors.index.json"
# Settings in which a repository name would make transformers fetch and run native code.
_KERNELS = ("attn_implementation", "experts_implementation")
_MAX_NAMED_FILES = 5
_MOST_SHARDS = 10_000
# The beginning of a git-lfs file whose contents were not fetched.
_POINTER = b"version https://git-lfs"


def refuse_foreign(folder: Path, source: str) -> None:
    """Raise unless all files that are loaded with a checkpoint are in its directory.

    Raises:
        WeightsError: a file is not regular, too large, a link out of the directory, a git-lfs pointer or invalid JSON;
            an index or setting names weights elsewhere or in another format than safetensors; the directory is an
            adapter or in the format of another program; or a configuration has impossible numbers or requests code
            from another repository.
        OSError, RecursionError: a file cannot be read.
    """
    refuse_unreadable(folder, source)
    readable = list(readable_files(folder))
    pointers = [path.name for path in readable if _is_pointer(path)]
    if pointers:
        raise WeightsError(
            f"the checkpoint {source} has {len(pointers)} git-lfs pointers in the place of files, first "
            f"{pointers[0]!r}: run `git lfs pull` in {folder}"
        )
    if (folder / ADAPTER).is_file():
        raise WeightsError(f"the checkpoint {source} {adapter_without_model(folder)}")
    if problem := original_format(read_configuration(folder)):
        raise WeightsError(f"the checkpoint {source} {problem}")
    for index in (path for path in readable if path.name.endswith(_INDEX)):
        weights = read_settings(index).get("weight_map")
        shards = {str(name) for name in weights.values()} if isinstance(weights, dict) else set()
        if len(shards) > _MOST_SHARDS:
            raise WeightsError(
                f"the checkpoint {source} has an index {index.name} of {len(shards):,} files, but at most "
                f"{_MOST_SHARDS:,} are read: save it again with save_pretrained"
            )
        for shard in sorted(shards):
            if not is_plain(shard) or not shard.endswith(".safetensors"):
                raise WeightsError(
                    f"the checkpoint {source} has an index {index.name} that takes weights from {shard!r}: only "
                    "safetensors in its own directory are read; save it again with save_pretrained"
                )
    for path in (path for path in readable if path.name.endswith("config.json") or names_files(path)):
        settings = read_settings(path)
        if names_files(path):
            refuse_named_files(settings, path, source)
        if path == folder / "config.json":
            refuse_numbers(settings, source)
        for key, value in _settings(settings):
            if key.lstrip("_").removesuffix("_internal") in _KERNELS and "/" in value:
                raise WeightsError(
                    f"the checkpoint {source} requests in {path.name} {key} {value!r}, code from another repository: "
                    f"remove {key} from the file"
                )
            if key == "auto_map" and "--" in value:
                raise WeightsError(
                    f"the checkpoint {source} requests in {path.name} {value!r}, code from another repository, which "
                    f"is never fetched: read that code, put it beside {path.name} and write {value.split('--')[-1]!r}"
                )


def code_files(folder: Path) -> str:
    """Return the Python files of a checkpoint, for messages."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))
    others = f" and {len(names) - _MAX_NAMED_FILES} more" if len(names) > _MAX_NAMED_FILES else ""
    return ", ".join(names[:_MAX_NAMED_FILES]) + others or "no Python file is present"


def _is_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER


def _settings(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield each text in a configuration with its key; texts nested in `auto_map` have that key."""
    if isinstance(content, dict):
        for name, value in content.items():
            inherited = key if key == "auto_map" or key.lstrip("_") in _KERNELS else name
            yield from _settings(value, inherited)
    elif isinstance(content, list):
        for value in content:
            yield from _settings(value, key)
    elif isinstance(content, str):
        yield key, content


def directory_problem(folder: Path, source: str, *, unused: bool) -> str | None:
    """Return why the files of a checkpoint directory cannot be loaded, with the remedy; None if nothing is known.

    `unused` is True if the user allows weights that are not used.
    """
    try:
        refuse_foreign(folder, source)
        # First, because no remedy helps if the type cannot be measured.
        if problem := _type_problem(folder, source):
            return problem
        refuse_without_processor(folder, source)
        refuse_weight_files(folder, source, unused=unused)
    except PhaseError as error:
        return str(error)
    except (OSError, RecursionError):  # Loading reports it with the name of the file.
        return None
    return None


def _type_problem(folder: Path, source: str) -> str:
    """Return why the model type in config.json cannot be measured; empty if it can be or is not named."""
    settings = read_configuration(folder)
    model_type = str(settings.get("model_type", ""))
    kind = kind_of(model_type)
    if kind.refused:
        return f"the checkpoint {source} has the type {model_type}, which cannot be measured: {kind.reason}"
    encoder = settings.get("is_encoder_decoder") is True or settings.get("use_decoder_only_language_model") is False
    return f"the checkpoint {source} {ENCODER_DECODER}" if encoder else ""
