"""Complete runs of `pytest cases/ --phase-against MODEL` with tiny checkpoints, and refusals before measuring."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness.models.vlm import Vlm
from harness.models.weights_error import WeightsError
from harness.tests.support.case_runs import REGRESSION, Cases
from harness.tests.support.tiny import tiny_vlm
from harness.tests.support.tuned_models import make_tuned_vlm

QUICK = ("--phase-samples", "32", "--phase-controls", "none")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """A function that saves a tiny checkpoint and returns its directory.

    `little` and `much` change the last two layers of `full`; `deeper` has more layers.
    """
    builders: dict[str, Callable[[], Vlm]] = {
        "full": lambda: tiny_vlm(layers=6),
        "little": lambda: make_tuned_vlm(0.003),
        "much": lambda: make_tuned_vlm(2.0),
        "deeper": lambda: tiny_vlm(layers=8),
    }
    root = tmp_path_factory.mktemp("checkpoints")

    def save(name: str) -> str:
        directory = root / name
        if not directory.exists():
            vlm = builders[name]()
            vlm.model.save_pretrained(directory)
            vlm.processor.save_pretrained(directory)
        return str(directory)

    return save


class LoadRecorder:
    """A plugin that records the names of loaded models in order."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_phase_model_loaded(self, vlm: Vlm) -> None:
        self.names.append(vlm.name)


def test_the_layers_changed_by_fine_tuning_are_listed(cases: Cases, saved: Callable[[str], str]) -> None:
    loads = LoadRecorder()
    models = ("--phase-model", saved("little"), "--phase-model", saved("much"), "--phase-against", saved("full"))
    result = cases.run(
        *QUICK,
        *REGRESSION,
        "-v",
        "-rs",
        "--phase-json",
        "out.json",
        pair=(*models, "--phase-dataset", "tiny"),
        plugins=(loads,),
    )
    text = result.stdout.str()
    assert loads.names == ["full", "little", "much"]
    assert result.parseoutcomes().get("errors", 0) == 0, text
    result.stdout.fnmatch_lines(
        [
            "phase: against full, measured in this run, *",
            "E*similarity within the text tokens of much on tiny*",
            "E*between the two models: weights: * -> *",
            "E*compared with full measured in this run (torch *",
            "full-tiny: 32 samples, 6 layers",
            "baselines: 0 matched, 0 changed, 0 new, 0 unused",
            "little against full on tiny: 32 samples, paired",
            "weights differ in layers 5-6; the same in layers 1-4,*",
            "much against full on tiny: 32 samples, paired",
            "phase I ends *layer *layer *",
            "regression: *intra differs, *",
            "weights differ in layers 5-6; the same in layers 1-4,*",
            "similarity: the same, sample by sample, up to residual point 4, the input of",
            "  layer 5",
            "attention: the same, sample by sample, up to layer 4",
            "beyond the margin: similarity within the text tokens at residual point*",
            "SKIPPED*two models:",
            "    much and full are not required to agree sample by sample*",
        ]
    )
    assert "intended?" not in text
    assert not any("little" in line for line in text.splitlines() if line.startswith("FAILED cases"))
    assert not cases.baselines.exists()
    record = json.loads((cases.baselines.parent / "out.json").read_text())
    by_model = {compared["model"]: compared for compared in record["against"]}
    assert by_model.keys() == {"little", "much"}
    for compared in by_model.values():
        assert (compared["against"], compared["weights"]["layers"]) == ("full", [5, 6])
    assert set(by_model["little"]["verdicts"].values()) <= {"reproduces", "equivalent"}
    judged = {line["question"]: line["verdict"] for line in record["verdicts"] if line["pair"] == "much-tiny"}
    assert judged == by_model["much"]["verdicts"]


@pytest.mark.slow
def test_models_of_different_depth_are_skipped_with_the_reason(cases: Cases, saved: Callable[[str], str]) -> None:
    pair = ("--phase-model", saved("deeper"), "--phase-against", saved("full"), "--phase-dataset", "tiny")
    result = cases.run(*QUICK, *REGRESSION, "-rs", pair=pair)
    result.assert_outcomes(skipped=12)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "phase II ends *layer *layer *",
            "four-phases *",
            "regression: not judged; 8 and 6 layers are compared by relative depth",
            "SKIPPED*8 and 6 layers: compared by relative depth in the summary",
        ]
    )


def test_a_baseline_of_another_depth_is_refused(recorded: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_deeper(cache: Path, dtype: torch.dtype) -> tuple[object, object]:
        vlm = tiny_vlm(layers=8)
        return vlm.model, vlm.processor

    monkeypatch.setattr("harness.tests.support.case_runs.load_tiny", load_deeper)
    result = recorded.run(*QUICK, "-k", "test_inter_similarity")
    result.assert_outcomes(errors=1, skipped=1)
    result.stdout.fnmatch_lines(
        ["*belongs to a model of 6 layers, and this model has 8: *--phase-against*--phase-update*"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--phase-against", "tiny-llava"), "*--phase-against: name the models to compare with it*"),
        (
            ("--phase-model", "tiny-llava", "--phase-against", "tiny-llava"),
            "*--phase-against tiny-llava: this is the --phase-model itself*",
        ),
        *(
            (
                ("--phase-model", "scenes-llava", "--phase-against", "tiny-llava", *option),
                f"*{option[0]} concerns stored*",
            )
            for option in (
                ("--phase-update",),
                ("--phase-update-new",),
                ("--phase-calibrate",),
                ("--phase-summary", "--phase-update"),
            )
        ),
        (
            ("--phase-model", "tiny-llava", "--phase-against", "no-one/nothing", "--phase-dataset", "tiny"),
            "*nothing-tiny was requested and cannot be measured here*--phase-download*",
        ),
        (("--phase-model", "tiny-llava", "--phase-against", "gpt-17"), "*unknown model 'gpt-17'*"),
    ],
)
def test_conflicting_options_are_a_usage_error(cases: Cases, arguments: tuple[str, ...], message: str) -> None:
    result = cases.run(pair=arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    lines = [line for line in (*result.stderr.lines, *result.stdout.lines) if line.strip()]
    expected = message if "concerns stored" not in message else "*concerns stored baselines*"
    pytest.LineMatcher(lines).fnmatch_lines([expected])


def test_two_checkpoints_with_one_name_are_a_usage_error(
    cases: Cases, saved: Callable[[str], str], tmp_path: Path
) -> None:
    twin = tmp_path / "full"
    twin.mkdir()
    (twin / "config.json").write_text("{}")
    result = cases.run(pair=("--phase-model", saved("full"), "--phase-against", str(twin)))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*two checkpoints are both called 'full'*rename one directory*"])


class Broken:
    """A plugin that raises an error when a model is loaded."""

    def pytest_phase_model_loaded(self, vlm: Vlm) -> None:
        if vlm.name == "broken":
            raise WeightsError("the checkpoint broken cannot be loaded: look at it")


@pytest.mark.slow
def test_a_baseline_model_that_cannot_be_loaded_is_an_error_only_where_it_is_needed(
    cases: Cases, saved: Callable[[str], str], tmp_path: Path
) -> None:
    shutil.copytree(saved("full"), tmp_path / "broken")
    pair = ("--phase-model", saved("full"), "--phase-against", str(tmp_path / "broken"), "--phase-dataset", "tiny")
    result = cases.run(*QUICK, "-k", "test_alignment or test_inter_similarity", pair=pair, plugins=(Broken(),))
    outcomes = result.parseoutcomes()
    # Claims of the paper are still judged. Only the comparison needs the missing model.
    assert (outcomes["errors"], outcomes["skipped"]) == (1, 1)
    assert sum(outcomes.get(name, 0) for name in ("passed", "failed", "xfailed")) == 1
    result.stdout.fnmatch_lines(["the checkpoint broken cannot be loaded: look at it"])
    assert "side by side" not in result.stdout.str()
