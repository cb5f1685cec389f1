"""The progress of a run: one bar over its pairs, or lines at most every 30 seconds."""

from __future__ import annotations

import pytest

from harness.measurement.measure import measure
from harness.measurement.progress import SECONDS_BETWEEN_LINES, PeriodicLines, Progress
from harness.tests.support.tiny import tiny_vlm


def test_lines_name_the_pair_its_position_and_the_finished_samples() -> None:
    lines: list[str] = []
    progress = Progress("model-scenes", number=2, count=10, say=lines.append)
    with progress.samples(20) as advance:
        advance(16)
        advance(16)
    with progress.samples(8, "noise") as advance:
        advance(8)
    assert lines == [
        *(f"pair 2 of 10, model-scenes: {done} of 20 samples" for done in (0, 16, 20)),
        *(f"pair 2 of 10, model-scenes, noise: {done} of 8 samples" for done in (0, 8)),
    ]


def test_a_line_is_dropped_within_30_seconds_of_the_one_before() -> None:
    now, lines = [100.0], list[str]()
    periodic = PeriodicLines(lines.append, clock=lambda: now[0])
    for seconds in (1.0, SECONDS_BETWEEN_LINES, 1.0, SECONDS_BETWEEN_LINES - 1.0):
        now[0] += seconds
        periodic(f"at {now[0]:g}")
    assert lines == ["at 131", "at 161"]


def test_the_bar_continues_over_passes_and_pairs(capfd: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2):
        progress = Progress("pair", number=number, count=2, bar=True)
        progress.expect(2)
        for control in ("", "noise"):
            with progress.samples(4, control) as advance:
                advance(4)
    text = capfd.readouterr().err
    drawn = [int(part.split("%")[0].split()[-1].strip("|█▏▎▍▌▋▊▉ #")) for part in text.split("\r") if "%" in part]
    assert drawn == sorted(drawn)
    assert {0, 25, 50, 75} <= set(drawn)
    assert "pair 2 of 2, pair, noise: 0 of 4 samples" in text


def test_a_measurement_counts_its_samples_and_passes() -> None:
    lines: list[str] = []
    measure(
        tiny_vlm(), "scenes", samples=4, batch_size=2, controls=("noise",), progress=Progress("tiny", say=lines.append)
    )
    assert lines == [f"tiny{control}: {done} of 4 samples" for control in ("", ", noise") for done in (0, 2, 4)]
