"""The check of a checkpoint directory by its files alone: all that is loaded lies in it, and can be measured."""

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
# Where the name of a repository on the hub would have its native code fetched and run.
_KERNELS = ("attn_implementation", "experts_implementation")
_FIRST = 5
_MOST_SHARDS = 10_000
# A file of git-lfs begins with this as long as its contents were not fetched.
_POINTER = b"version https://git-lfs"


def refuse_foreign(folder: Path, source: str) -> None:
    """Assert that everything that is loaded with a checkpoint lies in its directory.

    Raises:
        WeightsError: a file is no regular one, too large, a link out of the directory, a pointer of git-lfs or no JSON,
            an index or a setting names weights elsewhere or of another kind than safetensors, the directory is an
            adapter of another checkpoint or in the format of another program, or a configuration has numbers of no
            model, or asks for code from another repository.
        OSError, RecursionError: a file cannot be read.
    """
    refuse_unreadable(folder, source)
    readable = list(readable_files(folder))
    pointers = [path.name for path in readable if _is_pointer(path)]
    if pointers:
        raise WeightsError(
            f"the checkpoint {source} holds {len(pointers)} pointers of git-lfs in the place of files, first "
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
                f"the checkpoint {source} has an index {index.name} of {len(shards):,} files, and more than "
                f"{_MOST_SHARDS:,} are not read: save it anew with save_pretrained"
            )
        for shard in sorted(shards):
            if not is_plain(shard) or not shard.endswith(".safetensors"):
                raise WeightsError(
                    f"the checkpoint {source} has an index {index.name} that takes weights from {shard!r}: only "
                    "safetensors in its own directory are read; save it anew with save_pretrained"
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
                    f"the checkpoint {source} asks in {path.name} for {key} {value!r}, code from another repository: "
                    f"take {key} out of the file"
                )
            if key == "auto_map" and "--" in value:
                raise WeightsError(
                    f"the checkpoint {source} asks in {path.name} for {value!r}, code from another repository: it is "
                    f"never fetched; read that code, put it beside {path.name} and write {value.split('--')[-1]!r}"
                )


def code_files(folder: Path) -> str:
    """Return the Python files of a checkpoint, for messages."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))
    more = f" and {len(names) - _FIRST} more" if len(names) > _FIRST else ""
    return ", ".join(names[:_FIRST]) + more or "no file of it is here"


def _is_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER


def _settings(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a configuration with the key it stands under; those inside of an `auto_map` count as its own."""
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
        # In front of what can be mended: no remedy helps a type that cannot be measured.
        if problem := _type_problem(folder, source):
            return problem
        refuse_without_processor(folder, source)
        refuse_weight_files(folder, source, unused=unused)
    except PhaseError as error:
        return str(error)
    except (OSError, RecursionError):  # Loading says it with the name of the file.
        return None
    return None


def _type_problem(folder: Path, source: str) -> str:
    """Return why no model of the type in config.json can be measured; empty if it can be, or none is named."""
    settings = read_configuration(folder)
    model_type = str(settings.get("model_type", ""))
    kind = kind_of(model_type)
    if kind.refused:
        return f"the checkpoint {source} is of the type {model_type}, which cannot be measured: {kind.reason}"
    encoder = settings.get("is_encoder_decoder") is True or settings.get("use_decoder_only_language_model") is False
    return f"the checkpoint {source} {ENCODER_DECODER}" if encoder else ""
