"""`python -m harness.releases.sweep`: check every vision-language type of the installed transformers."""

from __future__ import annotations

import argparse
import sys

import torch
import transformers
from tqdm import tqdm

from harness.releases.release_outputs import add_output_options, write_outputs
from harness.releases.sweep.type_verdicts import (
    TypeOutcome,
    types_page,
    types_record,
    verdict_on,
    vision_language_types,
)
from harness.releases.tiny.tiny_model import DEPTH


def main(arguments: list[str] | None = None) -> int:
    """Run the sweep; return 1 if a type failed, else 0."""
    known = vision_language_types()
    parser = argparse.ArgumentParser(prog="python -m harness.releases.sweep", description=__doc__)
    parser.add_argument("types", nargs="*", metavar="TYPE", help="types to check; by default all")
    add_output_options(parser)
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.types if name not in known]:
        parser.error(f"transformers {transformers.__version__} has no vision-language type {unknown[0]!r}")
    if options.types and options.write:
        parser.error("--write needs all types: name no TYPE with it")
    transformers.logging.set_verbosity_error()
    verdicts = []
    for model_type in tqdm(options.types or list(known), desc="types", disable=not sys.stderr.isatty()):
        verdict = verdict_on(model_type, known[model_type])
        verdicts.append(verdict)
        tqdm.write(f"{verdict.outcome:9}{model_type:24}{verdict.seconds:6.1f} s  {verdict.remark}")
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    write_outputs(
        options,
        types_record(verdicts, versions),
        lambda: types_page(verdicts, versions, name=str(options.write), depth=DEPTH),
    )
    counts = {outcome: sum(verdict.outcome is outcome for verdict in verdicts) for outcome in TypeOutcome}
    print(", ".join(f"{number} {outcome}" for outcome, number in counts.items()))
    return 1 if counts[TypeOutcome.FAILED] else 0


if __name__ == "__main__":
    sys.exit(main())
