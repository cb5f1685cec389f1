"""Models from a checkpoint: a directory that `save_pretrained` wrote, or a repository of the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import PhaseError, first_line, printable
from harness.hub import HubError, find_snapshot
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

# What transformers' refusals of a checkpoint's own code have in common.
_CODE = "trust_remote_code"
# The classes that code of its own may name for a model, the first to be used in front.
_CLASSES = ("AutoModelForImageTextToText", "AutoModelForVision2Seq", "AutoModelForCausalLM", "AutoModel")
_OTHERWISE = "it needs config.json, safetensors and a processor, as save_pretrained of model and processor writes them"
# Advice by transformers' words, the first that match.
_BY_WORDS = (
    ("Unrecognized configuration class", "it is no vision-language model of transformers; give one that is"),
    ("does not recognize this architecture", "install a newer transformers, or the one that config.json names"),
    ("Should have a `model_type` key", "copy config.json of the model that it was trained from, which names its type"),
    ("`tiktoken` is required", "run `pip install sentencepiece protobuf tiktoken`, the readers of tokenizers"),
    ("Unrecognized image processor", "copy the processor's files of the model that it was trained from"),
    ("Validation error for field", "write a value of its own type for that field into config.json"),
    ("quantiz", "mend quantization_config in config.json, or give the weights before they were quantised"),
)
_LONGEST = 300  # characters of an error of somebody else's in ours
# What the probe can read; None lets transformers choose between the two.
_READABLE = (None, "sdpa", "eager")


@plain_messages()
def prepare(entry: ModelEntry, request: LoadRequest) -> tuple[Any, Any]:
    """Return the configuration and processor of a checkpoint; fetches and reads no weight.

    Raises:
        WeightsError, PromptError, AnatomyError: see `load`.
    """
    from transformers import AutoConfig, AutoProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    if not entry.chat_template:
        template_process.start()
    folder, _ = _folder(entry, request, tuple(name for name in entry.files if "safetensors" not in name))
    if entry.trusted:
        request.say(f"RUNNING CODE of the checkpoint {entry.source}, as --phase-trust-code says: {code_files(folder)}")
    # Said outright: where transformers is left to decide it asks on the terminal.
    trust = {"trust_remote_code": entry.trusted}
    with _told(entry, folder):
        refuse_foreign(folder, entry.source)
        config = AutoConfig.from_pretrained(folder, **trust)
    refuse_unmeasurable(config, entry.name)
    with _told(entry, folder):
        refuse_without_processor(folder, entry.source)
        # By the model's type: published InstructBLIPs name the video processor, which is another and needs torchvision.
        processor = PROCESSOR_MAPPING.get(type(config), AutoProcessor).from_pretrained(folder, **trust)
    own = getattr(processor, "chat_template", None)
    if template := entry.chat_template or ("" if own else kind_of(config.model_type).chat_template):
        processor.chat_template = template
    refuse_endless_template(processor, entry.source)
    tokenizer = processor.tokenizer
    if tokenizer.pad_token is None:
        # Padding is masked, so the choice of token changes nothing.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return config, processor


def refuse_unloadable(entry: ModelEntry, request: LoadRequest) -> None:
    """Raise the error that loading a checkpoint would raise over its settings or the headers of its weights."""
    config, processor = prepare(entry, request)
    if Path(entry.source).is_dir():
        _refuse_unfit(entry, config, processor, Path(entry.source))


def _refuse_unfit(
    entry: ModelEntry, config: Any, processor: Any, folder: Path
) -> tuple[list[str], Mapping[str, StoredTensor]]:
    """Assert that weights and processor fit a configuration, by names and headers; no weight is read.

    An attention implementation that cannot be observed is exchanged in the configuration. Returns those that were, and
    the headers of the weights.
    """
    with _told(entry, folder):
        # Once more: the index came with the weights.
        refuse_foreign(folder, entry.source)
        headers = refuse_weight_files(folder, entry.source, unused=entry.unused_weights)
        refuse_incomplete_processor(processor, config, folder, entry.source, headers)
        replaced = _choose_readable_attention(config)
        try_weights(config, entry, headers)
    return replaced, headers


@plain_messages()
def load(entry: ModelEntry, request: LoadRequest) -> tuple[Any, Any]:
    """Return the model and processor of a checkpoint, in eval mode and frozen, on the requested device.

    A model that the device has no room for is spread (`placement_options`). The processor gets the entry's chat
    template, or one for its type where it has none, and a padding token where it has none. Only safetensors are read,
    from the checkpoint's own directory, and no code from it is run unless the entry is `trusted`.

    Raises:
        WeightsError: not there, not to be had, damaged, leading elsewhere, without a processor, or with one that needs
            a package which is not installed; weights that are missing, of another shape or, unless the entry allows
            them, left over; or code of its own is needed and not trusted.
        PromptError: its chat template does not come to an end.
        AnatomyError: an encoder-decoder, which has no common residual stream; said before anything large is fetched.
    """
    # Before anything large is fetched, because it says whether the checkpoint can be measured.
    config, processor = prepare(entry, request)
    trust = {"trust_remote_code": entry.trusted}
    folder, revision = _folder(entry, request, entry.files)
    replaced, headers = _refuse_unfit(entry, config, processor, folder)
    with _told(entry, folder), placement_options(headers, request) as placed:
        model, info = _model_class(config, entry).from_pretrained(
            folder,
            config=config,
            dtype=request.dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **placed,
            **trust,
        )
        unused = refuse_misfit(info, model.state_dict().keys(), entry)
        refuse_untied(model, read_settings(folder / "config.json"), entry)
        remove_with(model, placed)
    if replaced:
        chosen = model.config.get_text_config(decoder=True)._attn_implementation
        asked = " and ".join(replaced)
        request.say(
            f"the checkpoint {entry.source} asks for {asked}, which cannot be observed: it is loaded with {chosen}"
        )
    if unused := [*(path.name for path in unused_files(folder, weight_files(folder))), *unused]:
        request.say(
            f"UNUSED WEIGHTS of the checkpoint {entry.source} are left out, as --phase-allow-unused-weights says: "
            f"{printable(unused[0])}, {len(unused)} in all"
        )
    # Where provenance finds it: transformers records a commit only of what it fetched itself.
    model.config._commit_hash = revision
    return model.requires_grad_(False).eval(), processor


def _folder(entry: ModelEntry, request: LoadRequest, files: tuple[str, ...]) -> tuple[Path, str]:
    """Where the checkpoint lies, and its revision on the hub ("" for a directory)."""
    if Path(entry.source).is_dir():
        return Path(entry.source), ""
    try:
        found = find_snapshot(
            entry.source, "model", files, revision=entry.revision, download=request.download, say=request.say
        )
    except HubError as error:
        raise WeightsError(f"{entry.no_directory()}{error}") from None
    return found.path, found.revision


@contextmanager
def _told(entry: ModelEntry, folder: Path) -> Iterator[None]:
    """Turn what is raised over a checkpoint's files into one sentence."""
    try:
        yield
    except PhaseError:
        raise
    except Exception as error:  # What the files lead the libraries to cannot be foreseen.
        cause = printable_cause(error)
        said = first_line(error)
        if _CODE in str(error):
            raise WeightsError(
                f"the checkpoint {entry.source} needs code of its own ({code_files(folder)}), which is not run: read "
                f"it, and if you trust it add --phase-trust-code {entry.source}"
            ) from cause
        if problem := missing_package(error):
            raise WeightsError(f"the checkpoint {entry.source} {problem}") from cause
        if isinstance(error, json.JSONDecodeError):
            # Its own words name no file.
            for path in (path for path in readable_files(folder) if path.suffix == ".json"):
                read_settings(path)
        remedy = next((advice for words, advice in _BY_WORDS if words in str(error)), _OTHERWISE)
        where = "" if str(folder) == entry.source else f" in {folder}"
        raise WeightsError(
            f"the checkpoint {entry.source}{where} cannot be loaded ({type(error).__name__}: "
            f"{printable(said, _LONGEST)}): {remedy}"
        ) from cause


def _model_class(config: Any, entry: ModelEntry) -> Any:
    """Return the class that loads the model; of a trusted checkpoint one that its code is named for."""
    import transformers

    named = (getattr(config, "auto_map", None) or {}) if entry.trusted else {}
    return getattr(transformers, next((name for name in _CLASSES if name in named), _CLASSES[0]))


def _choose_readable_attention(config: Any) -> list[str]:
    """Let transformers choose the attention in every part that asks for one that cannot be read; return those."""
    replaced: dict[str, None] = {}
    for part in _parts(config):
        wanted = getattr(part, "_attn_implementation", None)
        if wanted not in _READABLE:
            replaced[str(wanted)] = None
            # A plain value would be handed on to the parts inside.
            part._attn_implementation = {"": None}
    return list(replaced)


def _parts(config: Any) -> Iterator[Any]:
    yield config
    for key in getattr(config, "sub_configs", {}):
        if (inner := getattr(config, key, None)) is not None:
            yield from _parts(inner)
