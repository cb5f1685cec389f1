"""The models that the harness knows by name. A model is a row of this table; how it is measured is the same for all."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import print_to_stderr
from harness.models.checkpoints.foreign_formats import no_configuration
from harness.models.prompts.chat_templates import BARE, LLAVA
from harness.storage.file_names import file_name

if TYPE_CHECKING:
    import torch

# By short and by torch's name; kept where no torch is imported, because the options name them.
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
PAPER_DATASETS = ("coco-captions", "winoground")
# For a model that nobody registered: what is always there, and the paper's where their files are.
DEFAULT_DATASETS = ("scenes", *PAPER_DATASETS)
_ASCII_SIGNS = re.compile(r"[^\w.\x80-\U0010ffff-]+")
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """How a model is wanted: where weights of our own are kept, dtype, device, and whether the hub may be asked.

    `say` takes a line on what is fetched and how large it is.
    """

    cache: Path
    dtype: torch.dtype
    device: torch.device
    download: bool = False
    say: Callable[[str], None] = print_to_stderr


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A named model.

    `loader` is 'module:function', named and not imported, so that listing the models needs no torch. Of a bundled
    model the function takes the cache directory and a dtype; of any other the entry itself and a `LoadRequest`. It
    returns (model, processor) in eval mode. `source` is the repository on the hub or the directory that holds the
    weights, at `revision` (None: the newest that is cached). `chat_template` is the declared form of the prompt; empty
    takes the processor's own. `trusted` says that the user trusts the code that comes with the weights, which is
    run then and never else. `unused_weights` is True if the user allows weights that the model does not use.
    `gigabytes` is what has to be fetched. `datasets` are the data it is measured on when nobody says otherwise;
    `samples` is how many, where its recall needs more than the dataset declares.
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
        """Shell patterns of what is fetched from the hub."""
        return (*WEIGHT_FILES, "*.py") if self.trusted else WEIGHT_FILES

    def load(self, request: LoadRequest) -> tuple[Any, Any]:
        """Model and processor.

        Raises:
            WeightsError: the weights cannot be had; the message says where from and what to do.
            AnatomyError: the model is of a kind that cannot be measured.
        """
        module, function = self.loader.split(":")
        loader: Callable[..., tuple[Any, Any]] = getattr(importlib.import_module(module), function)
        if not self.bundled:
            return loader(self, request)
        from harness.models.bundled.language import redirect_notices

        with redirect_notices(request.say):
            return loader(request.cache, request.dtype)

    def unavailable(self, *, download: bool) -> str | None:
        """Why this machine has not got the weights, with the remedy; None where it has or may fetch them."""
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
        """Return the start of a sentence about a repository that nobody registered: that there is no such directory."""
        known = {entry.source for entry in MODELS.values()}
        return "" if self.source in known else no_directory(self.source)


#: What is fetched of a model's repository: no pickles, and no code.
WEIGHT_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
#: The loader of checkpoints: directories, and repositories of the hub.
FROM_HUB = "harness.models.pretrained:load"

MODELS: dict[str, ModelEntry] = {
    entry.name: entry
    for entry in (
        ModelEntry(
            name="scenes-llava",
            summary="LLaVA architecture: frozen SmolLM2-135M-Instruct, our own small tower and projector",
            loader="harness.models.bundled.scenes_llava:load",
            datasets=("scenes", "scenes-order", "scenes-varied"),
            bundled=True,
        ),
        ModelEntry(
            name="scenes-instructblip",
            summary="InstructBLIP architecture: the same language model, our own small tower and Q-Former",
            loader="harness.models.bundled.scenes_instructblip:load",
            datasets=("scenes", "scenes-order", "scenes-varied"),
            bundled=True,
            # With 128 the gate finds recall equivalent in 71 % of the runs in which nothing changed.
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
    """Return the entry of a registered name, or one made for a checkpoint directory or a repository ORG/NAME.

    A model that nobody registered is called as the last part of its path, and its prompt is worded as its processor
    says.

    Raises:
        LookupError: no such name, no directory with a config.json, or none that a directory of baselines can have; the
            message lists the known names.
    """
    if name in MODELS:
        return MODELS[name]
    _refuse_path(name)
    place = Path(name).expanduser()
    if place.is_dir():
        return _unregistered(place.resolve().name, str(place.resolve()))
    if _REPOSITORY.fullmatch(name):
        return _unregistered(name.split("/")[1], name)
    raise LookupError(
        f"unknown model {name!r}: neither a directory nor ORG/NAME; known models: {', '.join(sorted(MODELS))}"
    )


def _unregistered(name: str, source: str) -> ModelEntry:
    if not name.strip("."):
        raise LookupError(f"the checkpoint {source!r} has no name to keep its baselines under: give its directory one")
    # Baselines are kept in a directory of that name. ASCII signs become `-`; a name that loses others carries a hash.
    name = file_name(_ASCII_SIGNS.sub("-", name))
    return ModelEntry(name, f"the checkpoint {source}", FROM_HUB, DEFAULT_DATASETS, source=source)


def _refuse_path(text: str) -> None:
    """Raise `LookupError` if a text leads to a file, to a directory without config.json, or is a path to nowhere.

    A text that may be a name, or a repository ORG/NAME, passes.
    """
    if "://" in text:
        raise LookupError(f"{text!r} is an address: give a directory, or the repository as ORG/NAME")
    path = Path(text).expanduser()
    if path.is_file():
        raise LookupError(f"{text!r} is a file: give the directory that holds it, {str(path.parent)!r}")
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise LookupError(f"the directory {text!r} {no_configuration(path)}")
    elif path.is_absolute() or text.startswith((".", "~")) or text.endswith("/") or len(path.parts) > 2:
        raise LookupError(f"there is no directory {text!r}{_nearest(path)}: check the path")


def no_directory(source: str) -> str:
    """Return the start of a sentence about ORG/NAME that nobody registered, in case a directory was meant."""
    return f"there is no directory {source!r} here{_nearest(Path(source))}, so it is taken as a repository of the hub: "


def _nearest(path: Path) -> str:
    """Return what lies where a path ends: a name that resembles the missing one, or the first part that is missing."""
    missing = next(part for part in (*reversed(path.parents), path) if not part.exists())
    if missing != path:
        return f" ({str(missing)!r} is not there)"
    names = [inner.name for inner in missing.parent.iterdir() if inner.is_dir()]
    similar = get_close_matches(path.name, names, n=1)
    return f" (there is {str(path.parent / similar[0])!r})" if similar else ""
