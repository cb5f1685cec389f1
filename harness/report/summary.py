"""The summary that ends a run: one row per pair, and what became of the baselines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from tabulate import tabulate

from harness.analysis.moves import persistence
from harness.analysis.turning_points import BoundaryInterval
from harness.baselines import LEAST_SAMPLES
from harness.comparison import FAMILIES
from harness.models.likelihood import CHANCE
from harness.models.registry import MODELS
from harness.options import Pair
from harness.phases import CLAIM_RECALL, SHARES, phase_reading, relative_depth
from harness.profile import Profile
from harness.report.beyond import beyond_table
from harness.report.layers import layer_ranges
from harness.session import PhaseSession, VerdictLine
from harness.word_order import CONFIDENCE, scores_of

# One letter a verdict, so that five claims and five regressions fit a terminal; the legend stands below the table.
_MARKS = {
    "holds": "+",
    "fails": "-",
    "inconclusive": "?",
    "reproduces": "=",
    "equivalent": "~",
    "differs": "!",
}
_CLAIM_MARKS = {
    "four-phases": "4",
    "alignment": "I",
    "intra-modal": "II",
    "inter-modal": "III",
    "output-preparation": "IV",
}


def summary_lines(session: PhaseSession) -> list[str]:
    """The lines of the summary."""
    rows = [_row(session, pair, profile) for pair, profile in session.profiles.items()]
    header = ["pair", "n", "phases end at layer", "moves", "claims", "recall", "regression", "hooked/plain"]
    lines = tabulate(rows, headers=header, tablefmt="simple", disable_numparse=True).splitlines()
    lines.append("")
    lines.append(
        "claims: + holds, - fails, ? inconclusive   regression: = reproduces, ~ equivalent, ! differs, ? inconclusive"
    )
    lines.append(
        "phases: where I / II / III end, with 99 % intervals; moves: certified at 10 % of the range, in "
        f"brackets k(delta) of the mean at {', '.join(f'{share:.0%}' for share in SHARES)}; recall: top 5 at "
        "the last point, in brackets that of another sample's words"
    )
    lines += relative_lines({str(pair): profile for pair, profile in session.profiles.items()})
    lines += [line for pair, profile in session.profiles.items() for line in unread_lines(str(pair), profile)]
    lines += _beyond_lines(session)
    lines += _winoground_lines(session)
    lines += _baseline_lines(session)
    return lines


def relative_lines(profiles: Mapping[str, Profile]) -> list[str]:
    """The boundaries as shares of the depth, in a table of its own; none where layers say as much.

    Models of different depth compare by nothing else, and of a model that nobody registered a reader has no other
    depth in mind. For one depth alone it would only say the layers again, and the main table has no room for both.

    Args:
        profiles: by the name of the pair.
    """
    known = all(profile.model in MODELS for profile in profiles.values())
    if known and len({profile.depth for profile in profiles.values()}) < 2:
        return []
    rows = []
    for name, profile in profiles.items():
        points = phase_reading(profile).boundaries.turning_points
        shares = (relative_depth(point, profile.depth) for point in points)
        rows.append([name, str(profile.depth), *(_end(share, ".2f") for share in shares)])
    header = ["pair", "layers", "I ends at", "II ends at", "III ends at"]
    return [
        "",
        *tabulate(rows, headers=header, tablefmt="simple", disable_numparse=True).splitlines(),
        "",
        "shares of the depth: 0 is the embeddings, 1 the input of the final norm; with 99 % intervals",
        "",
    ]


def _row(session: PhaseSession, pair: Pair, profile: Profile) -> list[str]:
    reading = phase_reading(profile)
    ends = " / ".join(_end(point) for point in reading.boundaries.turning_points)
    recall = f"{profile[CLAIM_RECALL].mean(0)[-1]:.2f} ({profile['recall_chance_5'].mean(0)[-1]:.2f})"
    mine = [line for line in session.verdicts if line.pair == pair]
    judged = {line.question: line.verdict for line in mine if line.kind == "replication"}
    claims = " ".join(f"{mark}{_MARKS[judged[claim]]}" for claim, mark in _CLAIM_MARKS.items() if claim in judged)
    ratio = session.ratios.get(pair)
    timing = "" if ratio is None else f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})"
    mean = reading.summary.mean
    kept, spread = persistence(mean), float(mean.max() - mean.min())
    moves = f"{reading.any_moves.count} ({' '.join(str(kept.moves_at(share * spread)) for share in SHARES)})"
    return [str(pair), str(profile.n), ends, moves, claims, recall, _regressions(mine), timing]


def unread_lines(name: str, profile: Profile) -> list[str]:
    """In which layers of a pair there is no attention to read, or only its weights."""
    weighed, normed = (profile[f"{kind}_self"].any(axis=0) for kind in ("weight", "norm"))
    told = (("no softmax attention", ~weighed), ("attention by weight only", weighed & ~normed))
    return [
        f"{name}: {what} in layers {layer_ranges(np.flatnonzero(where) + 1)}, whose shares are 0"
        for what, where in told
        if where.any()
    ]


def _beyond_lines(session: PhaseSession) -> list[str]:
    """What the claims show beyond their controls, in the order of the paper's phases."""
    table = beyond_table(
        (str(pair), claims[name]) for pair, claims in session.claims.items() for name in _CLAIM_MARKS if name in claims
    )
    if not table:
        return []
    return [
        "",
        *table,
        "",
        "beyond: real minus control on the same samples; in brackets what is not certain, or not on the claim's side",
        "",
    ]


def _winoground_lines(session: PhaseSession) -> list[str]:
    """Winoground's scores of the pairs that have them."""
    lines = []
    for pair, profile in session.profiles.items():
        scores = scores_of(profile)
        told = [f"{name} {s.share:.2f} [{s.low:.2f}-{s.high:.2f}]" for name, s in scores.items()]
        if told:
            lines.append(f"Winoground scores of {pair}: {', '.join(told)} of {scores['group'].items} items")
    if lines:
        guessed = ", ".join(f"{name} {share:.2f}" for name, share in CHANCE.items())
        lines.append(f"  with {CONFIDENCE:.0%} intervals; a guess reaches {guessed}")
    return lines


def _end(point: BoundaryInterval, form: str = "g") -> str:
    if point.low == point.high:
        return f"{point.estimate:{form}}"
    return f"{point.estimate:{form}} [{point.low:{form}}-{point.high:{form}}]"


def _regressions(lines: list[VerdictLine]) -> str:
    judged = {line.question: line.verdict for line in lines if line.kind == "regression"}
    return " ".join(
        f"{name}{_MARKS[judged[name]]}" for name in (*FAMILIES, "boundaries", "intervals") if name in judged
    )


def _baseline_lines(session: PhaseSession) -> list[str]:
    how = Counter(session.stored.written.values())
    unused = session.stored.unused()
    counts = [
        f"{len(session.stored.matched)} matched",
        f"{how['changed']} changed",
        f"{how['new']} new",
        f"{len(unused)} unused",
    ]
    if how["calibrated"]:
        counts.append(f"{how['calibrated']} calibrated")
    lines = [f"baselines: {', '.join(counts)}"]
    lines += [f"  wrote {path} ({kind})" for path, kind in session.stored.written.items()]
    lines += [f"  unused {path}: no pair of that name; remove it if it is no longer wanted" for path in unused]
    small = [profile.pair for profile in session.profiles.values() if profile.n < LEAST_SAMPLES]
    if small:
        lines.append(f"  fewer than {LEAST_SAMPLES} samples for {', '.join(small)}: expect inconclusive verdicts")
    return lines
