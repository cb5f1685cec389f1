"""Processors that are built and saved, or loaded, and read on the same pictures and instructions."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.releases.processors.built_processor import (
    MissingLibraryError,
    ProcessorError,
    build_processor,
    find_processor_class,
)
from harness.releases.processors.byte_tokenizer import BYTES
from harness.releases.processors.processor_comparison import compare_processors
from harness.releases.processors.processor_fields import PLACEHOLDERS
from harness.releases.processors.processor_pictures import CASES, draw_picture
from harness.releases.processors.processor_readings import CaseReading, PixelReading, ProcessorReadings
from harness.releases.release_outputs import error_sentence

FORM_FILE = "prompt_form.json"
_FIRST_CASE = "square-short"
_MOST_SIZES = 64
# Arrays with one entry per token repeat the length of the ids.
_TOKEN_ARRAYS = ("input_ids", "attention_mask")


@dataclass(frozen=True, slots=True)
class PromptForm:
    """The form in which a processor takes a prompt; saved beside the processor so that another release uses it too.

    `placeholder` is the text that stands for a picture. `nested` is True if each prompt has its own list of pictures.
    `image_token_id` is the token at each image feature, negative if there is none.
    """

    model_type: str
    placeholder: str
    nested: bool
    image_token_id: int = -1


def make_processor(model_type: str, directory: Path) -> ProcessorReadings:
    """Build a type's processor, save it to the directory, load it from there and return its readings.

    Raises:
        ProcessorError: the processor cannot be built, saved or loaded here, or it reads no picture.
            MissingLibraryError, a kind of it, if a library is not installed.
    """
    with _quiet():
        processor, remark = build_processor(model_type)
        form = _find_form(processor, model_type)
        built = _readings(processor, form, [_FIRST_CASE])
        directory.mkdir(parents=True, exist_ok=True)
        try:
            processor.save_pretrained(directory)
        except Exception as error:
            raise ProcessorError(f"it cannot be saved: {error_sentence(error)}") from error
        (directory / FORM_FILE).write_text(json.dumps(asdict(form)), encoding="utf-8")
    readings = read_processor(directory)
    if not readings.cases:
        raise MissingLibraryError(readings.remark)
    trip = compare_processors(built, replace(readings, cases={_FIRST_CASE: readings.cases[_FIRST_CASE]}))
    changed = f"not the same after its own round trip: {trip.sentence}" if trip.changes else ""
    return replace(readings, remark="; ".join(filter(None, (remark, readings.remark, changed))))


def read_processor(directory: Path) -> ProcessorReadings:
    """Load the processor that `make_processor` saved, in this or another release, and return its readings.

    If a library that the processor requires is not installed here, the readings have no cases, and their remark is the
    reason; nothing is then known about the processor.

    Raises:
        ProcessorError: transformers cannot load the processor although its libraries are installed.
    """
    form = PromptForm(**json.loads((directory / FORM_FILE).read_text(encoding="utf-8")))
    with _quiet():
        try:
            processor, remark = _load(directory, form.model_type)
        except MissingLibraryError as error:
            return ProcessorReadings("", "", "", {}, f"not read, a library is missing: {error}")
        return replace(_readings(processor, form, CASES), remark=remark)


def _load(directory: Path, model_type: str) -> tuple[Any, str]:
    """Return the saved processor, and a remark if AutoProcessor does not load it but its class does."""
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(directory, local_files_only=True)
        if hasattr(processor, "tokenizer"):
            return processor, ""
        problem = f"returns a {type(processor).__name__}"
    # Upstream raises errors of many kinds here; the class itself may still load.
    except Exception as error:
        problem = f"fails: {error_sentence(error)}"
        _require_libraries(model_type)
    try:
        processor_class: Any = find_processor_class(model_type)[0]
        processor = processor_class.from_pretrained(directory, local_files_only=True)
    except Exception as error:
        raise ProcessorError(f"AutoProcessor {problem}") from error
    return processor, f"AutoProcessor {problem}; loaded by its class {processor_class.__name__}"


def _require_libraries(model_type: str) -> None:
    """Raise MissingLibraryError if a library is missing, which some releases report as an unknown class."""
    try:
        build_processor(model_type)
    except MissingLibraryError:
        raise
    except ProcessorError:
        return


def _find_form(processor: Any, model_type: str) -> PromptForm:
    """Return the form with which the processor puts the fewest, but at least two, image tokens; else any form it takes.

    A placeholder that a processor leaves in the text, beside the tokens it inserts itself, adds a token.
    """
    accepted: dict[int, PromptForm] = {}
    problems: dict[str, None] = {}
    for placeholder in dict.fromkeys(_placeholders(processor)):
        for nested in (True, False):
            form = PromptForm(model_type, placeholder, nested)
            try:
                token, count = _most_common_special(processor, _call(processor, form, *CASES[_FIRST_CASE]))
            # Upstream refuses a form with errors of many kinds.
            except Exception as error:
                problems.setdefault(error_sentence(error))
                continue
            accepted.setdefault(count, replace(form, image_token_id=token))
            break
    if not accepted:
        raise ProcessorError(f"it reads no picture: {'; '.join([*problems][:2])}")
    several = [count for count in accepted if count > 1]
    return accepted[min(several) if several else next(iter(accepted))]


def _most_common_special(processor: Any, outputs: Mapping[str, Any]) -> tuple[int, int]:
    """Return the id and the count of the most common special token that is no BOS, EOS or padding; else -1 and 0."""
    _pixels(outputs)
    standard = {getattr(processor.tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad", "unk")}
    special = Counter(identity for identity in _token_ids(outputs) if identity >= BYTES and identity not in standard)
    return max(special.items(), key=lambda item: item[1], default=(-1, 0))


def _placeholders(processor: Any) -> Iterator[str]:
    for names in PLACEHOLDERS:
        tokens = [getattr(processor, name, None) or getattr(processor.tokenizer, name, None) for name in names]
        if None not in tokens:
            yield "".join(map(str, tokens))


def _readings(processor: Any, form: PromptForm, cases: Sequence[str] | Mapping[str, Any]) -> ProcessorReadings:
    image_processor = getattr(processor, "image_processor", None)
    return ProcessorReadings(
        processor_class=type(processor).__name__,
        image_processor_class=type(image_processor).__name__ if image_processor is not None else "",
        backend=_backend(type(image_processor)) if image_processor is not None else "",
        cases={case: _read_case(processor, form, *CASES[case]) for case in cases},
    )


def _backend(image_processor_class: type) -> str:
    """Return `torchvision` or `pil`, by the base classes that releases have used for each."""
    names = [parent.__name__ for parent in image_processor_class.__mro__]
    return "torchvision" if any("Torchvision" in name or name.endswith("Fast") for name in names) else "pil"


def _read_case(processor: Any, form: PromptForm, pictures: Sequence[str], instruction: str) -> CaseReading:
    try:
        outputs = _call(processor, form, pictures, instruction)
        ids = _token_ids(outputs)
        name, pixels = _pixels(outputs)
        return CaseReading(
            token_ids=tuple(ids),
            image_tokens=ids.count(form.image_token_id),
            pixels=PixelReading.of(name, pixels),
            sizes=_sizes(outputs, len(ids)),
            outputs=tuple(sorted(outputs)),
        )
    # Any error of upstream's code is the reading of this case.
    except Exception as error:
        return CaseReading(error=error_sentence(error))


def _call(processor: Any, form: PromptForm, pictures: Sequence[str], instruction: str) -> dict[str, Any]:
    images: list[Any] = [draw_picture(name) for name in pictures]
    text = f"{form.placeholder * len(images)}{instruction}"
    return dict(processor(images=[images] if form.nested else images, text=[text], return_tensors="pt"))


def _token_ids(outputs: Mapping[str, Any]) -> list[int]:
    """Return the ids; none for processors that read pictures only."""
    return [int(identity) for identity in _as_array(outputs.get("input_ids", ())).reshape(-1)]


def _pixels(outputs: Mapping[str, Any]) -> tuple[str, npt.NDArray[Any]]:
    """Return the name and values of the largest array of real numbers."""
    arrays = {name: _as_array(value) for name, value in outputs.items() if name not in _TOKEN_ARRAYS}
    real = {name: array for name, array in arrays.items() if array.dtype.kind == "f" and array.size}
    name = max(real, key=lambda name: real[name].size, default="")
    if not name:
        raise ValueError(f"The processor returns no pixels but {', '.join(sorted(outputs))}")
    return name, real[name]


def _sizes(outputs: Mapping[str, Any], tokens: int) -> dict[str, Any]:
    arrays = {name: _as_array(value) for name, value in outputs.items() if name not in _TOKEN_ARRAYS}
    return {
        name: array.tolist()
        for name, array in arrays.items()
        if array.dtype.kind in "iub" and array.size <= _MOST_SIZES and array.shape[-1:] != (tokens,)
    }


def _as_array(value: Any) -> npt.NDArray[Any]:
    """Return a tensor, array or nested list as one array; parts of different shapes are joined flat."""
    if hasattr(value, "detach"):
        return np.asarray(value.detach().float().cpu() if value.is_floating_point() else value.cpu())
    if not isinstance(value, (list, tuple)):
        return np.asarray(value)
    parts = [_as_array(part) for part in value]
    if not parts or len({part.shape for part in parts}) == 1:
        return np.asarray(parts)
    return np.concatenate([part.reshape(-1) for part in parts])


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings of transformers, which repeat for every type."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
