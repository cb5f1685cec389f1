"""A tiny model saved and loaded by the installed release, as it is and with a planted change."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.releases.diff.generation import GenerationCheck
from harness.releases.diff.release_verdict import ReleaseVerdict, TypeChange, judge_directories
from harness.releases.diff.saved_prompts import load_prompts, save_prompts
from harness.releases.diff.saved_types import load_type, make_type
from harness.releases.diff.type_report import TypeReport, TypeState, load_report, save_report
from harness.releases.processors.processor_readings import CaseReading, ProcessorReadings
from harness.releases.sweep.type_verdicts import vision_language_types

TYPE = "llava"
CLASS = vision_language_types()[TYPE]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("saved")
    assert make_type(TYPE, CLASS, directory).state is TypeState.READ
    return directory


def load_and_judge(saved: Path, directory: Path) -> TypeChange:
    load_type(TYPE, CLASS, saved, directory)
    return judge_directories(saved, directory)


def test_a_release_is_the_same_as_itself(saved: Path, tmp_path: Path) -> None:
    change = load_and_judge(saved, tmp_path)
    assert (change.verdict, list(change.remarks)) == (ReleaseVerdict.SAME, [])


def test_a_changed_layer_moves_the_states_behind_it(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.llama.modeling_llama import LlamaMLP

    forward = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, states: 1.01 * forward(self, states))
    change = load_and_judge(saved, tmp_path)
    assert change.verdict is ReleaseVerdict.MOVED
    assert {move.first_point for move in change.moves} == {1}
    assert change.moves[0].quantity == "states"


def test_weights_that_are_not_in_the_file_are_named(saved: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(saved, copy)
    weights = load_file(copy / "model" / "model.safetensors")
    lost = next(name for name in weights if name.endswith("layers.1.self_attn.q_proj.weight"))
    weights.pop(lost)
    save_file(weights, copy / "model" / "model.safetensors", {"format": "pt"})
    change = load_and_judge(copy, tmp_path / "loaded")
    assert change.verdict is ReleaseVerdict.UNMAPPED
    assert "layers.1.self_attn.q_proj.weight" in change.remarks[0]
    assert change.moves[0].first_point == 2


def test_inputs_that_the_release_refuses_are_named_and_replaced(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlavaForConditionalGeneration

    original = LlavaForConditionalGeneration.forward

    def forward(self: object, *arguments: object, mm_token_type_ids: object = None, **options: object) -> object:
        if mm_token_type_ids is None:
            raise ValueError("the types of the tokens are missing. Pass them.")
        return original(self, *arguments, **options)

    signature = inspect.signature(original)
    new = inspect.Parameter("mm_token_type_ids", inspect.Parameter.KEYWORD_ONLY, default=None)
    parameters = list(signature.parameters.values())
    forward.__signature__ = signature.replace(parameters=[*parameters[:-1], new, parameters[-1]])
    monkeypatch.setattr(LlavaForConditionalGeneration, "forward", forward)
    change = load_and_judge(saved, tmp_path)
    assert change.verdict is ReleaseVerdict.INPUTS
    assert "now needed: mm_token_type_ids (the types of the tokens are missing)" in change.remarks[0]


def test_an_error_of_the_release_is_the_reason_of_the_report(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.llama.modeling_llama import LlamaModel

    def broken(*_: object, **__: object) -> None:
        raise KeyError("rotary\ntable")

    monkeypatch.setattr(LlamaModel, "forward", broken)
    report = load_type(TYPE, CLASS, saved, tmp_path)
    assert report.state is TypeState.FAILED
    assert "rotary" in report.reason
    assert "\n" not in report.reason
    stored = load_report(tmp_path)
    assert stored is not None
    assert (stored.state, stored.reason) == (report.state, report.reason)


def test_a_type_that_the_harness_refuses_is_not_made(tmp_path: Path) -> None:
    report = make_type("mllama", "MllamaForConditionalGeneration", tmp_path)
    assert report.state is TypeState.REFUSED
    assert not (tmp_path / "model").exists()


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert load_report(tmp_path) is None
    report = TypeReport(
        model_type="t",
        state=TypeState.FAILED,
        reason="why",
        missing=["a"],
        inputs={"base": "x"},
        generation=GenerationCheck(0.5, 1, "z"),
        processor=ProcessorReadings(
            "P", "I", "pil", {"square-short": CaseReading(token_ids=(1, 2), image_tokens=1, sizes={})}
        ),
        defaults={"n": 1},
    )
    save_report(tmp_path, report)
    assert load_report(tmp_path) == report


def test_prompts_are_read_as_they_were_written(saved: Path, tmp_path: Path) -> None:
    prompts = load_prompts(saved / "prompts.safetensors")
    save_prompts(tmp_path / "again", prompts)
    again = load_prompts(tmp_path / "again")
    assert list(again) == list(prompts)
    for name, prompt in prompts.items():
        assert {key: value.tolist() for key, value in prompt.inputs.items()} == {
            key: value.tolist() for key, value in again[name].inputs.items()
        }
        assert torch.equal(prompt.groups.image, again[name].groups.image)
        assert torch.equal(prompt.separators, again[name].separators)
