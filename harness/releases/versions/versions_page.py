"""The page of versions: the supported range, the matrix, what it says, and how to make it again."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.releases.versions.findings import findings
from harness.releases.versions.matrix import matrix_table, pairs_table
from harness.releases.versions.outcome import Outcome

_RANGED = ("transformers", "torch", "accelerate", "huggingface-hub")
_PAGE = """\
# Versions

Which releases of transformers and torch this project was run with, and whether the embedded models are the same inside.
This page is written by the command below and by nothing else.

    {command}

{dates} (UTC), {device}, Python {python}, project at {commit}. Supported, as pyproject.toml declares: {ranges}.

## The matrix

{matrix}

Each row is a fresh virtual environment with this project and the two releases pinned; everything else is what pip
chooses beside them.

- **installs**: whether pip finds packages that fit together and all three can be imported, else the reason.
- **measured, refused, failed**: the types of `python -m harness.releases.sweep`. A refusal states its reason; *failed*
  says that a number was not exact, or that the release's own code broke: see the findings.
- **one column per embedded pair**: the worst verdict of its regression questions against the committed baseline, by the
  rule of [verdicts](verdicts.md): *reproduces* says that every sample is the same within its tolerance, *equivalent*
  that the means are within their margins. *error*: it could not be judged.
- **largest in inter**: how far the most distant sample's inter-modal similarity is from the baseline's, at any residual
  point of any pair.
- **seconds**: to make the environment and run both parts.

## Findings

{findings}

## The pairs in detail

The largest absolute difference of any sample from the baseline, by measure; recall is counted in shares of a sample's
words.

{pairs}

## What older releases need

Four things differ between the releases of the range and are found by their presence, not by version number: up to 5.5
CLIP's tower lies one level deeper; before 5.4 the image processors that resize with Pillow have no name of their own;
before 5.10 a processor hands `return_tensors` to no part that has arguments of its own; the Q-Former takes eager
attention where it has no sdpa (5.0 to 5.12, of those looked at). Besides, 5.0 reads the language model's tokenizer from
its GGUF file as another class, with a second start token; the project reads it itself. The names of CLIP's tensors are
part of the weights' hash, so a message may say that the weights of `scenes-llava` changed where only these names did.

transformers 4.57 is not supported. Tried with 4.57.6, it lacks `transformers.initialization`, cannot load a tokenizer
that 5.x saved, takes the parts of an InstructBLIP's configuration only as dictionaries, and gives lists where tensors
were asked for; it also wants huggingface-hub below 1.0, and the project asks it for what came with 1.31.

## Again

Run it from a checkout that nobody edits meanwhile, since every environment imports the project from there. Results are
kept per cell, so that a matrix that was stopped goes on where it was; `--anew` runs them again, `--keep
DIR` keeps the environments (about 6 GB each with the CUDA libraries of torch). `--transformers V` and `--torch V`
choose other cells.
"""


def versions_page(outcomes: Sequence[Outcome], command: str, checkout: Path) -> str:
    """The page, in Markdown."""
    return _PAGE.format(
        command=command,
        dates=_said(told.date for told in outcomes),
        device=_said(told.device for told in outcomes) or "no pair measured",
        python=_said(told.python for told in outcomes),
        commit=_said(told.commit for told in outcomes),
        ranges=", ".join(supported(checkout)),
        matrix=matrix_table(outcomes, "github"),
        pairs=pairs_table(outcomes, "github"),
        findings="\n".join(f"- {sentence}" for sentence in findings(outcomes)) or "None.",
    )


def supported(checkout: Path) -> list[str]:
    """The ranges that pyproject.toml declares of the libraries that a matrix is about."""
    declared = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    return [line for line in declared if line.split(">=")[0] in _RANGED]


def _said(values: Iterable[str]) -> str:
    return ", ".join(sorted({one for value in values for one in value.split(", ") if one}))
