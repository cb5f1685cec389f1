"""The numbers of the report as JSON: the record, and beside it what no two runs agree on and the samples in full."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from harness.errors import LONGEST_TOKEN, bounded, bounded_texts
from harness.judgement.phases import number
from harness.profile.profile import Drawing, Profile
from harness.report.against import ModelComparison
from harness.report.record import record_of
from harness.run.session import PhaseSession
from harness.storage.json_text import rounded


def report_record(session: PhaseSession, compared: Sequence[ModelComparison] = ()) -> dict[str, Any]:
    """The record of a run with `timing`, and with `drawn` in every pair: all that the report shows."""
    record = record_of(session, compared)
    for pair, profile in session.profiles.items():
        record["pairs"][str(pair)]["drawn"] = drawn_record(profile)
    return record | {"timing": timing_record(session)}


def timing_record(session: PhaseSession) -> dict[str, dict[str, float | None]]:
    """The time of hooked inference over that of plain inference per pair that was timed, with its interval."""
    return {
        str(pair): {"ratio": number(ratio), "low": number(low), "high": number(high)}
        for pair, (ratio, low, high) in session.ratios.items()
    }


def drawn_record(profile: Profile) -> list[dict[str, Any]]:
    """The samples of a profile that were kept in full, their texts of bounded length.

    Texts are as the tokenizer decodes them: not to be trusted.
    """
    return [_drawn(drawing) for drawing in profile.drawings]


def _drawn(drawing: Drawing) -> dict[str, Any]:
    return {
        "sample_id": drawing.sample_id,
        "instruction": bounded(drawing.instruction),
        "captions": bounded_texts(drawing.captions),
        "tokens": _tokens(drawing.tokens),
        "groups": {name: [bool(member) for member in members] for name, members in drawing.groups.items()},
        "norm_rows": rounded(drawing.norm_rows),
        "image_tokens": [_tokens(point) for point in drawing.image_tokens],
        "last_token": [_tokens(point) for point in drawing.last_token],
        "picture": _png(drawing),
        "grid": None if drawing.grid is None else list(drawing.grid),
        "no_grid": drawing.no_grid,
    }


def _tokens(texts: Sequence[str]) -> list[str]:
    return [bounded(text, LONGEST_TOKEN) for text in texts]


def _png(drawing: Drawing) -> str:
    """The picture as base64 of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(drawing.picture).save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
