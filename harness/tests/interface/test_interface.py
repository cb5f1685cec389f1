"""Options and commands in messages belong to the interface that the user calls."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.interface import (
    COMMAND,
    PYTEST,
    PYTHON,
    Interface,
    in_current_words,
    measure_command,
    option_text,
    pytest_on,
    use,
)


@pytest.fixture(autouse=True)
def previous() -> Iterator[None]:
    before = use(PYTHON)
    yield
    use(before)


@pytest.mark.parametrize(
    ("interface", "size", "flag", "command"),
    [
        (PYTHON, "batch_size=4", "download=True", "harness.measure('my vlm', 'scenes', download=True)"),
        (PYTEST, "--phase-batch-size 4", "--phase-download", "the same command with --phase-download"),
        (
            pytest_on("cases/"),
            "--phase-batch-size 4",
            "--phase-download",
            "pytest cases/ --phase-model 'my vlm' --phase-dataset scenes --phase-download",
        ),
        (
            COMMAND,
            "--batch-size 4",
            "--download",
            "vlm-phase measure 'my vlm' --dataset scenes --download",
        ),
    ],
)
def test_options_and_commands_are_those_of_the_interface(
    interface: Interface, size: str, flag: str, command: str
) -> None:
    use(interface)
    assert option_text("batch_size", "4") == size
    assert option_text("download", "True") == flag
    assert measure_command("my vlm", "scenes", option_text("download", "True")) == command


def test_an_option_without_a_value_is_its_name() -> None:
    use(pytest_on("--pyargs harness.cases"))
    assert option_text("samples") == "--phase-samples"
    use(PYTHON)
    assert option_text("samples") == "samples"


def test_a_message_about_options_of_pytest_is_translated() -> None:
    message = "--phase-update and --phase-update-new exclude each other"
    assert in_current_words(message) == message
    use(COMMAND)
    assert in_current_words(message) == "--update and --update-new exclude each other"
