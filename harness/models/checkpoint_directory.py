"""The check of a checkpoint directory by its files alone, before anything of it is loaded."""

from __future__ import annotations

from pathlib import Path

from harness.errors import PhaseError
from harness.models.checkpoint_files import refuse_foreign
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
        refuse_without_processor(folder, source)
        refuse_weight_files(folder, source, unused=unused)
    except PhaseError as error:
        return str(error)
    except (OSError, RecursionError):  # Loading says it with the name of the file.
        return None
    return None
