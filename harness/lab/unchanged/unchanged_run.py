"""One run: a process measures a bundled pair anew under a variation and judges it against its stored baseline.

`python -m harness.lab.unchanged.unchanged_run` is started by `harness.lab.unchanged`, once for each process of a run.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from harness.analysis.mean_difference import Verdict
from harness.baselines.store import Baseline, find_baseline
from harness.errors import PhaseError, last_line
from harness.judgement.regression import compare, compare_boundaries, compare_intervals
from harness.judgement.results import boundary_result, family_result, interval_result
from harness.lab.unchanged.variation import Variation, reordered
from harness.profile.measures import FAMILIES
from harness.profile.pair import Pair
from harness.profile.profile import Profile
from harness.storage.project_files import bundled_baselines

DATASET = "scenes"
_LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PYTEST_XDIST_WORKER")


class UnchangedRunError(PhaseError):
    """A run ended without a verdict; the message has the variation and the last line of its output."""


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """The verdicts of one run.

    `alarms` names the questions whose test would fail. `largest` is the largest change of a sample in any measure with
    a margin, as a multiple of its tolerance. `inconclusive` counts such verdicts among all `verdicts`.
    """

    n: int
    alarms: tuple[str, ...]
    largest: float
    inconclusive: int
    verdicts: int
    seconds: float = 0.0


def judge_run(profile: Profile, baseline: Baseline) -> JudgedRun:
    """Judge a profile against its baseline by the rule of the cases."""
    pair = Pair(profile.model, profile.dataset)
    comparisons = [compare(profile, baseline, family) for family in FAMILIES.values()]
    boundaries, intervals = compare_boundaries(profile, baseline), compare_intervals(profile, baseline)
    results = [family_result(pair, comparison, baseline) for comparison in comparisons]
    results += [boundary_result(pair, boundaries), interval_result(pair, intervals)]
    findings = [finding for comparison in comparisons for finding in comparison.findings]
    verdicts = [*(finding.agreement.verdict for finding in findings), boundaries.verdict, intervals.verdict]
    return JudgedRun(
        n=profile.n,
        alarms=tuple(result.question for result in results if result.changed),
        largest=max(
            (finding.agreement.largest or 0.0) / float(np.min(finding.agreement.tolerance.amount))
            for finding in findings
            if finding.measure.kind.margin is not None
        ),
        inconclusive=verdicts.count(Verdict.INCONCLUSIVE),
        verdicts=len(verdicts),
    )


def start_run(variation: Variation, samples: int | None) -> JudgedRun:
    """Run a variation in its own processes, as torchrun starts them, and return its verdicts.

    Raises:
        UnchangedRunError: a process failed.
    """
    begin = time.monotonic()
    environment = {name: value for name, value in os.environ.items() if name not in _LAUNCHER}
    environment["OMP_NUM_THREADS"] = str(variation.threads)
    if variation.processes > 1:
        environment |= {"WORLD_SIZE": str(variation.processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port()}
    settings = json.dumps({**asdict(variation), "samples": samples})
    started = [
        subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", __name__, settings],
            env=environment if variation.processes == 1 else environment | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in map(str, range(variation.processes))
    ]
    try:
        outputs = [process.communicate() for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, errors) in zip(started, outputs, strict=True):
        if process.returncode:
            raise UnchangedRunError(f"{variation}: {last_line(errors, f'exit status {process.returncode}')}")
    content = json.loads(outputs[0][0].splitlines()[-1])
    return JudgedRun(**{**content, "alarms": tuple(content["alarms"]), "seconds": round(time.monotonic() - begin, 1)})


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and judge one run as one of its processes; the first prints the verdicts as JSON."""
    import torch

    from harness.data.datasets import DATASETS
    from harness.measurement.conditions import attention_implementation
    from harness.measurement.measure import measure
    from harness.measurement.ranks import processes
    from harness.models.registry import find_model
    from harness.models.vlm import load_vlm
    from harness.storage.cache_directory import default_cache

    parser = argparse.ArgumentParser(description="Measure one run; started by python -m harness.lab.unchanged.")
    parser.add_argument("settings", help="the variation and the number of samples as JSON")
    settings = json.loads(parser.parse_args(arguments).settings)
    samples = settings.pop("samples")
    variation = Variation(**settings)
    torch.set_num_threads(variation.threads)
    # The process measures only once, so the order need not be restored.
    DATASETS[DATASET] = reordered(DATASETS[DATASET], variation.order)
    vlm = load_vlm(find_model(variation.model), cache=default_cache(), device="cpu")
    with attention_implementation(vlm, variation.attention):
        profile = measure(
            vlm,
            DATASET,
            samples=samples,
            batch_size=variation.batch_size,
            controls=(),
            word_order=False,
            cache=None,
            progress=False,
        )
    if processes().first:
        print(json.dumps(asdict(judge_run(profile, find_baseline(bundled_baselines(), profile)))))
    processes().leave()
    return 0


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
