"""Program inside the environment of a release: it loads the saved types of another release, then makes its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

from harness.releases.diff.saved_types import load_type, make_type
from harness.releases.diff.type_report import TypeReport, TypeState, load_report, save_report
from harness.releases.sweep.type_verdicts import vision_language_types


@dataclass(frozen=True, slots=True)
class Workplace:
    """The directories of one release: types it made, types it loaded, and the lists of its types."""

    root: Path

    @property
    def made(self) -> Path:
        """The directory with a directory for each type that the release made."""
        return self.root / "made"

    @property
    def loaded(self) -> Path:
        """The directory with a directory for each type that the release loaded from another."""
        return self.root / "loaded"

    @property
    def known(self) -> Path:
        """The file with the names of the release's types."""
        return self.root / "types.txt"

    def current(self, part: int) -> Path:
        """The file with the directory of the type in work, so that a crash can be attributed to the type."""
        return self.root / f"current-{part}.txt"


def main(arguments: Sequence[str] | None = None) -> int:
    """Load and make types; return 0. Types with a report are skipped, so the program can continue after a crash."""
    parser = argparse.ArgumentParser(prog="python -m harness.releases.diff.worker", description=__doc__)
    parser.add_argument("root", type=Path, help="the directory for all results")
    parser.add_argument("--saved", type=Path, help="the directory of another release's types, to be loaded")
    parser.add_argument("--make", action="store_true", help="make and save the release's own types")
    parser.add_argument("--types", nargs="*", default=[], help="the types to take; by default all")
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("I", "N"), help="every N-th type from I")
    options = parser.parse_args(arguments)
    # A single thread, so that sums are added in the same order in every run.
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    classes, workplace = vision_language_types(), Workplace(options.root)
    first, parts = options.part
    workplace.known.write_text("\n".join(classes), encoding="utf-8")

    def selected(names: Sequence[str]) -> Sequence[str]:
        return [name for name in sorted(names) if not options.types or name in options.types][first::parts]

    def begins(directory: Path) -> bool:
        workplace.current(first).write_text(str(directory), encoding="utf-8")
        return load_report(directory) is None

    for name in selected([path.name for path in options.saved.iterdir()] if options.saved else []):
        directory = workplace.loaded / name
        if load_report(options.saved / name) is None or not begins(directory):
            continue
        if name not in classes:
            save_report(directory, TypeReport(name, TypeState.GONE))
        else:
            load_type(name, classes[name], options.saved / name, directory)
    for name in selected(list(classes) if options.make else []):
        if begins(workplace.made / name):
            make_type(name, classes[name], workplace.made / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
