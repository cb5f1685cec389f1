"""The safetensors files of a checkpoint directory: the set that is read, its headers, and unused files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from harness.errors import printable
from harness.interface import option_text
from harness.models.checkpoints.configuration_bounds import refuse_more_than_stored
from harness.models.checkpoints.foreign_formats import no_safetensors
from harness.models.checkpoints.named_files import NAMED_WEIGHTS, is_weights
from harness.models.checkpoints.readable_files import read_configuration, read_settings
from harness.models.library_messages import printable_cause
from harness.models.weights_error import WeightsError

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
# The number of a shard, the only difference between the names of a set.
_SHARD = re.compile(r"\d+(?=-of-\d+\.safetensors$)")
# Files of torch's distributed training. transformers prefers them to all others and reads every file beside them.
_DISTRIBUTED = "shard-*-model-*-of-*.safetensors"
_PIECE, _MOST_ZEROS = 1 << 20, 1 << 30  # bytes
_FLOATING = ("F64", "F32", "F16", "BF16")
# Storage widths in bytes; smaller types count as one byte.
_WIDTHS = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """The header of one tensor: storage type in safetensors' notation, shape, and the name of its file."""

    dtype: str
    shape: tuple[int, ...]
    file: str

    @property
    def floating(self) -> bool:
        """True if the values are floating point with 16 bits or more, so that loading converts them."""
        return self.dtype in _FLOATING

    def size(self, width: int = 0) -> int:
        """Return the bytes that the tensor takes.

        Args:
            width: bytes per value of a floating tensor after loading; 0 for the width in the file.
        """
        return prod(self.shape) * (width if width and self.floating else _WIDTHS.get(self.dtype, 1))


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files that transformers reads, sorted by name; a named file may be missing.

    Raises:
        WeightsError: the index or config.json is not valid JSON.
    """
    name = read_configuration(folder).get(NAMED_WEIGHTS)
    if not is_weights(name):
        name = next((name for name in (_SINGLE, _INDEX) if (folder / name).is_file()), None)
    if name is None:
        return []
    if not name.endswith(".json") or not (folder / name).is_file():
        return [folder / name]
    shards = read_settings(folder / name).get("weight_map")
    return [folder / shard for shard in sorted(set(map(str, shards.values())))] if isinstance(shards, dict) else []


def refuse_weight_files(folder: Path, source: str, *, unused: bool = False) -> Mapping[str, StoredTensor]:
    """Return the headers of all tensors by name, if a directory has exactly one complete set of safetensors.

    No weight is read. `unused` is True if the user allows weights that are not used.

    Raises:
        WeightsError: there are no safetensors; a shard is missing, truncated or not in the index; a tensor is empty or
            stored twice; there are too few tensors for config.json; or there are other weight files.
    """
    if shard := min((path.name for path in folder.glob(_DISTRIBUTED)), default=""):
        raise WeightsError(
            f"the checkpoint {source} has shards of a distributed training ({shard}), which transformers prefers "
            "to all other weights: load them in the training program, and save the model with save_pretrained"
        )
    files = weight_files(folder)
    if not files:
        raise WeightsError(f"the checkpoint {source} {no_safetensors(folder)}")
    if missing := [file.name for file in files if not file.is_file()]:
        raise WeightsError(
            f"the checkpoint {source} lacks {len(missing)} of the {len(files)} weight files that its index or "
            f"config.json names, first {missing[0]!r}: copy or fetch them again, or save the model again"
        )
    headers = _headers(files, source)
    empty = [name for name, tensor in headers.items() if tensor.floating and not prod(tensor.shape)]
    if empty:
        raise WeightsError(
            f"the checkpoint {source} has weights without values ({printable(empty[0])}, {len(empty)} in all), as left "
            "by DeepSpeed's ZeRO-3 if each process saves its own share: run zero_to_fp32.py in the "
            "training's output directory, or train with stage3_gather_16bit_weights_on_model_save, and give the "
            "result"
        )
    refuse_more_than_stored(read_configuration(folder), len(headers), source)
    others = unused_files(folder, files)
    sets = {_SHARD.sub("", file.name) for file in files if _SHARD.search(file.name)}
    if shards := [file.name for file in others if _SHARD.sub("", file.name) in sets]:
        raise WeightsError(
            f"the checkpoint {source} has an index without the weights of {shards[0]}, {len(shards)} in all: copy the "
            "complete index again, or save the model again"
        )
    if others and not unused:
        raise WeightsError(
            f"the checkpoint {source} has two sets of weights: transformers reads {_listed(files)} and ignores "
            f"{_listed(others)}; move the unwanted set out of the directory, or add "
            f"{option_text('allow_unused_weights', source)}"
        )
    return headers


def unused_files(folder: Path, files: list[Path]) -> list[Path]:
    """Return the safetensors files of a directory that are not in `files`, sorted by name."""
    return sorted(path for path in folder.glob("*.safetensors") if path not in files)


def _headers(files: list[Path], source: str) -> dict[str, StoredTensor]:
    from safetensors import SafetensorError, safe_open

    headers: dict[str, StoredTensor] = {}
    for file in files:
        try:
            with safe_open(file, framework="np") as tensors:
                names: list[str] = tensors.keys()
                for name in names:
                    tensor_slice: Any = tensors.get_slice(name)
                    if name in headers:
                        raise WeightsError(
                            f"the checkpoint {source} has {printable(name)} twice, in {headers[name].file} and in "
                            f"{file.name}: its index mixes two sets of weights; save the model again into an empty "
                            "directory"
                        )
                    headers[name] = StoredTensor(tensor_slice.get_dtype(), tuple(tensor_slice.get_shape()), file.name)
        except SafetensorError as error:
            raise WeightsError(
                f"the weight file {file} is damaged or truncated ({file.stat().st_size} bytes, "
                f"{printable(str(error), 100)}): copy or fetch it again"
            ) from printable_cause(error)
        if name := _zero_at_the_end(file):
            raise WeightsError(
                f"the weight file {file} ends in zeros (in {printable(name)}), as left by an interrupted copy "
                "whose full size was reserved first: copy or fetch it again"
            )
    return headers


def _zero_at_the_end(file: Path) -> str:
    """Return the name of the last matrix of a weight file if its second half is zero, else ""."""
    with file.open("rb") as content:
        start = int.from_bytes(content.read(8), "little")
        header = json.loads(content.read(start))
        header.pop("__metadata__", None)
        filled = [
            (row["data_offsets"], name) for name, row in header.items() if len(row["shape"]) > 1 and all(row["shape"])
        ]
        (first, end), name = max(filled, default=((0, 0), ""))
        first = (first + end) // 2
        # A sparse file may have any number of zeros.
        end = min(end, first + _MOST_ZEROS)
        content.seek(8 + start + first)
        # Piece by piece, because the first piece usually has a value other than zero.
        while first < end:
            piece = content.read(min(_PIECE, end - first))
            if piece.strip(b"\0") or not piece:
                return ""
            first += len(piece)
    return str(name)


def _listed(files: list[Path]) -> str:
    others = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{files[0].name}{others}"
