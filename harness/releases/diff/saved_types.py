"""A tiny model of one type: made, saved and read by one release; loaded and read by another."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from harness.errors import PhaseError, shorten
from harness.models.anatomy import Anatomy, AnatomyError, find_anatomy
from harness.models.kinds import kind_of
from harness.probe.attention import AttentionError
from harness.releases.diff.generation import check_generation
from harness.releases.diff.saved_prompts import load_prompts, save_prompts
from harness.releases.diff.type_readings import Arrays, read_prompt
from harness.releases.diff.type_report import (
    COMPLETED,
    LOADED,
    MADE,
    TypeReport,
    TypeState,
    load_report,
    save_arrays,
    save_report,
)
from harness.releases.processors.processor_reader import make_processor, read_processor
from harness.releases.processors.processor_readings import ProcessorReadings
from harness.releases.release_outputs import first_sentence
from harness.releases.tiny.prompts import PromptFormError, TinyPrompt, add_token_types, run_prompt, tiny_prompts
from harness.releases.tiny.tiny_model import tiny_model

BASE = "base"
_MODEL, _PROMPTS, _PROCESSOR = "model", "prompts.safetensors", "processor"
_LONGEST = 300  # characters of a reason


def make_type(model_type: str, class_name: str, directory: Path) -> TypeReport:
    """Make a tiny model of a type, save it with its prompts, load it again, and store the readings of both.

    The directory gets the model, the prompts, the readings and the report. No error is raised: the report has it.
    """

    def make(report: TypeReport) -> None:
        model = tiny_model(model_type, class_name)
        anatomy = find_anatomy(model)
        prompts = tiny_prompts(model, anatomy)
        report.skipped = prompts.skipped
        save_prompts(directory / _PROMPTS, prompts)
        save_arrays(directory, MADE, _read_prompts(model, anatomy, prompts))
        model.save_pretrained(directory / _MODEL)
        again = _load_model(directory / _MODEL, class_name, report)
        save_arrays(directory, LOADED, _read_prompts(again, find_anatomy(again), prompts))
        report.generation = check_generation(again, prompts[BASE])

    return _report(model_type, directory, make, lambda: make_processor(model_type, directory / _PROCESSOR))


def load_type(model_type: str, class_name: str, saved: Path, directory: Path) -> TypeReport:
    """Load a model and a processor that another release saved, and store their readings on the saved inputs.

    A type that the other release did not read keeps its state, and only its processor is read.

    If the release refuses the saved inputs, it builds its own; the report names the inputs that differ. If it takes
    token types that the saved inputs lack, the readings with them are stored too, because it may compute other
    positions without them.

    Args:
        model_type: the type.
        class_name: the class of its models in this release.
        saved: the type's directory, written by `make_type` in the other release.
        directory: gets the readings and the report.
    """
    made = load_report(saved)

    def load(report: TypeReport) -> None:
        if made is not None and made.state is not TypeState.READ:
            report.state, report.reason = made.state, made.reason
            return
        model = _load_model(saved / _MODEL, class_name, report)
        anatomy = find_anatomy(model)
        accepted: dict[str, TinyPrompt] = {}
        completed: dict[str, TinyPrompt] = {}
        own: Mapping[str, TinyPrompt] = {}
        prompts = load_prompts(saved / _PROMPTS)
        # If the base prompt has the token types, the prompt without them leaves them out on purpose.
        takes_more = add_token_types(model, prompts[BASE]) is not None
        for name, prompt in prompts.items():
            extended = add_token_types(model, prompt) if takes_more else None
            try:
                run_prompt(model, prompt.inputs)
                accepted[name] = prompt
                if extended is not None:
                    completed[name] = extended
            except Exception as error:  # The model's code may raise any type.
                reason = first_sentence(str(error))
                own = {name: extended} if extended is not None else own or _own_prompts(model, anatomy, error)
                if name in own:
                    accepted[name] = own[name]
                    report.inputs[name] = f"{_name_inputs(prompt, own[name])} ({reason})"
                else:
                    report.inputs[name] = f"the prompt {name!r} is refused ({reason})"
        save_arrays(directory, LOADED, _read_prompts(model, anatomy, accepted))
        save_arrays(directory, COMPLETED, _read_prompts(model, anatomy, completed))
        report.generation = check_generation(model, (accepted | completed)[BASE])

    return _report(model_type, directory, load, lambda: read_processor(saved / _PROCESSOR))


def _report(
    model_type: str, directory: Path, work: Callable[[TypeReport], None], read: Callable[[], ProcessorReadings]
) -> TypeReport:
    start = time.perf_counter()
    directory.mkdir(parents=True, exist_ok=True)
    report = TypeReport(model_type)
    if kind_of(model_type).refused:
        report.state, report.reason = TypeState.REFUSED, kind_of(model_type).reason
    else:
        report.defaults = _default_fields(model_type)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                work(report)
        except (AnatomyError, AttentionError, ImportError) as error:
            report.state, report.reason = TypeState.REFUSED, _flat(error)
        # An error in a model's own code is a result, and must not end the comparison of the other types.
        except Exception as error:
            report.state, report.reason = TypeState.FAILED, f"{type(error).__name__}: {_flat(error)}"
    # A type that the harness refuses may have a processor all the same.
    try:
        report.processor = read()
    except (PhaseError, OSError) as error:
        report.unread = first_sentence(str(error))
    report.seconds = round(time.perf_counter() - start, 2)
    save_report(directory, report)
    return report


def _flat(error: Exception) -> str:
    """Return an error's message on one line."""
    return shorten(" ".join(str(error).split()), _LONGEST)


def _read_prompts(model: Any, anatomy: Anatomy, prompts: Mapping[str, TinyPrompt]) -> Arrays:
    readings = {name: read_prompt(model, anatomy, prompt) for name, prompt in prompts.items()}
    return {f"{name}/{key}": value for name, arrays in readings.items() for key, value in arrays.items()}


def _own_prompts(model: Any, anatomy: Anatomy, error: Exception) -> Mapping[str, TinyPrompt]:
    """Return the prompts that the running release builds.

    Raises:
        Exception: `error`, which a saved prompt caused, if the model refuses all forms.
    """
    try:
        return tiny_prompts(model, anatomy)
    except PromptFormError:
        raise error from None


def _load_model(directory: Path, class_name: str, report: TypeReport) -> Any:
    import transformers

    # Weights that the file lacks are drawn at random.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, info = getattr(transformers, class_name).from_pretrained(
            directory, dtype=torch.float32, output_loading_info=True, local_files_only=True
        )
    report.missing = sorted({*info["missing_keys"], *(str(key[0]) for key in info["mismatched_keys"])})
    return model.requires_grad_(False).eval()


def _name_inputs(saved: TinyPrompt, own: TinyPrompt) -> str:
    changes = {
        "now needed": [name for name in own.inputs if name not in saved.inputs],
        "no longer taken": [name for name in saved.inputs if name not in own.inputs],
        "of another shape": [
            name
            for name, value in own.inputs.items()
            if name in saved.inputs and value.shape != saved.inputs[name].shape
        ],
    }
    return "; ".join(f"{change}: {', '.join(names)}" for change, names in changes.items() if names) or "same names"


def _default_fields(model_type: str) -> dict[str, Any]:
    """Return the type's default configuration with plain values; empty if the class has no defaults."""
    from transformers import CONFIG_MAPPING

    try:
        return {name: _plain(value) for name, value in CONFIG_MAPPING[model_type]().to_dict().items()}
    except Exception:  # Any error of a configuration class, which `tiny_model` then reports.
        return {}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    finite = not isinstance(value, float) or abs(value) < float("inf")
    return value if isinstance(value, bool | int | float | str | None) and finite else str(value)
