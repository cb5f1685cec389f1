"""The command line overrides the ini file; relative paths start at the directory of each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.models.vlm import choose_dtype
from harness.profile.pair import Pair
from harness.run.options import read_options


def test_the_ini_file_sets_options_absent_from_the_command_line(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\nphase_samples = 400\nphase_seed = 7\nphase_dtype = bf16\nphase_baselines = kept/here\n")
    options = read_options(project.parseconfig("--phase-seed", "3"))
    assert (options.samples, options.seed, options.dtype) == (400, 3, "bf16")
    assert options.baselines == project.path / "kept" / "here"
    assert read_options(project.parseconfig("--phase-baselines", "there")).baselines == project.path / "there"


def test_a_wrong_ini_value_is_named(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\nphase_samples = many\n")
    with pytest.raises(pytest.UsageError, match="phase_samples in the ini file: 'many' is not a whole number"):
        read_options(project.parseconfig())


@pytest.mark.parametrize("text", ["0", "-1", "soon", "31536001", "9" * 40])
def test_a_wait_is_between_a_second_and_a_year(project: pytest.Pytester, text: str) -> None:
    assert read_options(project.parseconfig("--phase-process-timeout", "31536000")).process_timeout == 31536000
    with pytest.raises(pytest.UsageError, match=r"--phase-process-timeout: .* (whole number|more than a year)"):
        project.parseconfig(f"--phase-process-timeout={text}")


def test_defaults_match_the_documentation(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_PHASE_CACHE", "/somewhere/else")
    options = read_options(project.parseconfig())
    assert (options.samples, options.seed, options.batch_size, options.device) == (None, 0, 8, "auto")
    assert [options.samples_of(Pair("scenes-llava", name)) for name in ("scenes", "scenes-order")] == [128, 256]
    assert options.samples_of(Pair("scenes-llava", "scenes-varied")) == 64
    assert options.controls_of(Pair("scenes-llava", "scenes-varied")) == ()
    assert options.controls_of(Pair("scenes-llava", "scenes")) == ("noise", "blank")
    assert options.samples_of(Pair("scenes-instructblip", "scenes")) == 192
    assert options.samples_of(Pair("llava-1.5-7b", "coco-captions")) == 400
    assert options.cache == Path("/somewhere/else")
    assert [str(pair) for pair in options.pairs()] == [
        "scenes-llava-scenes",
        "scenes-llava-scenes-order",
        "scenes-llava-scenes-varied",
        "scenes-instructblip-scenes",
        "scenes-instructblip-scenes-order",
        "scenes-instructblip-scenes-varied",
        "llava-1.5-7b-coco-captions",
        "llava-1.5-7b-winoground",
        "instructblip-vicuna-7b-coco-captions",
        "instructblip-vicuna-7b-winoground",
    ]


def test_models_and_datasets_are_chosen_by_name(project: pytest.Pytester) -> None:
    chosen = project.parseconfig("--phase-dataset", "scenes-order", "--phase-model", "scenes-llava")
    assert [str(pair) for pair in read_options(chosen).pairs()] == ["scenes-llava-scenes-order"]


def test_a_named_dataset_selects_the_models_that_use_it(project: pytest.Pytester) -> None:
    chosen = read_options(project.parseconfig("--phase-dataset", "winoground")).pairs()
    assert [str(pair) for pair in chosen] == ["llava-1.5-7b-winoground", "instructblip-vicuna-7b-winoground"]


def test_a_model_may_be_a_directory_or_a_repository(project: pytest.Pytester) -> None:
    directory = project.mkdir("my own llava")
    with pytest.raises(pytest.UsageError, match=r"has no config\.json, so it is not a checkpoint"):
        project.parseconfig("--phase-model", str(directory))
    (directory / "config.json").write_text("{}")
    options = read_options(project.parseconfig("--phase-model", str(directory), "--phase-model", "someone/their-vlm"))
    assert [str(pair) for pair in options.pairs()][::3] == ["my-own-llava-scenes", "their-vlm-scenes"]
    assert {pair.dataset for pair in options.pairs()} == {"scenes", "coco-captions", "winoground"}
    assert options.model("my-own-llava").source == str(directory)
    assert options.model("their-vlm").source == "someone/their-vlm"
    (twin := project.mkdir("elsewhere") / directory.name).mkdir()
    (twin / "config.json").write_text("{}")
    with pytest.raises(pytest.UsageError, match="two checkpoints are both called 'my-own-llava'"):
        read_options(project.parseconfig("--phase-model", str(directory), "--phase-model", str(twin)))
    with pytest.raises(pytest.UsageError, match="unknown model 'llava': neither a directory nor ORG/NAME; known"):
        project.parseconfig("--phase-model", "llava")


def test_model_arguments_are_reproduced(project: pytest.Pytester) -> None:
    (directory := project.mkdir("my-llava")).joinpath("config.json").write_text("{}")
    arguments = (str(directory), "someone/their-vlm", "scenes-llava", "fixture:my_vlm")
    options = read_options(project.parseconfig(*(part for name in arguments for part in ("--phase-model", name))))
    assert tuple(options.model_argument(entry.name) for entry in options.models) == arguments
    assert options.model_fixtures() == ["my_vlm"]


def test_compared_models_have_the_same_samples(project: pytest.Pytester) -> None:
    named = ("--phase-model", "scenes-llava", "--phase-against", "scenes-instructblip", "--phase-dataset", "scenes")
    options = read_options(project.parseconfig(*named))
    assert [str(pair) for pair in options.pairs()] == ["scenes-llava-scenes"]
    assert [options.samples_of(Pair(model, "scenes")) for model in ("scenes-llava", "scenes-instructblip")] == [
        192,
        192,
    ]


def test_data_on_disk_is_found_by_option_then_ini_then_variable(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_options(project.parseconfig()).source("coco-captions").directory is None
    monkeypatch.setenv("VLM_PHASE_COCO", "/from/variable")
    monkeypatch.setenv("VLM_PHASE_WINOGROUND", "/from/variable/too")
    assert read_options(project.parseconfig()).source("coco-captions").directory == Path("/from/variable")
    project.makeini("[pytest]\nphase_data = coco-captions=kept winoground=there\n")
    assert read_options(project.parseconfig()).source("winoground").directory == project.path / "there"
    options = read_options(project.parseconfig("--phase-data", "coco-captions=/by/option", "--phase-download"))
    assert options.source("coco-captions").directory == Path("/by/option")
    assert options.source("winoground").directory == project.path / "there"
    assert options.source("winoground").download
    for wrong in ("scenes=here", "coco-captions", "coco-captions="):
        with pytest.raises(pytest.UsageError, match="is not NAME=DIR with one of coco-captions, winoground as NAME"):
            project.parseconfig("--phase-data", wrong)


def test_help_lists_one_group_with_every_option(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("--help")
    lines = result.stdout.str()
    assert "phases of vision-language models:" in lines
    for name in ("model", "dataset", "samples", "seed", "device", "dtype", "batch-size", "baselines", "update"):
        assert f"--phase-{name}" in lines
    for name in ("update-new", "strict-evidence", "cache", "no-cache", "json", "data", "download", "against"):
        assert f"--phase-{name}" in lines


@pytest.mark.parametrize("name", ["bf16", "bfloat16"])
def test_a_dtype_is_accepted_by_short_name_and_by_torch_name(project: pytest.Pytester, name: str) -> None:
    dtype = read_options(project.parseconfig("--phase-dtype", name)).dtype
    assert choose_dtype(dtype, torch.device("cpu"), bundled=True) is torch.bfloat16


def test_controls_are_all_by_default_and_may_be_chosen(project: pytest.Pytester) -> None:
    assert read_options(project.parseconfig()).controls == ("noise", "blank")
    assert read_options(project.parseconfig("--phase-controls", "blank")).controls == ("blank",)
    both = project.parseconfig("--phase-controls", "blank", "--phase-controls", "noise")
    assert read_options(both).controls == ("noise", "blank")
    assert read_options(project.parseconfig("--phase-controls", "none")).controls == ()
    project.makeini("[pytest]\nphase_controls = none\n")
    assert read_options(project.parseconfig()).controls == ()
    assert read_options(project.parseconfig("--phase-controls", "noise")).controls == ("noise",)


def test_contradicting_or_unknown_controls_are_refused(project: pytest.Pytester) -> None:
    with pytest.raises(pytest.UsageError, match="--phase-controls none excludes the others"):
        read_options(project.parseconfig("--phase-controls", "none", "--phase-controls", "noise"))
    project.makeini("[pytest]\nphase_controls = static\n")
    with pytest.raises(pytest.UsageError, match="phase_controls in the ini file: 'static' is no control"):
        read_options(project.parseconfig())


def test_a_summary_is_refused_where_no_baseline_is_written(project: pytest.Pytester) -> None:
    for update in ("--phase-update", "--phase-update-new"):
        assert read_options(project.parseconfig(update, "--phase-summary")).summary
    with pytest.raises(pytest.UsageError, match="--phase-summary changes how baselines are stored: use it with"):
        read_options(project.parseconfig("--phase-summary"))
