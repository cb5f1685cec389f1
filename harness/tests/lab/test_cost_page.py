"""Growth fits, targets and the page of the cost benchmark, from stored results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.analysis.timing import median_with_interval, timing_ratio
from harness.lab.cost.__main__ import main
from harness.lab.cost.contestants import (
    ATTENTION,
    EVERYTHING,
    NNSIGHT,
    PLAIN,
)
from harness.lab.cost.cost_page import measurements_table
from harness.lab.cost.cost_results import (
    SMALL_KIND,
    Cell,
    CellResult,
    CostRun,
    MeasurementTime,
    ResultsError,
    read_run,
    to_json,
)
from harness.lab.cost.targets import extra_memory, fit_growth, ratio, targets


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
        fit = fit_growth(cells(a, b), EVERYTHING)
        assert fit is not None
        assert fit.tokens is not None
        assert fit.layers is not None
        assert fit.tokens[0] == pytest.approx(a, abs=0.03)
        assert fit.layers[0] == pytest.approx(b, abs=0.05)
        low, high = fit.tokens[1]
        assert low < fit.tokens[0] < high < low + 0.1
    one_depth = [cell for cell in cells(1.0, 1.0) if cell.cell.layers == 14]
    fit = fit_growth(one_depth, EVERYTHING)
    assert fit is not None
    assert fit.layers is None
    assert fit_growth(one_depth[:1], EVERYTHING) is None


def test_a_cell_without_extra_seconds_is_excluded_and_counted() -> None:
    fit = fit_growth([*cells(1.0, 1.0), result(600, 14, np.full(5, -0.1))], EVERYTHING)
    assert fit is not None
    assert (fit.cells, fit.dropped) == (6, 1)


def test_intervals_of_few_rounds_state_their_coverage() -> None:
    assert [median_with_interval(range(n))[2] for n in (1, 2, 3, 5)] == [0.0, 0.5, 0.75, 0.9375]
    assert median_with_interval([3.0, 1.0, 2.0]) == (2.0, (1.0, 3.0), 0.75)
    logs = np.random.default_rng(3).normal(0.1, 0.05, 25)
    median, interval, coverage = median_with_interval(logs)
    usual = timing_ratio(logs)
    np.testing.assert_allclose(np.exp([median, *interval]), [usual.ratio, *usual.interval])
    assert coverage >= 0.95
    with pytest.raises(ValueError, match="finite"):
        median_with_interval([])


def a_run() -> CostRun:
    single = replace(result(50, 30, np.full(6, 0.6), kind="pair"), absent={NNSIGHT: "not installed"})
    pair = replace(single, cell=replace(single.cell, batch=8))
    return CostRun(
        date="2026-01-02",
        command="python -m harness.lab.cost",
        device="cpu",
        device_name="a processor",
        dtype="float32",
        threads=2,
        versions={"torch": "2.0"},
        seconds=12.0,
        cells=(*cells(1.0, 1.0), single, pair),
        measurements=(
            MeasurementTime("a-pair", 64, 10.0, 9.0, 1.0, 4.0),
            MeasurementTime("b-pair", 32, 6.0, 5.5, 1.0, 1.0),
        ),
        test_seconds=50.0,
    )


def test_targets_are_met_or_missed_by_an_amount() -> None:
    by_title = {(target.title.split(",")[0], target.scope): target for target in targets(a_run())}
    verdicts = {title: target.verdict for (title, _), target in by_title.items()}
    assert verdicts["time of everything"] == "**missed by 1.400**"
    assert verdicts["extra peak memory of similarity + attention"] == "**missed by 1.00%**"
    assert verdicts["exponent of tokens"] == "met"
    assert verdicts["time outside the model's forward passes"] == "met"
    assert extra_memory(a_run().cells[0], ATTENTION, weights=True) == pytest.approx(0.003)
    # The target of the pairs is that of a batch of 8.
    scopes = [scope for title, scope in by_title if title.startswith("time of everything")]
    assert scopes == [a_run().cells[-1].cell.title]
    pair = ratio(a_run().cells[-1], EVERYTHING)
    assert pair is not None
    assert pair.median == pytest.approx(2.8)


def test_the_page_is_rendered_from_stored_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "cost.json"
    results.write_text(to_json(a_run()))
    assert to_json(read_run(results)) == to_json(a_run())
    assert main(["--read", str(results), "--page", str(tmp_path / "cost.md")]) == 0
    page = (tmp_path / "cost.md").read_text()
    provenance = ("a processor", "2 threads", "2026-01-02")
    for expected in (*provenance, "(cost.png)", "missed by 1.400", "not installed", "### Full measurements"):
        assert expected in page, expected
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")
    assert "not installed" in capsys.readouterr().out


def test_full_measurements_are_multiples_of_the_plain_passes() -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in measurements_table(a_run()).splitlines()[2:]]
    assert rows == [
        ["a-pair", "64", "4.0 s", "2.50 (10.0 s)", "0.25 (1.0 s)"],
        ["b-pair", "32", "1.0 s", "6.00 (6.0 s)", "1.00 (1.0 s)"],
        ["all pairs", "96", "5.0 s", "3.20 (16.0 s)", "0.40 (2.0 s)"],
        ["the tests", "-", "5.0 s", "10.00 (50.0 s)", "-"],
    ]
    assert "the tests" not in measurements_table(replace(a_run(), test_seconds=None))


@pytest.mark.parametrize("content", ["no json", "[]", '{"schema": 0}', '{"schema": 1, "cells": []}'])
def test_a_file_with_other_content_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cost.json"
    path.write_text(content)
    with pytest.raises(ResultsError, match=r"cost\.json"):
        read_run(path)
