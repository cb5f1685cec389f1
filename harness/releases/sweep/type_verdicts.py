"""Verdicts on the vision-language types of transformers (measured, refused, failed), their record and page."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from harness.errors import PhaseError
from harness.models.anatomy import AnatomyError, find_anatomy
from harness.models.kinds import kind_of
from harness.probe.attention import AttentionError
from harness.releases.release_outputs import error_sentence, first_sentence, format_table
from harness.releases.sweep.exactness import examine
from harness.releases.tiny.prompts import tiny_prompt
from harness.releases.tiny.tiny_model import tiny_model
from harness.storage.templates import render


class TypeOutcome(StrEnum):
    """The verdict on a type."""

    MEASURED = "measured"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class TypeVerdict:
    """The outcome for one type, a remark, and the seconds of its check."""

    model_type: str
    outcome: TypeOutcome
    remark: str
    seconds: float


def vision_language_types() -> Mapping[str, str]:
    """Return class names by type, for all types that transformers maps to an image-text-to-text model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return dict(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)


def verdict_on(model_type: str, class_name: str) -> TypeVerdict:
    """Return the verdict on one type from a tiny random model of it; never raise an exception.

    A type is refused if the harness refuses such models or if a required library is not installed.
    """
    start = time.perf_counter()
    outcome, remark = _outcome(model_type, class_name)
    return TypeVerdict(model_type, outcome, remark, time.perf_counter() - start)


def _outcome(model_type: str, class_name: str) -> tuple[TypeOutcome, str]:
    if kind_of(model_type).refused:
        return TypeOutcome.REFUSED, kind_of(model_type).reason
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = tiny_model(model_type, class_name)
            anatomy = find_anatomy(model)
            remarks = examine(model, anatomy, tiny_prompt(model, anatomy))
    except (AnatomyError, AttentionError) as error:
        return TypeOutcome.REFUSED, first_sentence(str(error).removeprefix(f"{class_name} "))
    except ImportError as error:
        return TypeOutcome.REFUSED, f"not tried, a library is missing here: {first_sentence(str(error))}"
    except PhaseError as error:
        return TypeOutcome.FAILED, first_sentence(str(error))
    # An error in a model's own code is a result of the sweep and must not end it.
    except Exception as error:
        return TypeOutcome.FAILED, error_sentence(error)
    return TypeOutcome.MEASURED, "; ".join(remarks)


def types_record(verdicts: Sequence[TypeVerdict], versions: Mapping[str, str]) -> dict[str, Any]:
    """Return the verdicts as a JSON-serialisable mapping."""
    types = {
        verdict.model_type: {
            "verdict": str(verdict.outcome),
            "remark": verdict.remark,
            "seconds": round(verdict.seconds, 1),
        }
        for verdict in verdicts
    }
    return {**versions, "types": types}


def types_page(verdicts: Sequence[TypeVerdict], versions: Mapping[str, str], *, name: str, depth: int) -> str:
    """Return the page in Markdown: counts, definitions, and one row per type."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    rows = [(f"`{verdict.model_type}`", verdict.outcome, verdict.remark) for verdict in verdicts]
    return render(
        "harness.releases.sweep",
        "types.md.jinja",
        {
            **versions,
            **{str(outcome): counts[outcome] for outcome in TypeOutcome},
            "page": name,
            "depth": depth,
            "total": len(verdicts),
            "table": format_table(rows, ["type", "verdict", "remark"], markdown=True),
        },
    )
