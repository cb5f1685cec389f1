"""The knockout in sentences, as a figure and in the record, which restores it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from harness.analysis.knockout_reading import KnockoutReading
from harness.judgement.phases import phase_reading
from harness.report.flow_panel import flow_panel
from harness.report.image_flow import describe_flow, flow_sentences, knockout_record, recorded_knockout
from harness.report.record import record_schema, run_record
from harness.tests.support.judged import judge_profiles
from harness.tests.support.synthetic_profiles import synthetic_profile, with_knockout


def knockout(**losses: Any) -> KnockoutReading:
    reading = phase_reading(with_knockout(synthetic_profile(), **losses)).knockout
    assert reading is not None
    return reading


def test_two_sentences_say_where_the_image_enters_and_from_where_on_it_is_not_needed() -> None:
    entry, needed = flow_sentences(knockout())
    assert entry.startswith(
        "Of the 40 nats that the image contributes to a caption, 75 % are lost if layers 7-9 cannot"
    )
    assert needed.startswith("From layer 10 on the image tokens can be dropped for 0.2")
    assert flow_sentences(knockout(knockout_onward=(40.0, 34.0, 32.0, 5.0, 4.0, 3.0, 2.0)))[1] == (
        "The image is needed up to the last layer, 12."
    )
    free = flow_sentences(knockout(knockout_onward=(40.0, 34.0, 32.0, 5.0, -1.0, 0.0, 0.0)))[1]
    assert free.startswith("From layer 10 on the image tokens can be dropped without a loss (-")
    (unused,) = flow_sentences(knockout(knockout_onward=(0.0,) * 7))
    assert "which is not confirmed" in unused


def test_a_window_may_cost_more_than_the_image() -> None:
    assert "125 % are lost" in flow_sentences(knockout(knockout=(6.0, 0.0, 50.0, 0.1)))[0]


def test_the_record_restores_the_losses() -> None:
    measured = knockout()
    entry = json.loads(json.dumps(knockout_record(measured)))
    restored = recorded_knockout(entry)
    assert restored.samples is None
    assert knockout_record(restored) == entry
    assert flow_sentences(restored) == flow_sentences(measured)
    assert recorded_knockout(knockout_record(knockout(knockout_onward=(0.0,) * 7))).last_needed is None


def test_the_record_of_a_run_conforms_to_its_schema(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    findings = judge_profiles(tmp_path, with_knockout(synthetic_profile()))
    record = json.loads(json.dumps(run_record(findings)))
    jsonschema.validate(record, record_schema())
    assert record["pairs"]["made-curves"]["phases"]["claims"]["fusion-flows"]["verdict"] in ("holds", "fails")
    assert {line["question"] for line in record["verdicts"]} >= {"fusion-flows", "alignment-flows", "output-is-local"}


def test_the_figure_shows_directions_controls_and_marks() -> None:
    profile = with_knockout(synthetic_profile())
    axes = Figure().subplots()
    flow_panel(axes, profile, phase_reading(profile))
    labels = axes.get_legend_handles_labels()[1]
    assert {"all later tokens", "the caption only", "the instruction only"} <= set(labels)
    assert {"control: noise for the image", "control: other tokens blocked", "not needed from 10"} <= set(labels)
    assert any(label.startswith("best guess final from ") for label in labels)
    empty = Figure().subplots()
    plain = synthetic_profile()
    flow_panel(empty, plain, phase_reading(plain))
    assert "not measured: add --phase-knockout" in [text.get_text() for text in empty.texts]


def test_the_description_lists_every_window() -> None:
    assert "30 nats in layers 7-9" in describe_flow(knockout())
    assert describe_flow(None) == "Attention knockout was not measured."
    assert dataclasses.is_dataclass(knockout())
