"""The check of a checkpoint directory by its files alone, before anything of it is loaded."""

from __future__ import annotations

from pathlib import Path

from harness.errors import PhaseError
from harness.models.checkpoint_files import read_settings, refuse_foreign
from harness.models.kinds import ENCODER_DECODER, kind_of
from harness.models.processor_parts import refuse_without_processor
from harness.models.weight_files import refuse_weight_files


def directory_problem(folder: Path, source: str, *, unused: bool) -> str | None:
    """Return why the files of a checkpoint directory cannot be loaded, with the remedy; None if nothing is known.

    Args:
        folder: the directory.
        source: what the checkpoint is called in the message.
        unused: True if the user allows weights that are not used.
    """
    try:
        refuse_foreign(folder, source)
        # In front of what can be mended: no remedy helps a type that cannot be measured.
        if problem := _type_problem(folder, source):
            return problem
        refuse_without_processor(folder, source)
        refuse_weight_files(folder, source, unused=unused)
    except PhaseError as error:
        return str(error)
    except (OSError, RecursionError):  # Loading says it with the name of the file.
        return None
    return None


def _type_problem(folder: Path, source: str) -> str:
    """Return why no model of the type in config.json can be measured; empty if it can be, or none is named."""
    path = folder / "config.json"
    settings = read_settings(path) if path.is_file() else {}
    model_type = str(settings.get("model_type", ""))
    kind = kind_of(model_type)
    if kind.refused:
        return f"the checkpoint {source} is of the type {model_type}, which cannot be measured: {kind.reason}"
    encoder = settings.get("is_encoder_decoder") is True or settings.get("use_decoder_only_language_model") is False
    return f"the checkpoint {source} {ENCODER_DECODER}" if encoder else ""
