"""Settings that a processor takes over from its model: refused where they are missing or give another token count."""

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
# The strategy that leaves the first of the vision tower's tokens out.
_WITHOUT_FIRST = "default"
_FILES = ("processor_config.json", "preprocessor_config.json")
_TOKENIZER = ("tokenizer.json", "vocab.*", "*.model", "*.spm", "*.tiktoken", "*.vocab", "tekken.json", "bpe.codes")
# The first byte of a model of SentencePiece, which is no text as the other tokenizers under such names are.
_SENTENCEPIECE = b"\n"


def refuse_without_processor(folder: Path, source: str) -> None:
    """Assert that a directory has the files of a processor.

    Raises:
        WeightsError: it has no settings of an image processor, or no tokenizer, or one that needs a package which is
            not installed.
    """
    lacking = []
    whole, apart = (read_settings(path) if (path := folder / name).is_file() else {} for name in _FILES)
    # The parts of a processor are nested in its one file.
    if not apart and not any(isinstance(part, dict) and part for part in whole.values()):
        lacking.append(f"image processor ({' or '.join(_FILES)})")
    tokenizers = [path for name in _TOKENIZER for path in folder.glob(name)]
    if not tokenizers:
        lacking.append("tokenizer (tokenizer.json)")
    if lacking:
        raise WeightsError(
            f"the checkpoint {source} has no {' and no '.join(lacking)}: copy the processor's files of the model "
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
    """Assert that a processor makes as many image tokens as its model has image features, by settings alone.

    A processor that does not count patches itself is passed over. The headers of the model's tensors tell how many
    positions the vision tower has.

    Raises:
        WeightsError: a setting is missing, or the counts differ; the message names the file and the values to write.
    """
    vision = getattr(config, "vision_config", None)
    patch, side = getattr(vision, _PATCH, None), getattr(vision, "image_size", None)
    grid = side // patch if isinstance(side, int) and isinstance(patch, int) and patch > 0 else None
    taken = {
        _PATCH: patch if isinstance(patch, int) else None,
        _STRATEGY: getattr(config, _STRATEGY, None),
        _ADDITIONAL: _additional_tokens(headers, grid) if grid else None,
        "num_query_tokens": getattr(config, "num_query_tokens", None),
        "num_image_tokens": grid and grid * grid,
    }
    right = {name: value for name, value in taken.items() if value is not None and hasattr(processor, name)}
    own = {name: getattr(processor, name) for name in right}
    counted = {_PATCH, _STRATEGY, _ADDITIONAL} <= own.keys()
    # A number that is written as text counts nothing.
    typed = {name for name, value in own.items() if isinstance(value, type(right[name]))}
    if typed == own.keys() and (not counted or (own[_PATCH] == right[_PATCH] and _surplus(own) == _surplus(right))):
        return
    wrong = {name: value for name, value in own.items() if name not in typed or (counted and value != right[name])}
    stated = ", ".join(f"{name} {value!r}" if value is not None else f"no {name}" for name, value in wrong.items())
    values = ", ".join(f'"{name}": {json.dumps(right[name])}' for name in wrong)
    raise WeightsError(
        f"the processor of the checkpoint {source} has {stated}, so it would not make as many image tokens as the "
        f"model has image features: write {values} into {folder / _FILES[0]}, as config.json and the weights have them"
    )


def _surplus(settings: Mapping[str, Any]) -> int:
    """Return how many image tokens there are beyond one for each patch."""
    return int(settings.get(_ADDITIONAL) or 0) - int(settings[_STRATEGY] == _WITHOUT_FIRST)


def _additional_tokens(headers: Mapping[str, StoredTensor], side: int) -> int | None:
    """Return how many positions the vision tower has beyond its grid of side x side patches; None if it is unclear."""
    counts = {
        tensor.shape[0] - side * side
        for name, tensor in headers.items()
        if "vision" in name and name.endswith("position_embedding.weight") and len(tensor.shape) == 2
    }
    return counts.pop() if len(counts) == 1 and min(counts) in (0, 1) else None
