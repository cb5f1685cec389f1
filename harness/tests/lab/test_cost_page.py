"""The page of the cost benchmark: growth, targets and sentences made of kept results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.analysis.timing import median_of_few, timing_ratio
from harness.lab.cost.__main__ import main
from harness.lab.cost.contestants import (
    ATTENTION,
    EVERYTHING,
    NNSIGHT,
    PLAIN,
)
from harness.lab.cost.cost_results import (
    SMALL_KIND,
    Cell,
    CellResult,
    CostRun,
    Outside,
    ResultsError,
    read_run,
    to_json,
)
from harness.lab.cost.targets import extra_memory, growth, ratio, targets


def result(tokens: int, layers: int, extra: np.ndarray, plain: float = 1.0, kind: str = SMALL_KIND) -> CellResult:
    times = {PLAIN: [plain] * len(extra), ATTENTION: list(plain + extra), EVERYTHING: list(plain + 3 * extra)}
    peaks = {PLAIN: 1000, ATTENTION: 1030, EVERYTHING: 1500}
    return CellResult(Cell(kind, "drawn", tokens, 16, layers, 1), times, peaks, 9000, 0.01)


def cells(a: float, b: float, spread: float = 0.02) -> list[CellResult]:
    rng = np.random.default_rng(0)
    return [
        result(tokens, layers, 1e-6 * tokens**a * layers**b * np.exp(spread * rng.standard_normal(9)))
        for tokens in (64, 300, 1200)
        for layers in (14, 32)
    ]


def test_the_fit_recovers_known_exponents() -> None:
    for a, b in ((1.0, 1.0), (2.0, 0.5)):
        found = growth(cells(a, b), EVERYTHING)
        assert found is not None
        assert found.tokens is not None
        assert found.layers is not None
        assert found.tokens[0] == pytest.approx(a, abs=0.03)
        assert found.layers[0] == pytest.approx(b, abs=0.05)
        low, high = found.tokens[1]
        assert low < found.tokens[0] < high < low + 0.1
    one_depth = [one for one in cells(1.0, 1.0) if one.cell.layers == 14]
    found = growth(one_depth, EVERYTHING)
    assert found is not None
    assert found.layers is None
    assert growth(one_depth[:1], EVERYTHING) is None


def test_a_cell_without_an_extra_is_left_out_and_counted() -> None:
    found = growth([*cells(1.0, 1.0), result(600, 14, np.full(5, -0.1))], EVERYTHING)
    assert found is not None
    assert (found.cells, found.dropped) == (6, 1)


def test_intervals_of_few_rounds_say_what_they_cover() -> None:
    assert [median_of_few(range(n))[2] for n in (1, 2, 3, 5)] == [0.0, 0.5, 0.75, 0.9375]
    assert median_of_few([3.0, 1.0, 2.0]) == (2.0, (1.0, 3.0), 0.75)
    logs = np.random.default_rng(3).normal(0.1, 0.05, 25)
    median, interval, covered = median_of_few(logs)
    usual = timing_ratio(logs)
    np.testing.assert_allclose(np.exp([median, *interval]), [usual.ratio, *usual.interval])
    assert covered >= 0.95
    with pytest.raises(ValueError, match="finite"):
        median_of_few([])


def a_run() -> CostRun:
    pair = replace(result(50, 30, np.full(6, 0.6), kind="pair"), absent={NNSIGHT: "not installed"})
    return CostRun(
        date="2026-01-02",
        command="python -m harness.lab.cost",
        device="cpu",
        device_name="a processor",
        dtype="float32",
        threads=2,
        versions={"torch": "2.0"},
        seconds=12.0,
        cells=(*cells(1.0, 1.0), pair),
        outside=(Outside("a-pair", 64, 10.0, 9.0),),
    )


def test_targets_say_met_and_missed_by_how_much() -> None:
    found = {(one.asked.split(",")[0], one.where): one for one in targets(a_run())}
    verdicts = {asked: one.verdict for (asked, _), one in found.items()}
    assert verdicts["time of everything"] == "**missed by 1.300**"
    assert verdicts["extra peak memory of similarity + attention"] == "**missed by 1.00%**"
    assert verdicts["exponent of tokens"] == "met"
    assert verdicts["time outside the model's forward passes"] == "met"
    assert extra_memory(a_run().cells[0], ATTENTION, weights=True) == pytest.approx(0.003)
    pair = ratio(a_run().cells[-1], EVERYTHING)
    assert pair is not None
    assert pair.median == pytest.approx(2.8)


def test_the_page_is_made_of_the_kept_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "cost.json"
    kept.write_text(to_json(a_run()))
    assert to_json(read_run(kept)) == to_json(a_run())
    assert main(["--read", str(kept), "--page", str(tmp_path / "cost.md")]) == 0
    page = (tmp_path / "cost.md").read_text()
    for expected in ("a processor", "2 threads", "2026-01-02", "(cost.png)", "missed by 1.300", "not installed"):
        assert expected in page, expected
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")
    assert "not installed" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["no json", "[]", '{"schema": 0}', '{"schema": 1, "cells": []}'])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    kept = tmp_path / "cost.json"
    kept.write_text(content)
    with pytest.raises(ResultsError, match=r"cost\.json"):
        read_run(kept)
