"""The steps between releases as tables, and the page with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from harness.releases.diff.release_steps import ReleaseStep
from harness.releases.diff.release_verdict import ReleaseVerdict, TypeChange
from harness.releases.diff.upstream_causes import causes_of
from harness.releases.release_outputs import format_table
from harness.storage.templates import render

# Verdicts without a row of their own in the tables: nothing changed, or nothing was measured.
_QUIET = (ReleaseVerdict.SAME, ReleaseVerdict.REFUSED, ReleaseVerdict.NEW)
_SYMBOLS = {ReleaseVerdict.SAME: "=", ReleaseVerdict.REFUSED: "", ReleaseVerdict.NEW: "new"}
_LONGEST = 400  # characters of a remark


def changes_table(step: ReleaseStep, *, markdown: bool = False) -> str:
    """Return a row for each type that changed: verdict, first residual point, size, what moved first, remarks."""
    rows = [
        [*_row(change), "; ".join([*causes_of(name, step.old, step.new), *change.remarks])[:_LONGEST]]
        for name, change in step.changes.items()
        if change.verdict not in _QUIET
    ]
    headers = ["type", "verdict", "from point", "similarity by", "states by", "first", "cause or remark"]
    if markdown:
        rows = [[f"`{name}`", *cells] for name, *cells in rows]
    return format_table(rows, headers, markdown=markdown) if rows else "No type changed."


def counts_line(step: ReleaseStep) -> str:
    """Return the number of types by verdict, as in "5.2.0 -> 5.4.0: 1 moved, 3 same"."""
    counts = Counter(change.verdict for change in step.changes.values())
    numbers = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ReleaseVerdict if counts[verdict])
    return f"{step.title}: {numbers}"


def matrix_table(steps: Sequence[ReleaseStep]) -> str:
    """Return a row for each type that changed in a step, a column per step, in Markdown."""
    names = sorted({name for step in steps for name, change in step.changes.items() if change.verdict not in _QUIET})
    rows = [[f"`{name}`", *(_cell(step.changes.get(name)) for step in steps)] for name in names]
    headers = ["type", *(step.title for step in steps)]
    return format_table(rows, headers, markdown=True) if rows else "No type changed."


def releases_page(steps: Sequence[ReleaseStep], command: str, versions: Mapping[str, str]) -> str:
    """Return the page in Markdown.

    Args:
        steps: the measured steps.
        command: the command that makes the page.
        versions: the date, and the releases of torch and Python.
    """
    names = {name for step in steps for name in step.changes}
    changed = {name for step in steps for name, change in step.changes.items() if change.verdict not in _QUIET}
    measured = {name for step in steps for name, change in step.changes.items() if change.verdict in _MEASURED}
    return render(
        "harness.releases.diff",
        "releases.md.jinja",
        {
            **versions,
            "command": command,
            "matrix": matrix_table(steps),
            "steps": [(counts_line(step), changes_table(step, markdown=True)) for step in steps],
            "constant": sorted(measured - changed),
            "unmeasured": sorted(names - measured - changed),
        },
    )


_MEASURED = (ReleaseVerdict.SAME, ReleaseVerdict.MOVED)


def _row(change: TypeChange) -> list[str]:
    record = change.record()
    moved = record["first_point"] is not None
    return [
        change.model_type,
        str(change.verdict),
        str(record["first_point"]) if moved else "",
        f"{record['largest']:.2g}" if moved else "",
        f"{record['relative']:.2g}" if moved else "",
        record["quantity"] or "",
    ]


def _cell(change: TypeChange | None) -> str:
    if change is None:
        return ""
    if not change.moves:
        return _SYMBOLS.get(change.verdict, str(change.verdict))
    first = change.moves[0]
    return f"{change.verdict} {max(move.largest for move in change.moves):.2g} from {first.first_point}"
