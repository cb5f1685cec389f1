"""Loading of models from a checkpoint: a directory written by `save_pretrained`, or a repository of the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import PhaseError, first_line, printable
from harness.hub import HubError, find_snapshot
from harness.interface import option_text
from harness.models.anatomy import refuse_unmeasurable
from harness.models.checkpoints.checkpoint_directory import code_files, refuse_foreign
from harness.models.checkpoints.processor_parts import refuse_incomplete_processor, refuse_without_processor
from harness.models.checkpoints.readable_files import read_settings, readable_files
from harness.models.checkpoints.weight_files import StoredTensor, refuse_weight_files, unused_files, weight_files
from harness.models.checkpoints.weight_fit import refuse_misfit, refuse_untied, try_weights
from harness.models.kinds import kind_of
from harness.models.library_messages import missing_package, plain_messages, printable_cause
from harness.models.placement import placement_options, remove_with
from harness.models.prompts import template_process
from harness.models.prompts.chat import refuse_endless_template
from harness.models.registry import LoadRequest, ModelEntry
from harness.models.weights_error import WeightsError

# Part of every transformers error about a checkpoint's own code.
_CODE = "trust_remote_code"
# The classes that `auto_map` may assign to a model, in order of preference.
_CLASSES = ("AutoModelForImageTextToText", "AutoModelForVision2Seq", "AutoModelForCausalLM", "AutoModel")
_DEFAULT_ADVICE = (
    "it needs config.json, safetensors and a processor, as save_pretrained of model and processor writes them"
)
# Pairs of (part of an error text, advice); the first match counts.
_ADVICE = (
    (
        "Unrecognized configuration class",
        "it is not a vision-language model of transformers; give the directory of one",
    ),
    ("does not recognize this architecture", "install a newer transformers, or the release that config.json names"),
    (
        "Should have a `model_type` key",
        "copy config.json from the model that it was trained from, which names its type",
    ),
    ("`tiktoken` is required", "run `pip install sentencepiece protobuf tiktoken`, the readers of tokenizers"),
    ("Unrecognized image processor", "copy the processor's files from the model that it was trained from"),
    ("Validation error for field", "write a value of the expected type for that field into config.json"),
    ("quantiz", "correct quantization_config in config.json, or give the weights from before they were quantised"),
)
_LONGEST = 300  # characters of a library's error in our message
# The attention implementations that the probe can read; None lets transformers choose between the two.
_READABLE = (None, "sdpa", "eager")


@plain_messages()
def prepare(entry: ModelEntry, request: LoadRequest) -> tuple[Any, Any]:
    """Return the configuration and processor of a checkpoint, without fetching or reading weights.

    Raises:
        WeightsError, PromptError, AnatomyError: see `load`.
    """
    from transformers import AutoConfig, AutoProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    if not entry.chat_template:
        template_process.start()
    folder, _ = _folder(entry, request, tuple(name for name in entry.files if "safetensors" not in name))
    if entry.trusted:
        request.say(
            f"RUNNING CODE of the checkpoint {entry.source}, as {option_text('trust_code')} allows: "
            f"{code_files(folder)}"
        )
    # Always explicit: otherwise transformers prompts on the terminal.
    trust = {"trust_remote_code": entry.trusted}
    with _translated_errors(entry, folder):
        refuse_foreign(folder, entry.source)
        config = AutoConfig.from_pretrained(folder, **trust)
    refuse_unmeasurable(config, entry.name)
    with _translated_errors(entry, folder):
        refuse_without_processor(folder, entry.source)
        # The model's type selects the class: published InstructBLIPs name the video processor, which needs torchvision.
        processor = PROCESSOR_MAPPING.get(type(config), AutoProcessor).from_pretrained(folder, **trust)
    existing = getattr(processor, "chat_template", None)
    if template := entry.chat_template or ("" if existing else kind_of(config.model_type).chat_template):
        processor.chat_template = template
    refuse_endless_template(processor, entry.source)
    tokenizer = processor.tokenizer
    if tokenizer.pad_token is None:
        # Padding is masked, so the choice of token has no effect.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return config, processor


def refuse_unloadable(entry: ModelEntry, request: LoadRequest) -> None:
    """Raise the error that loading a checkpoint would raise because of its settings or weight headers."""
    config, processor = prepare(entry, request)
    if Path(entry.source).is_dir():
        _refuse_unfit(entry, config, processor, Path(entry.source))


def _refuse_unfit(
    entry: ModelEntry, config: Any, processor: Any, folder: Path
) -> tuple[list[str], Mapping[str, StoredTensor]]:
    """Raise if weights or processor do not fit a configuration, by names and headers; no weight is read.

    Attention implementations that cannot be observed are replaced in the configuration. Return the replaced ones and
    the headers of the weights.
    """
    with _translated_errors(entry, folder):
        # `prepare` ran this check before the index of the weights was fetched.
        refuse_foreign(folder, entry.source)
        headers = refuse_weight_files(folder, entry.source, unused=entry.unused_weights)
        refuse_incomplete_processor(processor, config, folder, entry.source, headers)
        replaced = _choose_readable_attention(config)
        try_weights(config, entry, headers)
    return replaced, headers


@plain_messages()
def load(entry: ModelEntry, request: LoadRequest) -> tuple[Any, Any]:
    """Return the model and processor of a checkpoint, in eval mode and frozen, on the requested device.

    A model that exceeds the device is spread (`placement_options`). The processor gets the entry's chat template or, if
    it has none, the template of its type, and a padding token if it has none. Only safetensors are read, from the
    checkpoint's own directory, and its code runs only if the entry is `trusted`.

    Raises:
        WeightsError: the checkpoint is missing, unavailable or damaged; it links to other directories; it has no
            processor, or needs a package which is not installed; weights are missing, have another shape or, unless
            the entry allows them, are unused; or it needs code that is not trusted.
        PromptError: rendering its chat template exceeds the limits.
        AnatomyError: an encoder-decoder, which has no common residual stream; raised before weights are fetched.
    """
    # Before weights are fetched, because it checks that the checkpoint can be measured.
    config, processor = prepare(entry, request)
    trust = {"trust_remote_code": entry.trusted}
    folder, revision = _folder(entry, request, entry.files)
    replaced, headers = _refuse_unfit(entry, config, processor, folder)
    with _translated_errors(entry, folder), placement_options(headers, request) as options:
        model, info = _model_class(config, entry).from_pretrained(
            folder,
            config=config,
            dtype=request.dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
            **trust,
        )
        unused = refuse_misfit(info, model.state_dict().keys(), entry)
        refuse_untied(model, read_settings(folder / "config.json"), entry)
        remove_with(model, options)
    if replaced:
        chosen = model.config.get_text_config(decoder=True)._attn_implementation
        requested = " and ".join(replaced)
        request.say(
            f"the checkpoint {entry.source} requests {requested}, which cannot be observed: it is loaded with {chosen}"
        )
    if unused := [*(path.name for path in unused_files(folder, weight_files(folder))), *unused]:
        request.say(
            f"UNUSED WEIGHTS of the checkpoint {entry.source} are ignored, as "
            f"{option_text('allow_unused_weights')} allows: {printable(unused[0])}, {len(unused)} in all"
        )
    # For provenance: transformers records a commit only if it fetched the files itself.
    model.config._commit_hash = revision
    return model.requires_grad_(False).eval(), processor


def _folder(entry: ModelEntry, request: LoadRequest, files: tuple[str, ...]) -> tuple[Path, str]:
    """Return the directory of the checkpoint and its revision on the hub ("" for a local directory)."""
    if Path(entry.source).is_dir():
        return Path(entry.source), ""
    try:
        snapshot = find_snapshot(
            entry.source, "model", files, revision=entry.revision, download=request.download, say=request.say
        )
    except HubError as error:
        raise WeightsError(f"{entry.no_directory()}{error}") from None
    return snapshot.path, snapshot.revision


@contextmanager
def _translated_errors(entry: ModelEntry, folder: Path) -> Iterator[None]:
    """Translate any error about a checkpoint's files inside the block into a `WeightsError`."""
    try:
        yield
    except PhaseError:
        raise
    except Exception as error:  # Libraries may raise any type for unusual files.
        cause = printable_cause(error)
        summary = first_line(error)
        if _CODE in str(error):
            raise WeightsError(
                f"the checkpoint {entry.source} needs code of its own ({code_files(folder)}), which is not run: read "
                f"it, and if you trust it add {option_text('trust_code', entry.source)}"
            ) from cause
        if problem := missing_package(error):
            raise WeightsError(f"the checkpoint {entry.source} {problem}") from cause
        if isinstance(error, json.JSONDecodeError):
            # Its text names no file.
            for path in (path for path in readable_files(folder) if path.suffix == ".json"):
                read_settings(path)
        remedy = next((advice for part, advice in _ADVICE if part in str(error)), _DEFAULT_ADVICE)
        location = "" if str(folder) == entry.source else f" in {folder}"
        raise WeightsError(
            f"the checkpoint {entry.source}{location} cannot be loaded ({type(error).__name__}: "
            f"{printable(summary, _LONGEST)}): {remedy}"
        ) from cause


def _model_class(config: Any, entry: ModelEntry) -> Any:
    """Return the class that loads the model; for a trusted checkpoint, the class in its `auto_map`."""
    import transformers

    named = (getattr(config, "auto_map", None) or {}) if entry.trusted else {}
    return getattr(transformers, next((name for name in _CLASSES if name in named), _CLASSES[0]))


def _choose_readable_attention(config: Any) -> list[str]:
    """Let transformers choose the attention where an unreadable one is requested; return the replaced ones."""
    replaced: dict[str, None] = {}
    for part in _parts(config):
        requested = getattr(part, "_attn_implementation", None)
        if requested not in _READABLE:
            replaced[str(requested)] = None
            # A plain value would be passed to the sub-configurations.
            part._attn_implementation = {"": None}
    return list(replaced)


def _parts(config: Any) -> Iterator[Any]:
    yield config
    for key in getattr(config, "sub_configs", {}):
        if (inner := getattr(config, key, None)) is not None:
            yield from _parts(inner)
