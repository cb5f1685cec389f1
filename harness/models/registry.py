"""The table of models that the harness knows by name."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import did_you_mean, print_to_stderr
from harness.models.prompts.chat_templates import BARE, LLAVA
from harness.storage.file_names import file_name

if TYPE_CHECKING:
    import torch

# Short names and torch's names; defined here without torch, because the options list them.
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
PAPER_DATASETS = ("coco-captions", "winoground")
# For unregistered models: a dataset that is always available, and the datasets of the paper.
DEFAULT_DATASETS = ("scenes", *PAPER_DATASETS)
_OTHER_ASCII = re.compile(r"[^\w.\x80-\U0010ffff-]+")
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """Options for loading a model: cache directory, dtype, device, and True if downloads from the hub are allowed.

    `say` receives a line with the name and size of each download.
    """

    cache: Path
    dtype: torch.dtype
    device: torch.device
    download: bool = False
    say: Callable[[str], None] = print_to_stderr


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A named model.

    `loader` is 'module:function' as text, so that listing the models does not import torch. For a bundled model the
    function takes the cache directory and a dtype; for any other the entry and a `LoadRequest`. It returns (model,
    processor) in eval mode. `source` is the repository on the hub or the directory with the weights, at `revision`
    (None: the newest that is cached). `chat_template` is the declared form of the prompt; if empty, the processor's
    template is used. `trusted` is True if the user trusts the code beside the weights, which never runs otherwise.
    `unused_weights` is True if the user allows weights that the model does not use. `gigabytes` is the download size.
    `datasets` are the default datasets. `samples` is the number of samples by dataset, if recall needs more than the
    dataset declares.
    """

    name: str
    summary: str
    loader: str
    datasets: tuple[str, ...]
    bundled: bool = False
    source: str = ""
    revision: str | None = None
    chat_template: str = ""
    trusted: bool = False
    unused_weights: bool = False
    gigabytes: float = 0.0
    samples: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def files(self) -> tuple[str, ...]:
        """Shell patterns of the files to fetch from the hub."""
        return (*WEIGHT_FILES, "*.py") if self.trusted else WEIGHT_FILES

    def load(self, request: LoadRequest) -> tuple[Any, Any]:
        """Return (model, processor).

        Raises:
            WeightsError: the weights are unavailable; the message states their source and the remedy.
            AnatomyError: models of this type cannot be measured.
        """
        module, function = self.loader.split(":")
        loader: Callable[..., tuple[Any, Any]] = getattr(importlib.import_module(module), function)
        if not self.bundled:
            return loader(self, request)
        from harness.models.bundled.language import redirect_notices

        with redirect_notices(request.say):
            return loader(request.cache, request.dtype)

    def unavailable(self, *, download: bool) -> str | None:
        """Return why the weights are unavailable, with the remedy; None if they are cached or may be fetched."""
        if self.bundled:
            return None
        if Path(self.source).is_dir():
            from harness.models.checkpoints.checkpoint_directory import directory_problem

            return directory_problem(Path(self.source), self.source, unused=self.unused_weights)
        if download:
            return None
        from harness.hub import cache_problem

        reason = cache_problem(self.source, "model", self.files, revision=self.revision)
        if reason and self.gigabytes:
            return f"{reason}; {self.gigabytes} GB in all"
        return f"{self.no_directory()}{reason}" if reason else None

    def no_directory(self) -> str:
        """Return the start of a message about an unregistered repository, stating that no such directory exists."""
        registered = {entry.source for entry in MODELS.values()}
        return "" if self.source in registered else no_directory(self.source)


#: Shell patterns of the files fetched from a model's repository: no pickles, no code.
WEIGHT_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
#: The loader of checkpoint directories and hub repositories.
FROM_HUB = "harness.models.pretrained:load"

MODELS: dict[str, ModelEntry] = {
    entry.name: entry
    for entry in (
        ModelEntry(
            name="scenes-llava",
            summary="LLaVA architecture: frozen SmolLM2-135M-Instruct, small vision tower and projector trained here",
            loader="harness.models.bundled.scenes_llava:load",
            datasets=("scenes", "scenes-order", "scenes-varied"),
            bundled=True,
        ),
        ModelEntry(
            name="scenes-instructblip",
            summary="InstructBLIP architecture: same language model, small vision tower and Q-Former trained here",
            loader="harness.models.bundled.scenes_instructblip:load",
            datasets=("scenes", "scenes-order", "scenes-varied"),
            bundled=True,
            # With 128 samples, recall is judged equivalent in only 71 % of runs without a change.
            samples={"scenes": 192},
        ),
        ModelEntry(
            name="llava-1.5-7b",
            summary="LLaVA-1.5 of 7 B parameters, one of the paper's two models",
            loader=FROM_HUB,
            datasets=PAPER_DATASETS,
            source="llava-hf/llava-1.5-7b-hf",
            chat_template=LLAVA,
            gigabytes=14.1,
        ),
        ModelEntry(
            name="instructblip-vicuna-7b",
            summary="InstructBLIP over Vicuna-7B, one of the paper's two models",
            loader=FROM_HUB,
            datasets=PAPER_DATASETS,
            source="Salesforce/instructblip-vicuna-7b",
            chat_template=BARE,
            gigabytes=31.7,
        ),
    )
}


def find_model(name: str) -> ModelEntry:
    """Return the entry of a registered name, or a new entry for a checkpoint directory or a repository ORG/NAME.

    An unregistered model has the last part of its path as its name, and the chat template of its processor.

    Raises:
        LookupError: the name is unknown, the directory has no config.json, or its name cannot name a directory of
            baselines. The message lists the known names.
    """
    if name in MODELS:
        return MODELS[name]
    _refuse_path(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return _unregistered(path.resolve().name, str(path.resolve()))
    if _REPOSITORY.fullmatch(name):
        return _unregistered(name.split("/")[1], name)
    raise LookupError(
        f"unknown model {name!r}: neither a directory nor ORG/NAME; known models: {', '.join(sorted(MODELS))}"
        f"{did_you_mean(name, MODELS)}"
    )


def _unregistered(name: str, source: str) -> ModelEntry:
    if not name.strip("."):
        raise LookupError(f"the checkpoint {source!r} has no name for its baselines: name its directory")
    # Baselines are stored in a directory with that name. Other ASCII characters become `-`; `file_name` adds a hash if
    # it removes further characters.
    name = file_name(_OTHER_ASCII.sub("-", name))
    return ModelEntry(name, f"the checkpoint {source}", FROM_HUB, DEFAULT_DATASETS, source=source)


def _refuse_path(text: str) -> None:
    """Raise `LookupError` if a text is the path of a file, of a directory without config.json, or does not exist.

    A text that may be a name or a repository ORG/NAME passes.
    """
    if "://" in text:
        raise LookupError(f"{text!r} is a URL: give a directory, or the repository as ORG/NAME")
    path = Path(text).expanduser()
    if path.is_file():
        raise LookupError(f"{text!r} is a file: give the directory that holds it, {str(path.parent)!r}")
    if path.is_dir():
        if not (path / "config.json").is_file():
            # Imported late, because pytest imports this module in every project.
            from harness.models.checkpoints.foreign_formats import no_configuration

            raise LookupError(f"the directory {text!r} {no_configuration(path)}")
    elif path.is_absolute() or text.startswith((".", "~")) or text.endswith("/") or len(path.parts) > 2:
        raise LookupError(f"there is no directory {text!r}{_nearest(path)}: check the path")


def no_directory(source: str) -> str:
    """Return the start of a message about an unregistered ORG/NAME, in case the user intended a directory."""
    return f"there is no directory {source!r} here{_nearest(Path(source))}, so it is taken as a repository of the hub: "


def _nearest(path: Path) -> str:
    """Return a hint for a missing path: an existing name that resembles it, or the first part that is missing."""
    missing = next(part for part in (*reversed(path.parents), path) if not part.exists())
    if missing != path:
        return f" ({str(missing)!r} does not exist)"
    names = [inner.name for inner in missing.parent.iterdir() if inner.is_dir()]
    similar = get_close_matches(path.name, names, n=1)
    return f" (there is {str(path.parent / similar[0])!r})" if similar else ""
