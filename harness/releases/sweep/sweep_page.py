"""The page and the record of a type sweep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from harness.releases.sweep.type_verdicts import Outcome, TypeVerdict

_INTRODUCTION = """# Model types

Every type that transformers maps to an image-text-to-text model, as a tiny random model of {depth} decoder layers
with a batch of two prompts, the second left-padded. Made by `python -m harness.releases.sweep --write {page}`; run by
`pytest -m types`. Parts are found by structure; what structure does not tell is a row with a reason in
`harness/models/kinds.py`.

**Measured** means that all of this was exact:

- the states at every residual point, against a forward pass with eager attention;
- the last query's attention in every layer, against eager's own weights;
- the sum of the attention parts, against the layer's attention output;
- the lens at the last point, against the model's own logits;
- the image positions, against the model's own placeholder mask and the positions that change with the pixels;
- hooks, attention implementation and training flags: afterwards as before.

**Refused** is what a user is told of such a model, or what could not be built here.

With transformers {transformers} and torch {torch}: **{measured} of {total} types measured, {refused} refused,
{failed} failed.**

"""


def record(found: Sequence[TypeVerdict], versions: Mapping[str, str]) -> dict[str, Any]:
    """The verdicts as JSON holds them."""
    return {
        **versions,
        "types": {
            verdict.model_type: {
                "verdict": str(verdict.outcome),
                "remark": verdict.remark,
                "seconds": round(verdict.seconds, 1),
            }
            for verdict in found
        },
    }


def page(found: Sequence[TypeVerdict], versions: Mapping[str, str], *, name: str, depth: int) -> str:
    """The page in Markdown: how many, what each word means, one row per type."""
    counts = Counter(verdict.outcome for verdict in found)
    told = _INTRODUCTION.format(
        **versions,
        page=name,
        depth=depth,
        total=len(found),
        **{str(outcome): counts[outcome] for outcome in Outcome},
    )
    rows = [(f"`{verdict.model_type}`", verdict.outcome, verdict.remark.replace("|", "\\|")) for verdict in found]
    return told + tabulate(rows, headers=["type", "verdict", "remark"], tablefmt="github") + "\n"
