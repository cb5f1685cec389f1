"""One run of the benchmark: every cell of a plan measured, and where."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import torch
from tqdm import tqdm

from harness.lab.cost.cells import DATASET, FULL_WIDTH, Conditions, load, measured, subjects
from harness.lab.cost.contestants import ATTENTION, EVERYTHING, PLAIN
from harness.lab.cost.outside import outside_share
from harness.lab.cost.results import Cell, Outside, Run
from harness.models.vlm import choose_device, choose_dtype
from harness.profile.environment import device_name

_PACKAGES = ("torch", "transformers", "nnsight")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured: drawn cells, pairs as (model, batch), and a whole measurement of so many samples of each pair.

    `samples` of None are as many as the dataset declares; 0 leaves the whole measurements out.
    """

    cells: Sequence[Cell]
    pairs: Sequence[tuple[str, int]]
    samples: int | None
    conditions: Conditions

    def conditions_of(self, cell: Cell, device: torch.device) -> Conditions:
        """A CPU runs the full width with what its targets ask for and no more, and three times as long."""
        if cell.kind != FULL_WIDTH or device.type != "cpu":
            return self.conditions
        asked = [name for name in self.conditions.contestants if name in (PLAIN, ATTENTION, EVERYTHING)]
        return replace(self.conditions, contestants=asked, budget=3 * self.conditions.budget)


def run_plan(plan: Plan, command: str) -> Run:
    """The results of a plan; `command` is what the page says made them.

    Raises:
        DeviceError, WeightsError: the device or a pair's weights are not there.
    """
    start = time.perf_counter()
    device = choose_device(plan.conditions.device)
    bar = tqdm(total=len(plan.cells) + len(plan.pairs), desc="cells", unit="cell", disable=not sys.stderr.isatty())
    found = []
    with bar:
        for cell, subject in subjects(plan.cells, plan.pairs, plan.conditions):
            bar.set_postfix_str(f"{cell.label}, {cell.layers} layers, {cell.batch} x {cell.tokens} tokens")
            found.append(measured(cell, subject, replace(plan.conditions_of(cell, device), tick=bar.refresh)))
            bar.update()
    return Run(
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        command=command,
        device=device.type,
        device_name=device_name(device),
        dtype=_dtype(plan, device),
        threads=torch.get_num_threads(),
        versions=_versions(),
        cells=tuple(found),
        outside=tuple(_outside(plan)),
        seconds=round(time.perf_counter() - start, 1),
    )


def _dtype(plan: Plan, device: torch.device) -> str:
    """The type of the drawn models' numbers and of the pairs', which are not the same on a GPU."""
    asked = {"drawn": plan.cells, "pairs": plan.pairs}
    used = {
        kind: str(choose_dtype(plan.conditions.dtype, device, embedded=kind == "pairs")).removeprefix("torch.")
        for kind, cells in asked.items()
        if cells
    }
    kinds = sorted(set(used.values()))
    return kinds[0] if len(kinds) == 1 else ", ".join(f"{kind} {dtype}" for kind, dtype in used.items())


def _outside(plan: Plan) -> list[Outside]:
    models = dict.fromkeys(model for model, _ in plan.pairs) if plan.samples != 0 else ()
    return [
        outside_share(load(model, plan.conditions), DATASET, samples=plan.samples, progress=False) for model in models
    ]


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
