"""The matrix as a table: one row per cell, and the pairs of each in detail."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from harness.releases.versions.outcome import TYPE_VERDICTS, Outcome

#: What is printed of each pair's differences: the three curves, the attention that carries a norm, the lens.
MEASURES = ("inter", "inter_adjusted", "image", "text", "norm_image", "recall_5")
_NONE = "-"


def matrix_table(outcomes: Sequence[Outcome], form: str = "simple") -> str:
    """The matrix: releases, whether they install, types by verdict, the worst verdict of each pair, largest difference.

    A cell without an environment has its reason in the place of "yes".
    """
    pairs = pairs_of(outcomes)
    headers = ["transformers", "torch", "installs", *TYPE_VERDICTS, *pairs, "largest in inter", "seconds"]
    rows = [
        [
            told.cell.transformers,
            told.cell.torch,
            f"no: {told.problem}" if told.problem else "yes",
            *(_shown(told.count(verdict)) for verdict in TYPE_VERDICTS),
            *(_shown(told.worst(pair)) for pair in pairs),
            _small(told.largest("inter")),
            f"{sum(told.seconds.values()):.0f}",
        ]
        for told in outcomes
    ]
    return tabulate(rows, headers, tablefmt=form, disable_numparse=True)


def pairs_table(outcomes: Sequence[Outcome], form: str = "simple") -> str:
    """Cells by pairs: the questions that do not reproduce, and the largest difference of any sample by measure."""
    headers = ["transformers", "torch", "pair", "not reproduced", *MEASURES]
    rows = [
        [
            told.cell.transformers,
            told.cell.torch,
            pair,
            ", ".join(f"{question} ({verdict})" for question, verdict in not_reproduced(told, pair)) or "nothing",
            *(_small(told.largest(measure, pair)) for measure in MEASURES),
        ]
        for told in outcomes
        for pair in told.pairs or {}
    ]
    return tabulate(rows, headers, tablefmt=form, disable_numparse=True)


def pairs_of(outcomes: Sequence[Outcome]) -> list[str]:
    """Every pair that some cell was asked for, in the order of their appearance."""
    return list(dict.fromkeys(pair for told in outcomes for pair in told.pairs or {}))


def not_reproduced(told: Outcome, pair: str) -> list[tuple[str, str]]:
    """The questions of a pair whose answer is not "reproduces", with the answer."""
    verdicts = (told.pairs or {})[pair]["verdicts"]
    return [(question, verdict) for question, verdict in verdicts.items() if verdict != "reproduces"]


def _shown(value: object) -> str:
    return _NONE if value is None else str(value)


def _small(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1e}" if value else "0"
