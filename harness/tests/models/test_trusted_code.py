"""Checkpoints with their own code are refused unless the user names them as trusted."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import save_file

from harness.models.registry import find_model
from harness.models.vlm import load_vlm
from harness.models.weights_error import WeightsError
from harness.run.options import read_options
from harness.tests.support.case_runs import Cases
from harness.tests.support.fake_hub import serve, use_hub
from harness.tests.support.tiny import have_same_numbers, tiny_profile, tiny_vlm

CHECKPOINT_CODE = """
from pathlib import Path
from transformers import LlavaConfig, LlavaForConditionalGeneration

Path(MARKER).touch()


class OwnConfig(LlavaConfig):
    model_type = "own_vlm"


class OwnVlm(LlavaForConditionalGeneration):
    config_class = OwnConfig
"""


@pytest.fixture(autouse=True)
def modules(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A separate directory for these tests into which transformers copies code before it runs it."""
    directory = tmp_path_factory.mktemp("modules")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(directory))
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "transformers_modules"]:
        del sys.modules[name]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A tiny LLaVA with a model type that only its own code defines."""
    directory = tmp_path / "own"
    vlm = tiny_vlm(layers=6)
    vlm.model.save_pretrained(directory)
    vlm.processor.save_pretrained(directory)
    # Use current weight names: transformers maps the older names, which save_pretrained writes, only for LLaVA.
    save_file(vlm.model.state_dict(), directory / "model.safetensors", {"format": "pt"})
    (directory / "own.py").write_text(CHECKPOINT_CODE.replace("MARKER", repr(str(tmp_path / "it-ran"))))
    config = json.loads((directory / "config.json").read_text())
    config |= {"model_type": "own_vlm", "architectures": ["OwnVlm"]}
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForImageTextToText": "own.OwnVlm"}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def code_ran(directory: Path) -> bool:
    return (directory.parent / "it-ran").exists()


def test_without_the_option_the_code_is_not_run_and_the_option_is_named(directory: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load_vlm(find_model(str(directory)), cache=directory.parent, device="cpu")
    assert str(caught.value) == (
        f"the checkpoint {directory} needs code of its own (own.py), which is not run: read it, and if you trust it add"
        f" --phase-trust-code {directory}"
    )
    assert not code_ran(directory)


def test_the_terminal_never_prompts_for_trust(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(WeightsError, match="needs code of its own"):
        load_vlm(find_model(str(directory)), cache=directory.parent, device="cpu")
    assert not code_ran(directory)


def test_a_trusted_checkpoint_gives_the_profile_of_its_weights(directory: Path, tiny_data: None) -> None:
    lines: list[str] = []
    entry = replace(find_model(str(directory)), trusted=True)
    vlm = load_vlm(entry, cache=directory.parent, device="cpu", say=lines.append)
    assert code_ran(directory)
    assert type(vlm.model).__name__ == "OwnVlm"
    assert lines == [f"RUNNING CODE of the checkpoint {directory}, as --phase-trust-code allows: own.py"]
    assert have_same_numbers(tiny_profile(vlm), tiny_profile(tiny_vlm(layers=6)))


def test_the_option_lets_the_cases_measure_it_and_the_run_reports_it(directory: Path, cases: Cases) -> None:
    pair = ("--phase-model", str(directory), "--phase-dataset", "tiny")
    chosen = ("-k", "test_four_phases", "--phase-samples", "8", "--phase-controls", "none", "--phase-no-cache")
    (hostile := cases.baselines / "\x1b]0;owned\x07").mkdir(parents=True)
    (hostile / "scenes.json").touch()
    measured = cases.run(*chosen, "--phase-trust-code", str(directory), pair=pair)
    assert "errors" not in measured.parseoutcomes(), measured.stdout.str()
    measured.stdout.fnmatch_lines(
        [f"phase: RUNNING CODE of the checkpoint {directory}, as *", "own-tiny, 8 samples: *"]
    )
    text = " ".join(measured.stdout.str().split())
    assert f"phase: RUNNING CODE of the checkpoint {directory} (--phase-trust-code)" in text
    assert r"\x1b]0;owned\x07" in measured.stdout.str()
    assert "\x1b" not in measured.stdout.str()
    assert code_ran(directory)


def test_trust_applies_to_one_checkpoint_of_the_run(project: pytest.Pytester, directory: Path) -> None:
    (other := project.mkdir("other")).joinpath("config.json").write_text("{}")
    model_options = ("--phase-model", str(directory), "--phase-against", str(other))
    for trusted in (directory, other):
        options = read_options(project.parseconfig(*model_options, "--phase-trust-code", str(trusted)))
        assert [entry.trusted for entry in options.named_models()] == [trusted == directory, trusted == other]
        assert options.trusted_models() == [str(trusted)]
        assert options.model(trusted.name).trusted
    assert read_options(project.parseconfig(*model_options)).trusted_models() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--phase-trust-code", "someone/their-vlm"), "someone/their-vlm: this run has no such model"),
        (
            ("--phase-model", "someone/their-vlm", "--phase-trust-code", "someone/another"),
            "someone/another: this run has no such model",
        ),
        (
            ("--phase-model", "scenes-llava", "--phase-trust-code", "scenes-llava"),
            "not loaded from your checkpoint",
        ),
        (
            ("--phase-model", "fixture:mine", "--phase-trust-code", "fixture:mine"),
            "not loaded from your checkpoint",
        ),
        (("--phase-trust-code", "nothing"), "unknown model 'nothing'"),
    ],
)
def test_trust_in_a_model_that_is_not_measured_is_refused(
    project: pytest.Pytester, options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(pytest.UsageError, match=message):
        read_options(project.parseconfig(*options))


def test_an_ini_file_may_trust_models_of_other_runs(project: pytest.Pytester) -> None:
    (project.mkdir("kept") / "config.json").write_text("{}")
    project.makeini("[pytest]\nphase_trust_code = someone/their-vlm kept\n")
    assert read_options(project.parseconfig()).trusted_models() == []
    options = read_options(project.parseconfig("--phase-model", "someone/their-vlm", "--phase-model", "someone/new"))
    assert options.trusted_models() == ["someone/their-vlm"]
    trusted_path = str(project.path / "kept")
    assert read_options(project.parseconfig("--phase-model", trusted_path)).trusted_models() == [trusted_path]
    project.makeini("[pytest]\nphase_trust_code = nothing\n")
    with pytest.raises(pytest.UsageError, match="phase_trust_code in the ini file: unknown model 'nothing'"):
        read_options(project.parseconfig())


def test_code_comes_from_the_hub_only_where_it_is_trusted(directory: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in directory.iterdir()} | {"pytorch_model.bin": b"pickle"}
    shutil.rmtree(directory)
    name = "somebody/own"
    with serve({("model", name): files}) as hub, use_hub(hub.url, tmp_path / "hub"):
        entry = find_model(name)
        options = {"cache": tmp_path, "device": "cpu", "download": True, "say": lambda _: None}
        with pytest.raises(WeightsError, match=r"\(no Python file is present\).*--phase-trust-code somebody/own"):
            load_vlm(entry, **options)
        assert not {"own.py", "pytorch_model.bin"} & {file for file, _ in hub.fetched()}
        vlm = load_vlm(replace(entry, trusted=True), **options)
        assert {"own.py"} == {file for file, _ in hub.fetched() if file.endswith((".py", ".bin"))}
        assert (vlm.name, vlm.revision) == ("own", hub.commit("model", name))
