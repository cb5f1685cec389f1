"""Differences of the claims to their controls as text, for the summary and for messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.analysis.claims import CHANCE, Claim
from harness.analysis.control_difference import ControlDifference, CurveDifference
from harness.profile.measures import layer_ranges
from harness.profile.profile import Profile
from harness.report.layout import fold, table_lines, unbroken


def control_table(claims: Iterable[tuple[str, Claim]], width: int | None = None) -> list[str]:
    """Return a table with one row per pair and claim: the verdict, and the difference to each control.

    If the table is wider than `width`, return a table per pair with folded cells.

    Args:
        claims: names of pairs with their claims, in the order of the rows.
        width: of the terminal, in columns; None does not fold lines.
    """
    rows = [(pair, claim, control_cells(claim)) for pair, claim in claims]
    controls = list(dict.fromkeys(control for _, _, cells in rows for control in cells))
    if not controls:
        return []
    table = [
        [pair, claim.name, str(claim.verdict), *(_unbroken_pieces(cells.get(control, "")) for control in controls)]
        for pair, claim, cells in rows
    ]
    counts = _counts(claim for _, claim, _ in rows)
    headers = ["pair", "claim", "verdict", *(f"real - {control}{counts.get(control, '')}" for control in controls)]
    full_table = table_lines(headers, table)
    if width is None or max(map(len, full_table)) <= width:
        return full_table
    lines: list[str] = []
    for pair in dict.fromkeys(row[0] for row in table):
        pair_rows = [row[1:2] + row[3:] for row in table if row[0] == pair]
        lines += [*([""] if lines else []), *fold(f"{pair}, difference to its controls:", width)]
        lines += table_lines(headers[1:2] + headers[3:], pair_rows, width)
    return lines


def control_name(profile: Profile, control: str) -> str:
    """Return the name of a control for a legend, with the number of its samples if it was measured on some only."""
    count = len(profile.samples_of(control))
    return control if count == profile.n else f"{control}, n = {count}"


def _counts(claims: Iterable[Claim]) -> dict[str, str]:
    """Return the number of independent rows of each control that has fewer than its claim, as text: ', n = 64'."""
    differences = ((claim.parts[0].n, item) for claim in claims for item in _differences(claim))
    smaller: dict[str, set[int]] = {}
    for n, difference in differences:
        if difference.n < n:
            smaller.setdefault(difference.control, set()).add(difference.n)
    return {control: f", n = {'-'.join(map(str, sorted({min(n), max(n)})))}" for control, n in smaller.items()}


def _differences(claim: Claim) -> tuple[CurveDifference | ControlDifference, ...]:
    return (*claim.curve_differences, *claim.control_differences)


def _unbroken_pieces(cell: str) -> str:
    return ", ".join(unbroken(piece) for piece in cell.split(", "))


def control_cells(claim: Claim) -> Mapping[str, str]:
    """Return the difference of a claim's effects to each control as text, by control."""
    cells = {curve.control: curve_difference_text(curve) for curve in claim.curve_differences}
    for control in dict.fromkeys(difference.control for difference in claim.control_differences):
        differences = [difference for difference in claim.control_differences if difference.control == control]
        cells[control] = ", ".join(
            (f"{difference.quantity} " if len(differences) > 1 else "") + effect_difference_text(difference)
            for difference in differences
        )
    return cells


def control_lines(claim: Claim) -> list[str]:
    """Return the differences to the controls with intervals, one per line, for a message."""
    lines = [
        f"difference to {curve.control}: {curve_difference_text(curve)} (margin {curve.margin:g}, "
        f"{curve.confidence:.0%} for all layers at once, n = {curve.n})"
        for curve in claim.curve_differences
    ]
    for difference in claim.control_differences:
        low, high = difference.interval
        control = "another sample's words" if difference.control == CHANCE else difference.control
        lines.append(
            f"difference to {control}: {difference.quantity} {difference.effect:+.3g} ({low:+.3g} to {high:+.3g}), "
            f"n = {difference.n}"
        )
    return lines


def curve_difference_text(curve: CurveDifference, form: str = "+.2g") -> str:
    """Return the difference of a curve to its control: '+0.08 at layers 3-19, -0.02 at layers 28-30', or 'none'."""
    parts = [
        f"{size:{form}} at layers {layer_ranges(layers)}"
        for size, layers in ((curve.highest, curve.above), (curve.lowest, curve.below))
        if layers
    ]
    return ", ".join(parts) or "none"


def effect_difference_text(difference: ControlDifference) -> str:
    """Return the difference of an effect to its control.

    It is in brackets unless its interval excludes zero in the direction of the claim.
    """
    text = f"{difference.effect:+.2g}"
    return text if difference.confirmed else f"({text})"
