"""A run of the cases names the changed setting, and --phase-update adds the configuration to an old baseline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.baselines.stored_files import read_json, write_files
from harness.tests.support import case_runs
from harness.tests.support.case_runs import REGRESSION, Cases, find_arrays
from harness.tests.support.changed_settings import SETTING_CHANGES, rebuild
from harness.tests.support.faults import swap_layers
from harness.tests.support.tiny import tiny_vlm

INTER = (*REGRESSION, "-k", "inter_similarity")
MEAN = "processor.image_processor.image_mean: [0.481455, 0.457827, 0.408211] -> [0.5, 0.5, 0.5]"


def patch_model_settings(monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    """Change a setting of the tiny pair's model."""

    def load(cache: Path, dtype: torch.dtype) -> tuple[Any, Any]:
        vlm = rebuild(tiny_vlm(layers=6, dtype=dtype), SETTING_CHANGES[message])
        return vlm.model, vlm.processor

    monkeypatch.setattr(case_runs, "load_tiny", load)


def remove_configuration(cases: Cases) -> Path:
    """Remove the configuration from the tiny pair's baseline, as in an earlier version, and return its path."""
    path = cases.baselines / "tiny-llava" / "tiny.json"
    content = read_json(path)
    assert content.pop("configuration")
    write_files(path, content)
    return path


def joined_messages(result: pytest.RunResult) -> str:
    """Return the output with its lines joined."""
    return " ".join(line.removeprefix("E ").strip() for line in result.outlines)


@pytest.mark.slow
@pytest.mark.parametrize("message", ["vision_feature_layer: -1 -> -2", MEAN])
def test_the_message_names_the_changed_setting_first(
    recorded: Cases, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    patch_model_settings(monkeypatch, message)
    result = recorded.run(*INTER, "-v", "--phase-json", "out.json")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    record = json.loads((recorded.baselines.parent / "out.json").read_text())
    baseline = record["pairs"]["tiny-llava-tiny"]["baseline"]
    assert baseline["changes"] == [message]
    assert baseline["main_changes"] == [message, "weights unchanged"]
    assert f"since the baseline: {message}; weights unchanged baseline" in joined_messages(result)


def test_a_baseline_without_a_configuration_is_compared_with_a_note(recorded: Cases) -> None:
    remove_configuration(recorded)
    result = recorded.run(*INTER, "-v", plugins=(case_runs.FaultPlugin(swap_layers(3)),))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = joined_messages(result)
    assert "since the baseline: weights: " in text
    assert "; the baseline stores no configuration to compare" in text


@pytest.mark.slow
def test_an_update_adds_only_the_configuration(recorded: Cases) -> None:
    path = remove_configuration(recorded)
    arrays, old = find_arrays(path).read_bytes(), read_json(path)
    assert recorded.run(*INTER).ret == pytest.ExitCode.OK
    assert read_json(path) == old
    result = recorded.run(*INTER, "--phase-update")
    result.stdout.fnmatch_lines(["baselines: 0 matched, 1 changed*"])
    new = read_json(path)
    assert new.pop("configuration")["vision_feature_layer"] == -1
    assert new == old
    assert find_arrays(path).read_bytes() == arrays
    recorded.run(*INTER, "--phase-update").stdout.fnmatch_lines(["baselines: 1 matched, 0 changed*"])
