"""`python -m harness.releases.sweep`: examines every vision-language type of the installed transformers."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
import transformers
from tqdm import tqdm

from harness.releases.sweep.tiny_model import DEPTH
from harness.releases.sweep.type_verdicts import TypeOutcome, page, record, verdict_on, vision_language_types
from harness.storage.files import write_atomically


def main(arguments: list[str] | None = None) -> int:
    """Run the sweep; returns the exit status, 1 where a type failed."""
    known = vision_language_types()
    parser = argparse.ArgumentParser(prog="python -m harness.releases.sweep", description=__doc__)
    parser.add_argument("types", nargs="*", metavar="TYPE", help="only these types; by default all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the verdicts to FILE")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page to FILE")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.types if name not in known]:
        parser.error(f"transformers {transformers.__version__} has no vision-language type {unknown[0]!r}")
    if options.types and options.write:
        parser.error("--write is for the page of all types: name none")
    transformers.logging.set_verbosity_error()
    verdicts = []
    for model_type in tqdm(options.types or list(known), desc="types", disable=not sys.stderr.isatty()):
        verdict = verdict_on(model_type, known[model_type])
        verdicts.append(verdict)
        tqdm.write(f"{verdict.outcome:9}{model_type:24}{verdict.seconds:6.1f} s  {verdict.remark}")
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    if options.json:
        write_atomically(options.json, (json.dumps(record(verdicts, versions), indent=1) + "\n").encode())
    if options.write:
        write_atomically(options.write, page(verdicts, versions, name=str(options.write), depth=DEPTH).encode())
    counts = {outcome: sum(verdict.outcome is outcome for verdict in verdicts) for outcome in TypeOutcome}
    print(", ".join(f"{number} {outcome}" for outcome, number in counts.items()))
    return 1 if counts[TypeOutcome.FAILED] else 0


if __name__ == "__main__":
    sys.exit(main())
