"""The rows of the `--phase-` options that are made by a loop: values, flags, single checkpoints, outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.run import option_values
from harness.run.option_values import AS_DECLARED

# Name, metavar, parser, default, help. Each has an ini twin phase_<name>; the command line wins.
VALUES: tuple[tuple[str, str, Callable[[str], Any], str, str], ...] = (
    (
        "samples",
        "N",
        option_values.samples,
        AS_DECLARED,
        "samples per pair, or as many as the dataset declares; the paper has 400",
    ),
    ("seed", "N", option_values.number(0), "0", "which samples are drawn"),
    ("device", "NAME", option_values.device, "auto", "auto (a GPU where there is one), cpu, cuda, cuda:N or mps"),
    (
        "dtype",
        "NAME",
        option_values.dtype,
        "auto",
        "fp32, bf16, fp16 or torch's names; auto: fp32 for embedded models and on a CPU, else bf16",
    ),
    ("batch-size", "N", option_values.number(1), "8", "samples per forward pass"),
    ("baselines", "DIR", str, "baselines", "directory of the stored baselines, relative to the root directory"),
    ("cache", "DIR", str, "", "directory for weights and readings; by default the user's cache directory"),
    (
        "process-timeout",
        "SECONDS",
        option_values.seconds,
        "21600",
        "how long one of several processes (torchrun) waits for another until it gives up",
    ),
)
FLAGS: tuple[tuple[str, str], ...] = (
    ("update", "write new and changed baselines; the summary lists them"),
    ("update-new", "write missing baselines only"),
    (
        "summary",
        "with an update option: store mean, covariance and number of samples only, no value of any sample",
    ),
    (
        "calibrate",
        "measure the baselines' samples again in other data types, attention backends, batches and threads, and store "
        "noise, margins and power with them",
    ),
    ("strict-evidence", "fail where the evidence does not decide, instead of an expected failure"),
    ("no-cache", "keep no readings and use none; weights are still cached"),
    ("download", "fetch weights and data that are not in the hub's local cache; their size is said first"),
)


# What is allowed to single checkpoints: name, purpose, default. Each may be repeated and has an ini twin.
OF_CHECKPOINTS: tuple[tuple[str, str, str], ...] = (
    ("trust-code", "run the Python code that comes with this checkpoint", "the code of none is run"),
    (
        "allow-unused-weights",
        "measure this checkpoint though its files hold weights that its model does not use",
        "such a checkpoint is refused",
    ),
)


# What a run leaves behind for its readers: name, metavar, help. Paths lie relative to where pytest runs.
WRITTEN: tuple[tuple[str, str, str], ...] = (
    ("report", "DIR", "write a page of figures and verdicts to DIR/index.html, with its figures and numbers as files"),
    ("json", "FILE", "write curves, verdicts and provenance to FILE"),
    ("markdown", "FILE", "append a summary in Markdown to FILE, as in $GITHUB_STEP_SUMMARY"),
)
