"""Control characters of hostile checkpoints in the messages of libraries never reach the terminal."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import PhaseError
from harness.hub import _TerminalBar
from harness.models.library_messages import plain, plain_messages, printable_cause
from harness.models.registry import ModelEntry, find_model
from harness.models.vlm import load_vlm
from harness.tests.support.saved_checkpoints import change_settings, change_weights, checkpoint, checkpoint_templates

__all__ = ["checkpoint", "checkpoint_templates"]

HOSTILE = "\x1b]0;evil\x07\x9b31m\u202e"


def control_characters(text: str) -> set[str]:
    """Return the control characters in a text, except those of line ends and progress bars."""
    return {sign for sign in text if not sign.isprintable()} - {"\n", "\r", "\t"}


def model_entry(directory: Path) -> ModelEntry:
    return replace(find_model(str(directory)), unused_weights=True)


def insert_hostile_values(directory: Path) -> None:
    """Insert hostile names and values that transformers or the harness report while they load."""
    change_weights(directory, lambda weights: weights.update({f"model.{HOSTILE}.weight": torch.zeros(3)}))

    def alter(config: dict[str, Any]) -> None:
        config |= {"architectures": [HOSTILE], "attn_implementation": HOSTILE, HOSTILE: HOSTILE, "num_labels": 5}
        config |= {"id2label": {"1": HOSTILE}, "transformers_version": HOSTILE, "problem_type": HOSTILE}
        config["text_config"]["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, HOSTILE: HOSTILE}

    change_settings(directory / "config.json", alter)
    generation = {HOSTILE: HOSTILE, "do_sample": False, "temperature": 0.3, "cache_implementation": "static"}
    (directory / "generation_config.json").write_text(json.dumps(generation))
    change_settings(
        directory / "processor_config.json",
        lambda config: config.update({HOSTILE: HOSTILE, "processor_class": HOSTILE}),
    )
    change_settings(directory / "tokenizer_config.json", lambda config: config.update({f"{HOSTILE}_token": HOSTILE}))


def alter_config(**values: Any) -> Callable[[Path], None]:
    return lambda directory: change_settings(directory / "config.json", lambda config: config.update(values))


def alter_text_config(**values: Any) -> Callable[[Path], None]:
    return lambda directory: change_settings(
        directory / "config.json", lambda config: config["text_config"].update(values)
    )


def alter_image_processor(directory: Path) -> None:
    change_settings(
        directory / "processor_config.json",
        lambda config: config["image_processor"].update(image_processor_type=HOSTILE),
    )


def alter_generation(directory: Path) -> None:
    (directory / "generation_config.json").write_text(json.dumps({"early_stopping": HOSTILE}))


def alter_header(directory: Path) -> None:
    header = json.dumps({HOSTILE: {"dtype": HOSTILE, "shape": [1], "data_offsets": [0, 4]}}).encode()
    (directory / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


REFUSED = {
    "quant_method": alter_config(quantization_config={"quant_method": HOSTILE, "bits": 4}),
    "model_type": alter_config(model_type=HOSTILE),
    "model_type of the text": alter_text_config(model_type=HOSTILE),
    "torch_dtype": alter_config(torch_dtype=HOSTILE, dtype=HOSTILE),
    "rope_type": alter_text_config(rope_parameters={"rope_type": HOSTILE, "rope_theta": 1e4}),
    "hidden_act": alter_text_config(hidden_act=HOSTILE),
    "num_hidden_layers": alter_text_config(num_hidden_layers=HOSTILE),
    "image_processor_type": alter_image_processor,
    "generation": alter_generation,
    "header": alter_header,
}


@pytest.fixture
def logged() -> Any:
    """The output of a handler of transformers."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("transformers")
    level = logger.level
    # Other tests silence this logger.
    logger.setLevel(logging.WARNING)
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.mark.parametrize("alter", REFUSED.values(), ids=REFUSED)
def test_a_refused_checkpoint_prints_no_control_character(
    checkpoint: Path,
    alter: Callable[[Path], None],
    logged: io.StringIO,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    alter(checkpoint)
    with pytest.raises(PhaseError) as caught:
        load_vlm(model_entry(checkpoint), cache=tmp_path, device="cpu")
    # Print the error like Python's default handler, with its causes.
    lines = "".join(traceback.format_exception(caught.value))
    assert not control_characters(lines)
    assert not control_characters(logged.getvalue())
    assert not control_characters("".join(capsys.readouterr()))


def test_the_load_report_escapes_tensor_names(
    checkpoint: Path, logged: io.StringIO, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    insert_hostile_values(checkpoint)
    load_vlm(model_entry(checkpoint), cache=tmp_path, device="cpu")
    assert r"model.\x1b]0;evil\x07\x9b31m\u202e.weight" in logged.getvalue()
    assert not control_characters(logged.getvalue())
    printed = "".join(capsys.readouterr())
    assert r"requests \x1b]0;evil\x07" in printed
    assert not control_characters(printed)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["pytest -s", "from Python"])
def test_a_process_prints_no_control_character(checkpoint: Path, launcher: str, tmp_path: Path) -> None:
    insert_hostile_values(checkpoint)
    program = (
        "import harness, harness.tests.models.test_library_messages as test, pathlib, harness.models.vlm as vlm\n"
        f"entry = test.model_entry(pathlib.Path({str(checkpoint)!r}))\n"
        f"loaded = vlm.load_vlm(entry, cache=pathlib.Path({str(tmp_path)!r}))\n"
        "harness.measure(loaded, 'scenes', samples=2, controls=())"
    )
    options = f"--phase-dataset scenes --phase-samples 4 --phase-no-cache --phase-allow-unused-weights {checkpoint}"
    cases = f"-m pytest cases/ -s -k alignment -p no:cacheprovider --phase-model {checkpoint} {options}".split()
    finished = subprocess.run(
        [sys.executable, *({"pytest -s": cases, "from Python": ["-c", program]}[launcher])],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        check=False,
        timeout=400,
    )
    printed = (finished.stdout + finished.stderr).decode()
    assert "UNUSED WEIGHTS of the checkpoint" in printed
    assert not control_characters(printed)


def test_only_records_and_warnings_with_control_characters_are_changed(logged: io.StringIO) -> None:
    class OwnWarning(UserWarning):
        def __init__(self, first: str, second: str) -> None:
            super().__init__(f"{first} {second}")

    honest = OwnWarning("Größe", "✓")
    with warnings.catch_warnings(record=True) as shown_warnings:
        warnings.simplefilter("always")
        with plain_messages():
            warnings.warn(honest, stacklevel=1)
            warnings.warn(OwnWarning("not", HOSTILE), stacklevel=1)
            logging.getLogger("transformers").error("%s of\n\t%d", "✓", 3)
            logging.getLogger("transformers").error("%s", HOSTILE)
            try:
                raise ValueError(HOSTILE)
            except ValueError:
                logging.getLogger("transformers").exception("\x1b[1mbold\x1b[0m")
            logging.getLogger("transformers").error("takes two %s %s", 1, 2)
        logging.getLogger("transformers").error("\x1b[1mas it is\x1b[0m")
    assert [warning.category for warning in shown_warnings] == [OwnWarning, OwnWarning]
    assert shown_warnings[0].message is honest
    assert str(shown_warnings[1].message) == r"not \x1b]0;evil\x07\x9b31m\u202e"
    lines = logged.getvalue().splitlines()
    assert lines[:4] == ["✓ of", "\t3", r"\x1b]0;evil\x07\x9b31m\u202e", "bold"]
    assert lines[-3:] == [r"ValueError: \x1b]0;evil\x07\x9b31m\u202e", "takes two 1 2", "\x1b[1mas it is\x1b[0m"]


def test_a_harmless_traceback_keeps_the_format_of_the_handler() -> None:
    class OwnFormat(logging.Formatter):
        def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
            return f"a {ei[0].__name__} in the handler's own words"

    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(OwnFormat())
    logger = logging.Logger("alone")
    logger.addHandler(handler)
    for message_text in ("harmless", HOSTILE):
        with plain_messages():
            try:
                raise ValueError(message_text)
            except ValueError:
                logger.exception("it failed")
    assert handler.stream.getvalue().splitlines()[:2] == ["it failed", "a ValueError in the handler's own words"]
    assert not control_characters(handler.stream.getvalue())


def test_an_error_that_is_its_own_cause_is_accepted() -> None:
    for message_text, expected in (("harmless", True), (HOSTILE, False)):
        error = ValueError(message_text)
        error.__cause__ = error
        assert (printable_cause(error) is error) == expected


@pytest.mark.parametrize("sign", ["\x00", "\x07", "\x08", "\r", "\x1b", "\x7f", "\x85", "\x9b", "\u2028", "\u202e"])
def test_every_kind_of_control_character_is_escaped(sign: str) -> None:
    assert plain(f"a\n\tb{sign}c").isascii()
    assert not control_characters(plain(f"a{sign}"))
    assert "\r" not in plain(f"a{sign}")


def test_a_progress_bar_of_the_hub_escapes_file_names() -> None:
    stream = io.StringIO()
    with _TerminalBar(total=2, desc=f"{HOSTILE}.safetensors", file=stream, disable=False) as bar:
        bar.update()
    assert r"\x1b]0;evil\x07" in stream.getvalue()
    assert not control_characters(stream.getvalue())
