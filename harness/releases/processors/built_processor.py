"""Construction of a type's processor from the classes that transformers maps to it, without a hub."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.errors import PhaseError
from harness.releases.processors.byte_tokenizer import (
    byte_tokenizer,
    optional_tokens_in_source,
    special_tokens_in_source,
)
from harness.releases.processors.processor_fields import (
    IMAGE_PROCESSOR_ATTRIBUTES,
    LONGEST_EDGE,
    PLAIN_TEMPLATE,
    PROCESSOR_ARGUMENTS,
    SMALL_FIELDS,
)
from harness.releases.release_outputs import error_sentence

_TOKEN_ATTRIBUTE = re.compile(r"attribute '?(\w+_token)(?:_id)?\b")
_PART_ATTRIBUTE = re.compile(r"attribute '?(\w+)\b|`(\w+)` attribute")
_PART = re.compile(r"(\w+_)?(image_processor|video_processor|feature_extractor|audio_processor|tokenizer)")
_MAPPINGS = {
    "image_processor": ("image_processing_auto", "IMAGE_PROCESSOR_MAPPING_NAMES"),
    "video_processor": ("video_processing_auto", "VIDEO_PROCESSOR_MAPPING_NAMES"),
    "feature_extractor": ("feature_extraction_auto", "FEATURE_EXTRACTOR_MAPPING_NAMES"),
    "audio_processor": ("feature_extraction_auto", "FEATURE_EXTRACTOR_MAPPING_NAMES"),
}


class ProcessorError(PhaseError):
    """A type's processor cannot be built, loaded or read here; the message is upstream's sentence."""


class MissingLibraryError(ProcessorError):
    """A type's processor requires a library that is not installed; the message is upstream's sentence."""


def build_processor(model_type: str) -> tuple[Any, str]:
    """Return a new processor of a type, and a remark on its class, empty if transformers maps the class to the type.

    Raises:
        MissingLibraryError: a library is not installed.
        ProcessorError: transformers has no processor for the type, or its own code fails.
    """
    processor_class, remark = find_processor_class(model_type)
    try:
        parts = {
            name: _part(match[2], model_type, processor_class.__name__)
            for name in inspect.signature(processor_class).parameters
            if (match := _PART.fullmatch(name)) and match[2] != "tokenizer"
        }
        return _with_tokenizer(processor_class, parts), remark
    except ProcessorError:
        raise
    except ImportError as error:
        raise MissingLibraryError(error_sentence(error)) from error
    # Any other error of upstream's constructors is the answer for this type.
    except Exception as error:
        raise ProcessorError(error_sentence(error)) from error


def find_processor_class(model_type: str) -> tuple[type, str]:
    """Return the processor class of a type and a remark, empty if AutoProcessor knows the class.

    Raises:
        MissingLibraryError: a library that the class requires is not installed.
        ProcessorError: transformers has no processor class for the type.
    """
    import transformers
    from transformers.models.auto.configuration_auto import model_type_to_module_name
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    name = PROCESSOR_MAPPING_NAMES.get(model_type)
    if isinstance(name, str):
        try:
            return getattr(transformers, name), ""
        except ImportError as error:
            raise MissingLibraryError(error_sentence(error.__cause__ or error)) from error
    module_name = model_type_to_module_name(model_type)
    try:
        module = importlib.import_module(f"transformers.models.{module_name}.processing_{module_name}")
    except ImportError as error:
        raise ProcessorError(f"transformers maps no processor to {model_type}") from error
    for value in vars(module).values():
        if isinstance(value, type) and value.__module__ == module.__name__ and hasattr(value, "save_pretrained"):
            return value, f"transformers maps no processor to {model_type}; {value.__name__} is taken by its name"
    raise ProcessorError(f"transformers maps no processor to {model_type}")


def _part(kind: str, model_type: str, processor_name: str) -> Any:
    """Return the default image processor, video processor or feature extractor of a type."""
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    file, mapping = _MAPPINGS[kind]
    classes = getattr(importlib.import_module(f"transformers.models.auto.{file}"), mapping)
    related = [name for name, value in PROCESSOR_MAPPING_NAMES.items() if value == processor_name]
    problem: Exception | None = None
    for name in (name for type_name in (model_type, *related) for name in _class_names(classes.get(type_name))):
        try:
            part_class = getattr(transformers, name)
            return part_class(**_small_fields(part_class()))
        except (ImportError, AttributeError) as error:
            problem = problem or error
    if problem is not None:
        raise problem
    # Without torchvision, releases leave classes out of the mapping.
    part = kind.replace("_", " ")
    raise MissingLibraryError(f"transformers maps no {part} to {model_type} with the installed libraries")


def _class_names(entry: Any) -> Iterator[str]:
    """Yield the class names of a mapping's entry, in the order in which transformers prefers them."""
    if isinstance(entry, Mapping):
        entry = sorted(entry.items(), key=lambda item: item[0] != "torchvision")
        yield from (name for _, name in entry if name)
    elif isinstance(entry, (tuple, list)):
        # Releases before the mapping by backend list the slow class first and prefer the fast one.
        yield from (name for name in reversed(entry) if name)
    elif entry:
        yield entry


def _with_tokenizer(processor_class: Any, parts: Mapping[str, Any]) -> Any:
    """Return the processor with a tokenizer that has each attribute the constructor reads."""
    parameters = inspect.signature(processor_class).parameters
    arguments = {
        name: PROCESSOR_ARGUMENTS[name]
        for name, parameter in parameters.items()
        if name in PROCESSOR_ARGUMENTS and parameter.default in (None, inspect.Parameter.empty)
    }
    tokenizers = [name for name in parameters if name.endswith("tokenizer")]
    tokens = special_tokens_in_source(processor_class)
    attributes = {name: f"<{name}>" for name in optional_tokens_in_source(processor_class)}
    for name, value in IMAGE_PROCESSOR_ATTRIBUTES.items():
        if getattr(parts.get("image_processor"), name, value) is None:
            setattr(parts["image_processor"], name, value)
    while True:
        made = {name: byte_tokenizer(tokens, attributes) for name in tokenizers}
        try:
            processor = processor_class(**parts, **made, **arguments)
            processor.chat_template = processor.chat_template or PLAIN_TEMPLATE
            return processor
        except (AttributeError, ValueError) as error:
            match = _TOKEN_ATTRIBUTE.search(str(error))
            if match is not None and match[1] not in attributes:
                attributes[match[1]] = f"<{match[1]}>"
            elif not _complete_image_processor(parts.get("image_processor"), str(error)):
                raise


def _small_fields(image_processor: Any) -> dict[str, Any]:
    """Return the fields of `SMALL_FIELDS` that the image processor has with larger values, bounded."""
    fields: dict[str, Any] = {}
    for path, bound in SMALL_FIELDS.items():
        name, _, key = path.partition(".")
        value = getattr(image_processor, name, None)
        sizes = {name: value} if not key else dict(value) if value else {}
        number = sizes.get(key or name)
        if isinstance(number, int) and bound < number <= LONGEST_EDGE:
            fields[name] = {**sizes, key: bound} if key else bound
    return fields


def _complete_image_processor(image_processor: Any, message: str) -> bool:
    """Set the attribute that the message misses, as a checkpoint's file would; return True if there is one to set."""
    match = _PART_ATTRIBUTE.search(message)
    name = (match[1] or match[2]) if match else ""
    if name not in IMAGE_PROCESSOR_ATTRIBUTES or hasattr(image_processor, name):
        return False
    setattr(image_processor, name, IMAGE_PROCESSOR_ATTRIBUTES[name])
    return True
