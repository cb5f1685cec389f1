"""Models from a checkpoint: a directory that `save_pretrained` wrote, or a repository of the hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import PhaseError, shown
from harness.hub import HubError, find_snapshot
from harness.models.anatomy import refuse_unmeasurable
from harness.models.checkpoint_files import code_files, refuse_foreign
from harness.models.embedded.language import WeightsError
from harness.models.kinds import kind_of
from harness.models.placement import keep_with, placement
from harness.models.registry import LoadRequest, ModelEntry
from harness.models.template_trial import refuse_endless_templates

# How transformers words a package that is missing where it raises no ImportError.
_LACKING = "Missing optional dependencies"
# What transformers' refusals of a checkpoint's own code have in common.
_CODE = "trust_remote_code"
# The classes that code of its own may name for a model, the first to be used in front.
_CLASSES = ("AutoModelForImageTextToText", "AutoModelForVision2Seq", "AutoModelForCausalLM", "AutoModel")
_LONGEST = 300  # characters of an error of somebody else's in ours


def load(entry: ModelEntry, request: LoadRequest) -> tuple[Any, Any]:
    """The model and processor of a checkpoint, in eval mode and frozen, on the requested device.

    A model that the device has no room for is spread (`placement`). The processor gets the entry's chat template, or
    one for its type where it has none, and a padding token where it has none. Only safetensors are read, from the
    checkpoint's own directory, and no code from it is run unless the entry is `trusted`.

    Raises:
        WeightsError: not there, not to be had, damaged, leading elsewhere, without a processor, or with one that needs
            a package which is not installed; or code of its own is needed and not trusted.
        PromptError: its chat template does not come to an end.
        AnatomyError: an encoder-decoder, which has no common residual stream; said before anything large is fetched.
    """
    from transformers import AutoConfig

    # What says whether a checkpoint can be measured, before anything large is fetched.
    folder, revision = _folder(entry, request, tuple(name for name in entry.files if "safetensors" not in name))
    if entry.trusted:
        request.say(f"RUNNING CODE of the checkpoint {entry.source}, as --phase-trust-code says: {code_files(folder)}")
    # Said outright: where transformers is left to decide it asks on the terminal.
    trust = {"trust_remote_code": entry.trusted}
    with _told(entry, folder):
        refuse_foreign(folder, entry.source)
        config = AutoConfig.from_pretrained(folder, **trust)
    refuse_unmeasurable(config, entry.name)
    with _told(entry, folder):
        processor = _processor_class(config).from_pretrained(folder, **trust)
    refuse_endless_templates(processor, entry.source)
    _give_template(processor, entry, config)
    _give_padding(processor)
    folder, revision = _folder(entry, request, entry.files)
    with _told(entry, folder):
        # Once more: the index came with the weights.
        refuse_foreign(folder, entry.source)
        with placement(folder, request) as placed:
            model, found = _model_class(config, entry).from_pretrained(
                folder, dtype=request.dtype, use_safetensors=True, output_loading_info=True, **placed, **trust
            )
            _refuse_missing(sorted(found["missing_keys"]), entry)
            keep_with(model, placed)
    # Where provenance finds it: transformers records a commit only of what it fetched itself.
    model.config._commit_hash = revision
    return model.requires_grad_(False).eval(), processor


def _refuse_missing(names: list[str], entry: ModelEntry) -> None:
    """Asserts that every weight was there: transformers draws those that are not at random, and only warns."""
    if names:
        raise WeightsError(
            f"the checkpoint {entry.source} lacks weights of its model ({shown(names[0])}, {len(names)} in all), which "
            "would be random numbers: check that config.json and weights belong together, or save it anew"
        )


def _folder(entry: ModelEntry, request: LoadRequest, files: tuple[str, ...]) -> tuple[Path, str]:
    """Where the checkpoint lies, and its revision on the hub ("" for a directory)."""
    if Path(entry.source).is_dir():
        return Path(entry.source), ""
    try:
        found = find_snapshot(
            entry.source, "model", files, revision=entry.revision, download=request.download, say=request.say
        )
    except HubError as error:
        raise WeightsError(str(error)) from None
    return found.path, found.revision


@contextmanager
def _told(entry: ModelEntry, folder: Path) -> Iterator[None]:
    """Turns what is raised over a checkpoint's files into one sentence."""
    try:
        yield
    except PhaseError:
        raise
    except Exception as error:  # What the files lead the libraries to cannot be foreseen.
        said = (str(error).strip().splitlines() or [repr(error)])[0]
        if _CODE in str(error):
            raise WeightsError(
                f"the checkpoint {entry.source} needs code of its own ({code_files(folder)}), which is not run: read "
                f"it, and if you trust it add --phase-trust-code {entry.source}"
            ) from error
        if isinstance(error, ImportError) or _LACKING in said:
            package = said[said.find(_LACKING) :].split(". ")[0] if _LACKING in said else said.split(". ")[0]
            raise WeightsError(
                f"the checkpoint {entry.source} needs a package that is not installed: {package.strip()}; install "
                "it and run again (pip install torchvision, where it is Torchvision)"
            ) from error
        where = "" if str(folder) == entry.source else f" in {folder}"
        raise WeightsError(
            f"the checkpoint {entry.source}{where} cannot be loaded ({type(error).__name__}: {shown(said, _LONGEST)}): "
            "it needs config.json, safetensors and a processor, as save_pretrained of model and processor writes them"
        ) from error


def _processor_class(config: Any) -> Any:
    """The processor that belongs to the model, whatever the checkpoint says.

    Published ones name others: InstructBLIP's ask for the video processor, which is another and needs torchvision.
    """
    from transformers import AutoProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    return PROCESSOR_MAPPING.get(type(config), AutoProcessor)


def _model_class(config: Any, entry: ModelEntry) -> Any:
    """The class that loads the model; of a trusted checkpoint one that its code is named for."""
    import transformers

    named = (getattr(config, "auto_map", None) or {}) if entry.trusted else {}
    return getattr(transformers, next((name for name in _CLASSES if name in named), _CLASSES[0]))


def _give_template(processor: Any, entry: ModelEntry, config: Any) -> None:
    if entry.chat_template:
        processor.chat_template = entry.chat_template
    elif not getattr(processor, "chat_template", None) and kind_of(config.model_type).chat_template:
        processor.chat_template = kind_of(config.model_type).chat_template


def _give_padding(processor: Any) -> None:
    """Pads with the end of text where no token is for padding: it is masked, so which one it is changes nothing."""
    tokenizer = processor.tokenizer
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
