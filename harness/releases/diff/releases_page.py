"""The steps between releases as tables, and the page with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from harness.errors import shorten
from harness.releases.diff.release_steps import ReleaseStep
from harness.releases.diff.release_verdict import ReleaseVerdict, TypeChange
from harness.releases.diff.upstream_causes import causes_of
from harness.releases.release_outputs import format_table
from harness.storage.templates import render

# Verdicts without a row of their own in the tables: nothing changed, or nothing was measured.
_QUIET = (ReleaseVerdict.SAME, ReleaseVerdict.REFUSED, ReleaseVerdict.NEW)
_CELLS = {ReleaseVerdict.SAME: "=", ReleaseVerdict.REFUSED: "", ReleaseVerdict.NEW: "new"}
_LONGEST = 300  # characters of a remark on the page
_COLUMNS = ("type", "verdict", "from point", "similarity by", "states by", "first")


def step_text(step: ReleaseStep) -> str:
    """Return the step for a terminal: the counts, a table of the types that changed, and a line for each remark."""
    changes = _changes(step)
    table = format_table([_row(change) for change in changes], _COLUMNS) if changes else "No type changed."
    lines = [f"{change.model_type}: {'; '.join(remarks)}" for change in changes if (remarks := _remarks(step, change))]
    return "\n".join([counts_line(step), "", table, *([""] if lines else []), *lines])


def counts_line(step: ReleaseStep) -> str:
    """Return the number of types by verdict, as in "5.2.0 -> 5.4.0: 1 moved, 3 same; processors: 4 same"."""
    verdicts = Counter(change.verdict for change in step.changes.values())
    types = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in ReleaseVerdict if verdicts[verdict])
    states = Counter(change.processor for change in step.changes.values())
    processors = ", ".join(f"{states[state]} {state}" for state in ("changed", "same", "not read") if states[state])
    return f"{step.title}: {types}; processors: {processors}"


def releases_page(steps: Sequence[ReleaseStep], command: str, versions: Mapping[str, str]) -> str:
    """Return the page in Markdown.

    Args:
        steps: the measured steps.
        command: the command that makes the page.
        versions: the date, and the releases of torch and Python.
    """
    changed = {change.model_type for step in steps for change in _changes(step)}
    quiet = [change for step in steps for change in step.changes.values() if change.model_type not in changed]
    same = {change.model_type for change in quiet if change.verdict is ReleaseVerdict.SAME}
    # The newest step that compared a type speaks for it.
    latest = {name: change for step in steps for name, change in step.changes.items() if change.moves or change.remarks}
    return render(
        "harness.releases.diff",
        "releases.md.jinja",
        {
            **versions,
            "command": command,
            "matrix": _matrix_table(steps, sorted(changed)),
            "steps": [(step.title, counts_line(step), _changes_table(step)) for step in steps],
            "same": _join_names(same),
            "refused": _join_names({change.model_type for change in quiet} - same),
            "standing": [
                (name, "; ".join(change.remarks))
                for name, change in sorted(latest.items())
                if change.verdict is ReleaseVerdict.SAME
            ],
        },
    )


def _matrix_table(steps: Sequence[ReleaseStep], names: Sequence[str]) -> str:
    """Return a row for each named type and a column for each step, in Markdown."""
    rows = [[f"`{name}`", *(_cell(step.changes.get(name)) for step in steps)] for name in names]
    return format_table(rows, ["type", *(step.title for step in steps)], markdown=True) if rows else "No type changed."


def _changes_table(step: ReleaseStep) -> str:
    rows = [
        [f"`{change.model_type}`", *_row(change)[1:], shorten("; ".join(_remarks(step, change)), _LONGEST)]
        for change in _changes(step)
    ]
    return format_table(rows, [*_COLUMNS, "cause or remark"], markdown=True) if rows else "No type changed."


def _changes(step: ReleaseStep) -> list[TypeChange]:
    return [change for change in step.changes.values() if change.verdict not in _QUIET]


def _remarks(step: ReleaseStep, change: TypeChange) -> list[str]:
    return [*causes_of(change.model_type, step.old.transformers, step.new.transformers), *change.remarks]


def _row(change: TypeChange) -> list[str]:
    if not change.moves:
        return [change.model_type, str(change.verdict), "", "", "", ""]
    first = change.moves[0]
    sizes = [f"{size:.2g}" for size in (change.largest, change.relative)]
    return [change.model_type, str(change.verdict), str(first.first_point), *sizes, first.quantity]


def _cell(change: TypeChange | None) -> str:
    if change is None:
        return ""
    if not change.moves:
        return _CELLS.get(change.verdict, str(change.verdict))
    return f"{change.verdict} {change.largest:.2g} from {change.moves[0].first_point}"


def _join_names(names: set[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "none"
