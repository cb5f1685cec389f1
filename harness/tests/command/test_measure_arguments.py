"""Options without a prefix become those of the plugin; everything else reaches pytest unchanged."""

from __future__ import annotations

import shlex

import pytest

from harness.command.measure_arguments import OWN_OPTIONS, parse_arguments
from harness.command.usage_problem import UsageProblem
from harness.run.options import OPTIONS

VALUES = {
    "MODEL": "scenes-llava",
    "NAME=DIR": "coco-captions=there",
    "N": "7",
    "DIR": "out",
    "FILE": "out.json",
    "SECONDS": "60",
    "ID": "scenes-3",
    "TEXT": "a reason",
}
NAMES = {"dataset": "scenes", "controls": "noise", "device": "cpu", "dtype": "bf16"}


@pytest.mark.parametrize("field", OPTIONS)
def test_every_option_of_the_plugin_has_a_name_without_its_prefix(field: str) -> None:
    option = OPTIONS[field]
    name = option.argument.replace("phase-", "")
    value = NAMES.get(option.name) or VALUES.get(option.metavar, "")
    line = [name, *([value] if option.metavar else [])]
    expected = [f"{option.argument}={value}" if option.metavar else option.argument]
    assert parse_arguments(line).command_line() == expected
    # The plugin's own spelling and a value after a sign of equality are accepted too.
    assert parse_arguments([option.argument, *line[1:]]).command_line() == expected
    assert parse_arguments(["=".join(line)]).command_line() == expected


def test_the_names_are_those_of_the_table() -> None:
    assert list(OWN_OPTIONS.values()) == list(OPTIONS.values())


@pytest.mark.parametrize(
    ("line", "models", "pytest_arguments"),
    [
        ("scenes-llava -x -k scenes-llava", ["scenes-llava"], ["-x", "-k", "scenes-llava"]),
        ("-k 'four or inter' --junit-xml=j.xml -vv", [], ["-k", "four or inter", "--junit-xml=j.xml", "-vv"]),
        ("scenes-llava someone/theirs -n 2", ["scenes-llava", "someone/theirs"], ["-n", "2"]),
        ("-m regression --dataset scenes scenes-llava", ["scenes-llava"], ["-m", "regression"]),
    ],
)
def test_other_options_reach_pytest_unchanged(line: str, models: list[str], pytest_arguments: list[str]) -> None:
    parsed = parse_arguments(shlex.split(line))
    assert (parsed.models, parsed.pytest) == (models, pytest_arguments)


def test_a_misspelt_option_is_recognised() -> None:
    parsed = parse_arguments(["--datset", "scenes", "--phase-sampels=4", "--maxfail=1"])
    assert parsed.similar_options() == ["--datset: did you mean --dataset?", "--sampels: did you mean --samples?"]


def test_a_wrong_value_is_refused_with_the_name_that_the_user_wrote() -> None:
    with pytest.raises(UsageProblem, match=r"^--device: 'gpu' is no device; use auto, cpu, cuda, cuda:N or mps$"):
        parse_arguments(["--device", "gpu"])
