"""Checks that a processor is complete and has the model settings that determine the number of image tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.models.checkpoints.readable_files import read_settings
from harness.models.checkpoints.weight_files import StoredTensor
from harness.models.weights_error import WeightsError

_PATCH, _STRATEGY, _ADDITIONAL = "patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"
# The strategy that drops the first token of the vision tower.
_WITHOUT_FIRST = "default"
_FILES = ("processor_config.json", "preprocessor_config.json")
_TOKENIZER = ("tokenizer.json", "vocab.*", "*.model", "*.spm", "*.tiktoken", "*.vocab", "tekken.json", "bpe.codes")
# The first byte of a SentencePiece model; other tokenizers with such file names are text.
_SENTENCEPIECE = b"\n"


def refuse_without_processor(folder: Path, source: str) -> None:
    """Raise unless a directory has the files of a processor.

    Raises:
        WeightsError: it has no image processor settings or no tokenizer, or the tokenizer needs a package which is not
            installed.
    """
    missing = []
    combined, separate = (read_settings(path) if (path := folder / name).is_file() else {} for name in _FILES)
    # processor_config.json nests the settings of the parts.
    if not separate and not any(isinstance(part, dict) and part for part in combined.values()):
        missing.append(f"image processor ({' or '.join(_FILES)})")
    tokenizers = [path for name in _TOKENIZER for path in folder.glob(name)]
    if not tokenizers:
        missing.append("tokenizer (tokenizer.json)")
    if missing:
        raise WeightsError(
            f"the checkpoint {source} has no {' and no '.join(missing)}: copy the processor's files from the model "
            "that it was trained from, in Python: from transformers import AutoProcessor; "
            f"AutoProcessor.from_pretrained('BASE').save_pretrained({str(folder)!r})"
        )
    pieces = [path for path in tokenizers if path.suffix in (".model", ".spm")]
    if pieces == tokenizers and not find_spec("sentencepiece") and pieces[0].read_bytes()[:1] == _SENTENCEPIECE:
        raise WeightsError(
            f"the checkpoint {source} needs a package that is not installed: its tokenizer ({pieces[0].name}) is read "
            "by sentencepiece; run `pip install sentencepiece protobuf` and try again"
        )


def refuse_incomplete_processor(
    processor: Any, config: Any, folder: Path, source: str, headers: Mapping[str, StoredTensor]
) -> None:
    """Raise unless a processor makes as many image tokens as its model has image features, from settings alone.

    A processor that does not count patches passes. The headers of the model's tensors show the number of positions of
    the vision tower.

    Raises:
        WeightsError: a setting is missing, or the counts differ; the message names the file and the values to write.
    """
    vision = getattr(config, "vision_config", None)
    patch, side = getattr(vision, _PATCH, None), getattr(vision, "image_size", None)
    grid = side // patch if isinstance(side, int) and isinstance(patch, int) and patch > 0 else None
    of_model = {
        _PATCH: patch if isinstance(patch, int) else None,
        _STRATEGY: getattr(config, _STRATEGY, None),
        _ADDITIONAL: _additional_tokens(headers, grid) if grid else None,
        "num_query_tokens": getattr(config, "num_query_tokens", None),
        "num_image_tokens": grid and grid * grid,
    }
    expected = {name: value for name, value in of_model.items() if value is not None and hasattr(processor, name)}
    actual = {name: getattr(processor, name) for name in expected}
    counted = {_PATCH, _STRATEGY, _ADDITIONAL} <= actual.keys()
    # A number written as text is wrong too.
    right_type = {name for name, value in actual.items() if isinstance(value, type(expected[name]))}
    if right_type == actual.keys() and (
        not counted or (actual[_PATCH] == expected[_PATCH] and _surplus(actual) == _surplus(expected))
    ):
        return
    wrong = {
        name: value for name, value in actual.items() if name not in right_type or (counted and value != expected[name])
    }
    description = ", ".join(f"{name} {value!r}" if value is not None else f"no {name}" for name, value in wrong.items())
    values = ", ".join(f'"{name}": {json.dumps(expected[name])}' for name in wrong)
    raise WeightsError(
        f"the processor of the checkpoint {source} has {description}, so its image tokens would differ in number from "
        f"the model's image features: write {values} into {folder / _FILES[0]}, to match config.json and the weights"
    )


def _surplus(settings: Mapping[str, Any]) -> int:
    """Return the number of image tokens beyond one for each patch."""
    return int(settings.get(_ADDITIONAL) or 0) - int(settings[_STRATEGY] == _WITHOUT_FIRST)


def _additional_tokens(headers: Mapping[str, StoredTensor], side: int) -> int | None:
    """Return the number of positions of the vision tower beyond its side x side patches; None if it is unclear."""
    counts = {
        tensor.shape[0] - side * side
        for name, tensor in headers.items()
        if "vision" in name and name.endswith("position_embedding.weight") and len(tensor.shape) == 2
    }
    return counts.pop() if len(counts) == 1 and min(counts) in (0, 1) else None
