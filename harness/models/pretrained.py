"""Models from a checkpoint: a directory that `save_pretrained` wrote, or a repository of the hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from harness.errors import PhaseError
from harness.hub import HubError, find_snapshot
from harness.models.anatomy import refuse_unmeasurable
from harness.models.embedded.language import WeightsError
from harness.models.kinds import kind_of
from harness.models.registry import WEIGHT_FILES, LoadRequest, ModelEntry

# What says whether a checkpoint can be measured, before anything large is fetched.
_SMALL_FILES = tuple(pattern for pattern in WEIGHT_FILES if "safetensors" not in pattern)
# How transformers words a package that is missing where it raises no ImportError.
_LACKING = "Missing optional dependencies"
# Share of a GPU's free memory that weights may fill; the rest is for the forward pass.
_FILLED = 0.85


def load(entry: ModelEntry, request: LoadRequest) -> tuple[Any, Any]:
    """The model and processor of a checkpoint, in eval mode and frozen, on the requested device.

    A model that one GPU has no room for is spread over all of them and the CPU (`device_map="auto"`). The processor
    gets the entry's chat template, or one for its type where it has none, and a padding token where it has none. Only
    safetensors are read, and no code from the checkpoint is run.

    Raises:
        WeightsError: not there, not to be had, damaged, without a processor, or with one that needs a package which is
            not installed.
        AnatomyError: an encoder-decoder, which has no common residual stream; said before anything large is fetched.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    folder, revision = _folder(entry, request, _SMALL_FILES)
    with _told(entry, folder):
        config = AutoConfig.from_pretrained(folder)
    refuse_unmeasurable(config, entry.name)
    with _told(entry, folder):
        processor = _processor_class(config).from_pretrained(folder)
    _give_template(processor, entry, config)
    _give_padding(processor)
    folder, revision = _folder(entry, request, WEIGHT_FILES)
    with _told(entry, folder):
        model = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=request.dtype, device_map=_device_map(folder, request), use_safetensors=True
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
        raise WeightsError(str(error)) from None
    return found.path, found.revision


@contextmanager
def _told(entry: ModelEntry, folder: Path) -> Iterator[None]:
    """Turns transformers' and safetensors' errors about a checkpoint into one sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        if isinstance(error, PhaseError):
            raise
        said = (str(error).strip().splitlines() or [repr(error)])[0]
        if isinstance(error, ImportError) or _LACKING in said:
            package = said[said.find(_LACKING) :].split(". ")[0] if _LACKING in said else said.split(". ")[0]
            raise WeightsError(
                f"the checkpoint {entry.source} needs a package that is not installed: {package.strip()}; install "
                "it and run again (pip install torchvision, where it is Torchvision)"
            ) from error
        raise WeightsError(
            f"the checkpoint {entry.source} in {folder} cannot be loaded ({type(error).__name__}: {said}): it needs "
            "config.json, safetensors and a processor, as save_pretrained of model and processor writes them"
        ) from error


def _processor_class(config: Any) -> Any:
    """The processor that belongs to the model, whatever the checkpoint says.

    Published ones name others: InstructBLIP's ask for the video processor, which is another and needs torchvision.
    """
    from transformers import AutoProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    return PROCESSOR_MAPPING.get(type(config), AutoProcessor)


def _device_map(folder: Path, request: LoadRequest) -> Any:
    if request.device.type != "cuda":
        return None
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    width = torch.empty((), dtype=request.dtype).element_size() / _stored_width(folder)
    free, _ = torch.cuda.mem_get_info(request.device)
    return "auto" if stored * width > _FILLED * free else {"": request.device}


def _stored_width(folder: Path) -> int:
    """Bytes per number in the first shard."""
    from safetensors import safe_open

    with safe_open(sorted(folder.glob("*.safetensors"))[0], framework="pt") as shard:
        return int(shard.get_tensor(next(iter(shard.keys()))).element_size())


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
