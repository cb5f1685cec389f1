"""What became of every vision-language type of transformers: measured, refused or failed, with a remark."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import PhaseError
from harness.models.anatomy import AnatomyError, find_anatomy
from harness.models.kinds import kind_of
from harness.probe.attention import AttentionError
from harness.releases.sweep.exactness import examine
from harness.releases.sweep.prompts import tiny_prompt
from harness.releases.sweep.tiny_model import tiny_model


class Outcome(StrEnum):
    """What became of a type."""

    MEASURED = "measured"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class TypeVerdict:
    """The outcome for one type, what is to be said of it, and the seconds that it took."""

    model_type: str
    outcome: Outcome
    remark: str
    seconds: float


def vision_language_types() -> Mapping[str, str]:
    """The types that the installed transformers maps to an image-text-to-text model, and their classes' names."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return dict(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)


def verdict_on(model_type: str, class_name: str) -> TypeVerdict:
    """The verdict on one type, by a tiny random model of it; never an exception.

    Refused is what the harness would tell a user of such a model, too, or what needs a library that is not here.
    """
    began = time.perf_counter()
    outcome, remark = _outcome(model_type, class_name)
    return TypeVerdict(model_type, outcome, remark, time.perf_counter() - began)


def verdicts(types: Iterable[str] | None = None) -> Iterator[TypeVerdict]:
    """The verdicts on all types, or on those named, as they come."""
    known = vision_language_types()
    for model_type in known if types is None else types:
        yield verdict_on(model_type, known[model_type])


def _outcome(model_type: str, class_name: str) -> tuple[Outcome, str]:
    if kind_of(model_type).refused:
        return Outcome.REFUSED, kind_of(model_type).reason
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = tiny_model(model_type, class_name)
            anatomy = find_anatomy(model)
            remarks = examine(model, anatomy, tiny_prompt(model, anatomy))
    except (AnatomyError, AttentionError) as error:
        return Outcome.REFUSED, _plain(str(error).removeprefix(f"{class_name} "))
    except ImportError as error:
        return Outcome.REFUSED, f"not tried, a library is missing here: {_plain(str(error))}"
    except PhaseError as error:
        return Outcome.FAILED, _plain(str(error))
    # Whatever a model's own code raises is a finding of the sweep, not its end.
    except Exception as error:
        return Outcome.FAILED, f"{type(error).__name__}: {_plain(str(error))}"
    return Outcome.MEASURED, "; ".join(remarks)


def _plain(text: str) -> str:
    """The first sentence of a message, on one line."""
    line = " ".join(text.split())
    return line.split(". ")[0].rstrip(".")[:300]
