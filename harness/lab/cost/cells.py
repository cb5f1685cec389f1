"""The cells of the benchmark, what is raced in each, and how one is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from harness.errors import first_line
from harness.lab.cost.contestants import CONTESTANTS, EVERYTHING, PLAIN
from harness.lab.cost.drawn import LLAVA_7B, SMALL, drawn_subject, image_side
from harness.lab.cost.memory import peak_bytes
from harness.lab.cost.pairs import pair_subject
from harness.lab.cost.race import COSTLY_SHARE, race
from harness.lab.cost.results import Cell, CellResult
from harness.lab.cost.subject import AbsentError, Subject
from harness.models.registry import find_model
from harness.models.vlm import Vlm, choose_device, choose_dtype, load_vlm
from harness.profile.pair import Pair

TOKENS, LAYERS = (64, 300, 600, 1200, 2400), (14, 32)
PAIRS = ("scenes-llava", "scenes-instructblip")
DATASET, BATCHES = "scenes", (1, 8)
PAIR = "pair"
#: The drawn topologies by the name that a cell's kind has.
KINDS = MappingProxyType({"small": SMALL, "full width": LLAVA_7B})
SMALL_KIND, FULL_WIDTH = KINDS


@dataclass(frozen=True, slots=True)
class Conditions:
    """How cells are measured: contestants by name, a fixed number of rounds or a budget in seconds a cell."""

    contestants: Sequence[str]
    rounds: int | None
    budget: float
    device: str
    dtype: str
    cache: Path
    tick: Callable[[], None] = lambda: None


def drawn_cells(kind: str, tokens: Sequence[int], layers: Sequence[int], batch: int = 1) -> list[Cell]:
    """Cells of a drawn topology, the shallow and short ones first.

    Raises:
        ValueError: too few tokens for a picture.
    """
    label = f"drawn LLaVA, d = {KINDS[kind].hidden:,}"
    return [Cell(kind, label, count, image_side(count) ** 2, depth, batch) for depth in layers for count in tokens]


def subjects(
    cells: Sequence[Cell], pairs: Sequence[tuple[str, int]], conditions: Conditions
) -> Iterator[tuple[Cell, Subject]]:
    """Each cell with what is raced in it, made when it is asked for; pairs are (model, batch), loaded once a model."""
    device = choose_device(conditions.device)
    dtype = choose_dtype(conditions.dtype, device, embedded=False)
    for cell in cells:
        yield (
            cell,
            drawn_subject(
                KINDS[cell.kind], cell.tokens, cell.layers, batch=cell.batch, dtype=dtype, device=str(device)
            ),
        )
    for model in dict.fromkeys(name for name, _ in pairs):
        vlm = load(model, conditions)
        for batch in (batch for name, batch in pairs if name == model):
            subject = pair_subject(vlm, DATASET, batch)
            tokens = subject.groups.real.shape[1]
            image = int(subject.groups.image[0].sum())
            yield Cell(PAIR, str(Pair(model, DATASET)), tokens, image, subject.anatomy.depth, batch), subject


def load(model: str, conditions: Conditions) -> Vlm:
    """A registered model on the device; raises what `load_vlm` raises."""
    return load_vlm(find_model(model), cache=conditions.cache, device=conditions.device, dtype=conditions.dtype)


def measured(cell: Cell, subject: Subject, conditions: Conditions) -> CellResult:
    """What came of a cell: the peaks of all contestants, whose passes are warm-ups, then the race.

    A costly contestant whose pass took 40 % of the budget is not run again: the time of that pass is its one round.
    """
    runs: dict[str, Callable[[], Any]] = {}
    timed: dict[str, float] = {}
    absent: dict[str, str] = {}
    peaks: dict[str, int] = {}
    left_open: float | None = None
    for name in conditions.contestants:
        conditions.tick()
        try:
            runs[name] = CONTESTANTS[name].prepared(subject)
            start = time.perf_counter()
            peaks[name], read = peak_bytes(runs[name], subject.device)
            seconds = time.perf_counter() - start
            if name == EVERYTHING:
                left_open = read[1].opened / subject.lens_tokens
            del read
        except (AbsentError, torch.OutOfMemoryError) as error:
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
