"""A pair in a few lines of words, for a terminal that is too narrow for the table."""

from __future__ import annotations

from collections.abc import Sequence

from harness.judgement.phases import SHARES
from harness.report.layout import Line, folded, kept, named
from harness.report.outcomes import Group, Outcome, interval_words, phase_ranges

# Where the text beside the names begins.
_COLUMN = 16


def block_lines(outcome: Outcome, width: int, *, relative: bool = False) -> list[Line]:
    """The lines of one pair, at most `width` wide; with `relative` its phases as shares of the depth too."""
    lines = [Line(text) for text in folded(f"{outcome.name}: {outcome.n} samples, {outcome.depth} layers", width)]

    def tell(name: str, text: str, colour: str = "") -> None:
        lines.extend(Line(line, colour) for line in named(name, text, width, _COLUMN))

    tell("phases", f"in layers: {_listed(phase_ranges(outcome))}")
    if relative:
        tell("depth", f"I, II, III end at {_listed([interval_words(end, '.2f') for end in outcome.shares])} of it")
    counts = ", ".join(str(count) for count in outcome.moves_at)
    shares = ", ".join(f"{100 * share:g}" for share in SHARES)
    tell(
        "moves",
        f"{outcome.moves} certified at 10 % of the curve's range; the mean makes {kept(counts)} at {kept(shares)} %",
    )
    for name, groups in (("claims", outcome.claim_groups()), ("regression", outcome.regression_groups())):
        for place, group in enumerate(groups):
            tell("" if place else name, _said(group), group.colour)
    for place, text in enumerate(outcome.notes):
        tell("" if place else "baseline", text)
    if outcome.recall is None or outcome.chance is None:
        tell("recall", f"left out: {outcome.no_recall}")
    else:
        tell("recall", f"{outcome.recall:.2f} of the words; of another sample's words, by chance, {outcome.chance:.2f}")
    if outcome.ratio is not None:
        ratio, low, high = outcome.ratio
        tell("hooked/plain", f"{ratio:.2f} times the plain time {kept(f'({low:.2f} to {high:.2f})')}")
    return lines


def _said(group: Group) -> str:
    return f"{kept(group.words)}: {', '.join(group.questions)}"


def _listed(words: Sequence[str]) -> str:
    return ", ".join(kept(word) for word in words)
