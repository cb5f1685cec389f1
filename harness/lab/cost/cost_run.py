"""A run of the benchmark: the cells of a plan, their measurement and its provenance."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from harness.errors import first_line
from harness.lab.cost.contestants import ATTENTION, CONTESTANTS, EVERYTHING, PLAIN
from harness.lab.cost.cost_results import FULL_WIDTH, PAIR, SMALL_KIND, Cell, CellResult, CostRun, MeasurementTime
from harness.lab.cost.drawn import SMALL, drawn_subject, image_side, published_subject
from harness.lab.cost.published import PUBLISHED
from harness.lab.cost.race import COSTLY_SHARE, peak_bytes, race
from harness.lab.cost.subject import Subject, UnavailableError, pair_subject, plain_seconds
from harness.measurement.measure import measure
from harness.models.caption_scorer import decoder_stack
from harness.models.linear import observer
from harness.models.registry import find_model
from harness.models.vlm import Vlm, choose_device, choose_dtype, load_vlm
from harness.profile.environment import device_name, installed_version

TOKENS, LAYERS = (64, 300, 600, 1200, 2400), (14, 32)
PAIRS = ("scenes-llava", "scenes-instructblip")
DATASET, BATCHES = "scenes", (1, 8)
#: The datasets of the full measurements, and their batch size.
DATASETS, BATCH = ("scenes", "scenes-order", "scenes-varied"), 8
_PACKAGES = ("torch", "transformers", "nnsight")


@dataclass(frozen=True, slots=True)
class Conditions:
    """Settings of a measurement: contestants by name, and a fixed number of rounds or a budget in seconds per cell.

    `tick` is called before each contestant and after each timed pass, for example to refresh a progress bar.
    """

    contestants: Sequence[str]
    rounds: int | None
    budget: float
    device: str
    dtype: str
    cache: Path
    tick: Callable[[], None] = lambda: None

    def load(self, model: str) -> Vlm:
        """Load a registered model onto the device; raise the errors of `load_vlm`."""
        return load_vlm(find_model(model), cache=self.cache, device=self.device, dtype=self.dtype)


@dataclass(frozen=True, slots=True)
class CostPlan:
    """The random-weight cells, the pairs as (model, batch size), and the samples of each pair's full measurement.

    `samples` is None for the dataset's declared number, and 0 to omit the full measurements.
    """

    cells: Sequence[Cell]
    pairs: Sequence[tuple[str, int]]
    samples: int | None
    conditions: Conditions

    @property
    def models(self) -> list[str]:
        """The distinct models of the pairs."""
        return list(dict.fromkeys(model for model, _ in self.pairs))

    def conditions_for(self, cell: Cell, device: torch.device) -> Conditions:
        """Return the conditions for a cell.

        A CPU runs full-width cells with a triple budget and only the contestants that have a target there.
        """
        if cell.kind != FULL_WIDTH or device.type != "cpu":
            return self.conditions
        contestants = [name for name in self.conditions.contestants if name in (PLAIN, ATTENTION, EVERYTHING)]
        return replace(self.conditions, contestants=contestants, budget=3 * self.conditions.budget)

    def subjects(self) -> Iterator[tuple[Cell, Subject]]:
        """Yield each cell with its lazily created subject; a model is loaded once for all its batches.

        Two models of full width do not fit into the memory, so the caller drops each subject before the next.
        """
        device = choose_device(self.conditions.device)
        dtype = choose_dtype(self.conditions.dtype, device, bundled=False)
        for cell in self.cells:
            # A dropped model with cycles of references stays in memory until a collection.
            gc.collect()
            if cell.kind == FULL_WIDTH:
                yield cell, published_subject(PUBLISHED[cell.label], cell.layers, dtype=dtype, device=str(device))
            else:
                yield (
                    cell,
                    drawn_subject(SMALL, cell.tokens, cell.layers, batch=cell.batch, dtype=dtype, device=str(device)),
                )
        for model in self.models:
            vlm = self.conditions.load(model)
            for batch in (batch for name, batch in self.pairs if name == model):
                subject = pair_subject(vlm, DATASET, batch)
                tokens, image = subject.groups.real.shape[1], int(subject.groups.image[0].sum())
                yield Cell(PAIR, f"{model}-{DATASET}", tokens, image, subject.anatomy.depth, batch), subject


def drawn_cells(tokens: Sequence[int], layers: Sequence[int], batch: int = 1) -> list[Cell]:
    """Return cells of the small random-weight models, ordered by depth, then by prompt length.

    Raises:
        ValueError: too few tokens for an image.
    """
    label = f"drawn LLaVA, d = {SMALL.decoder.hidden:,}"
    return [
        Cell(SMALL_KIND, label, count, image_side(count) ** 2, depth, batch) for depth in layers for count in tokens
    ]


def published_cells(layers: int) -> list[Cell]:
    """Return a cell for each of the paper's models with random weights, with its own prompt."""
    return [
        Cell(FULL_WIDTH, label, model.layout.tokens, model.layout.image, layers, 1)
        for label, model in PUBLISHED.items()
    ]


def measure_cell(cell: Cell, subject: Subject, conditions: Conditions) -> CellResult:
    """Measure the peak memory of all contestants in a cell, then their times; the first passes serve as warm-up.

    A costly contestant whose pass took more than 40 % of the budget does not run again. That pass is its only round.
    """
    runs: dict[str, Callable[[], Any]] = {}
    timed: dict[str, float] = {}
    absent: dict[str, str] = {}
    peaks: dict[str, int] = {}
    left_open: float | None = None
    for name in conditions.contestants:
        conditions.tick()
        try:
            runs[name] = CONTESTANTS[name].prepare(subject)
            start = time.perf_counter()
            peaks[name], result = peak_bytes(runs[name], subject.device)
            seconds = time.perf_counter() - start
            if name == EVERYTHING:
                left_open = result[1].opened / (int(subject.groups.image.sum()) * (subject.anatomy.depth + 1))
            del result
        except (UnavailableError, torch.OutOfMemoryError) as error:
            runs.pop(name, None)
            absent[name] = first_line(error)
            continue
        if CONTESTANTS[name].costly and conditions.rounds is None and seconds > COSTLY_SHARE * conditions.budget:
            timed[name] = seconds
            del runs[name]
    times = race(
        runs,
        synchronise=subject.synchronise,
        costly=[name for name in runs if CONTESTANTS[name].costly],
        rounds=conditions.rounds,
        budget=conditions.budget,
        tick=conditions.tick,
    )
    for name, seconds in timed.items():
        times[name] = [seconds, *[None] * (len(times[PLAIN]) - 1)]
    weights = sum(parameter.nbytes for parameter in subject.model.parameters())
    return CellResult(cell, times, peaks, weights, left_open, absent)


def time_measurement(vlm: Vlm, dataset: str, *, batch_size: int = BATCH, **options: Any) -> MeasurementTime:
    """Return the seconds of a first and of a second `measure(vlm, dataset, **options)`, and of plain passes.

    The first finds an empty cache and the second its readings. The plain passes are those of the same samples at the
    same batch size. They run before and after, and the mean counts.

    A forward pass of the first measurement is a call of the model, including the probe's work while the layers run.
    Captions that continue a cached prompt call the decoder and its unembedding alone, and count too. Reading images,
    encoding prompts and assembling readings count as outside. The calls are timed in the calling thread. A GPU call
    returns before its work is done, so the share does not describe the device's time.
    """
    plain = [plain_seconds(vlm, dataset, options.get("samples"), batch_size)]
    with TemporaryDirectory() as cache:
        settings = {"batch_size": batch_size, "cache": Path(cache), **options}
        with _timed_calls([vlm.model, decoder_stack(vlm.model, vlm.anatomy), vlm.anatomy.unembedding]) as calls:
            begin = time.perf_counter()
            profile = measure(vlm, dataset, **settings)
            first = time.perf_counter() - begin
        begin = time.perf_counter()
        measure(vlm, dataset, **settings)
        warm = time.perf_counter() - begin
    plain.append(plain_seconds(vlm, dataset, options.get("samples"), batch_size))
    return MeasurementTime(profile.pair, profile.n, first, sum(calls), warm, sum(plain) / 2)


@contextmanager
def _timed_calls(modules: Sequence[nn.Module]) -> Iterator[list[float]]:
    """Collect the seconds of each call of the modules; a call inside another one is part of it."""
    open_calls: list[float] = []
    seconds: list[float] = []

    # A linear layer with any other hook would no longer count as plain, and the lens would call it for every token.
    @observer
    def begin(*_: object) -> None:
        open_calls.append(time.perf_counter())

    @observer
    def finish(*_: object) -> None:
        elapsed = time.perf_counter() - open_calls.pop()
        if not open_calls:
            seconds.append(elapsed)

    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_pre_hook(begin, prepend=True).remove)
            hooks.callback(module.register_forward_hook(finish, always_call=True).remove)
        yield seconds


def run_plan(plan: CostPlan, command: str) -> CostRun:
    """Measure all cells of a plan and return the results; `command` is the command line that the page shows.

    Raises:
        DeviceError, WeightsError: the device or a pair's weights are unavailable.
    """
    start = time.perf_counter()
    device = choose_device(plan.conditions.device)
    results = []
    with tqdm(total=len(plan.cells) + len(plan.pairs), desc="cells", unit="cell", disable=None) as bar:
        for cell, subject in plan.subjects():
            bar.set_postfix_str(cell.title)
            results.append(measure_cell(cell, subject, replace(plan.conditions_for(cell, device), tick=bar.refresh)))
            bar.update()
            del subject
    return CostRun(
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        command=command,
        device=device.type,
        device_name=device_name(device),
        dtype=_dtype(plan, device),
        threads=torch.get_num_threads(),
        versions={package: installed_version(package) for package in _PACKAGES},
        cells=tuple(results),
        measurements=tuple(_measurement_times(plan)),
        seconds=round(time.perf_counter() - start, 1),
    )


def _measurement_times(plan: CostPlan) -> Iterator[MeasurementTime]:
    """Yield the times of the full measurements of each model on each dataset."""
    for model in plan.models if plan.samples != 0 else []:
        vlm = plan.conditions.load(model)
        for dataset in DATASETS:
            yield time_measurement(vlm, dataset, samples=plan.samples, progress=False)


def _dtype(plan: CostPlan, device: torch.device) -> str:
    """Return the dtypes of the random-weight models and of the pairs, which differ on a GPU."""
    dtypes = {
        kind: str(choose_dtype(plan.conditions.dtype, device, bundled=kind == "pairs")).removeprefix("torch.")
        for kind, cells in {"drawn": plan.cells, "pairs": plan.pairs}.items()
        if cells
    }
    kinds = set(dtypes.values())
    return kinds.pop() if len(kinds) == 1 else ", ".join(f"{kind} {dtype}" for kind, dtype in dtypes.items())
