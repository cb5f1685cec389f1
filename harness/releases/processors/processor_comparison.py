"""Comparison of a processor's readings in two releases; needs numpy only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from harness.releases.processors.processor_readings import CaseReading, PixelReading, ProcessorReadings

#: Differences of pixel values up to this, relative to the largest value, are rounding.
PIXEL_TOLERANCE = 1e-5
_MOST_CASES = 3
_SPEED = {"torchvision": "fast (torchvision)", "pil": "slow (Pillow)"}


class ProcessorOutcome(StrEnum):
    """The verdict on a processor in two releases."""

    SAME = "same"
    CHANGED = "processor changed"


class PixelDifference(NamedTuple):
    """The largest and the mean absolute difference of one case's pixels, over the values both readings keep."""

    case: str
    largest: float
    mean: float


@dataclass(frozen=True, slots=True)
class ProcessorComparison:
    """The verdict on a processor, one sentence per change of behaviour, and notes that are no change of behaviour.

    `largest_pixels` is the case with the largest difference of pixels, None if pixels are equal or have other shapes.
    """

    verdict: ProcessorOutcome
    changes: tuple[str, ...]
    notes: tuple[str, ...]
    largest_pixels: PixelDifference | None = None

    @property
    def sentence(self) -> str:
        """All changes and notes in one line."""
        return "; ".join((*self.changes, *self.notes))


def compare_processors(before: ProcessorReadings, after: ProcessorReadings) -> ProcessorComparison:
    """Return the changes between the readings of one processor in two releases, compared case by case.

    Readings without cases, of a processor whose library is missing in one release, show no change. A renamed class
    and a repaired error are notes; another backend of the image processor is named with the difference of the pixels.
    """
    common = {case: (before.cases[case], after.cases[case]) for case in before.cases if case in after.cases}
    read = {case: pair for case, pair in common.items() if not pair[0].error and not pair[1].error}
    pixels = {case: (old.pixels, new.pixels) for case, (old, new) in read.items() if old.pixels and new.pixels}
    difference = _largest_difference(pixels)
    changes = [
        *_new_errors(common),
        *_token_changes(read),
        *_image_token_changes(read),
        *_pixel_changes(pixels, difference),
        *_size_changes(read),
        *_lost_outputs(read),
    ]
    notes = [
        *(_class_notes(before, after, bool(changes)) if common else ()),
        *_new_outputs(read),
        *_repaired_errors(common),
    ]
    remarks = (
        f"{when}: {readings.remark}" for when, readings in (("before", before), ("after", after)) if readings.remark
    )
    return ProcessorComparison(
        verdict=ProcessorOutcome.CHANGED if changes else ProcessorOutcome.SAME,
        changes=tuple(changes),
        notes=(*notes, *remarks),
        largest_pixels=difference,
    )


_Pairs = Mapping[str, tuple[CaseReading, CaseReading]]
_PixelPairs = Mapping[str, tuple[PixelReading, PixelReading]]


def _new_errors(common: _Pairs) -> Iterator[str]:
    errors = {case: new.error for case, (old, new) in common.items() if new.error and not old.error}
    for error in dict.fromkeys(errors.values()):
        yield f"{_cases([case for case in errors if errors[case] == error])} now fails: {error}"


def _repaired_errors(common: _Pairs) -> Iterator[str]:
    errors = {case: old.error for case, (old, new) in common.items() if old.error and not new.error}
    for error in dict.fromkeys(errors.values()):
        yield f"{_cases([case for case in errors if errors[case] == error])} failed before: {error}"


def _token_changes(read: _Pairs) -> Iterator[str]:
    differing = [case for case, (old, new) in read.items() if old.token_ids != new.token_ids]
    if differing:
        old, new = (reading.token_ids for reading in read[differing[0]])
        shorter = min(len(old), len(new))
        position = next((index for index in range(shorter) if old[index] != new[index]), shorter)
        yield (
            f"token ids differ in {_cases(differing)}, first at position {position} of {differing[0]} "
            f"({len(old)} and {len(new)} ids)"
        )


def _image_token_changes(read: _Pairs) -> Iterator[str]:
    differing = [case for case, (old, new) in read.items() if old.image_tokens != new.image_tokens]
    if differing:
        old, new = read[differing[0]]
        yield f"number of image tokens from {old.image_tokens} to {new.image_tokens} in {_cases(differing)}"


def _largest_difference(pixels: _PixelPairs) -> PixelDifference | None:
    differences = [
        PixelDifference(case, float(gaps.max()), float(gaps.mean()))
        for case, (old, new) in pixels.items()
        if old.shape == new.shape and (gaps := np.abs(old.samples - new.samples)).size and _differ(old, new)
    ]
    return max(differences, key=lambda difference: difference.largest, default=None)


def _differ(old: PixelReading, new: PixelReading) -> bool:
    """Return True if the pixels differ by more than rounding."""
    if old.shape != new.shape:
        return True
    if old.digest == new.digest:
        return False
    scale = PIXEL_TOLERANCE * max(1.0, abs(old.minimum), abs(old.maximum))
    return not (
        np.allclose(old.samples, new.samples, rtol=0, atol=scale, equal_nan=True)
        and np.allclose(old.statistics, new.statistics, rtol=0, atol=scale, equal_nan=True)
    )


def _pixel_changes(pixels: _PixelPairs, difference: PixelDifference | None) -> Iterator[str]:
    reshaped = [case for case, (old, new) in pixels.items() if old.shape != new.shape]
    if reshaped:
        old, new = pixels[reshaped[0]]
        yield f"shape of {new.name} from {old.shape} to {new.shape} in {_cases(reshaped)}"
    if difference:
        differing = [case for case, (old, new) in pixels.items() if old.shape == new.shape and _differ(old, new)]
        yield (
            f"pixels differ in {_cases(differing)}: by at most {difference.largest:.3g}, on average "
            f"{difference.mean:.3g}, in {difference.case}"
        )


def _size_changes(read: _Pairs) -> Iterator[str]:
    names = dict.fromkeys(name for old, new in read.values() for name in old.sizes or {} if name in (new.sizes or {}))
    for name in names:
        differing = [
            case
            for case, (old, new) in read.items()
            if old.sizes and new.sizes and name in old.sizes and old.sizes[name] != new.sizes.get(name, old.sizes[name])
        ]
        if differing:
            old, new = read[differing[0]]
            yield f"{name} differs in {_cases(differing)}: {(old.sizes or {})[name]} and {(new.sizes or {})[name]}"


def _lost_outputs(read: _Pairs) -> Iterator[str]:
    names = sorted({name for old, new in read.values() for name in set(old.outputs) - set(new.outputs)})
    if names:
        yield f"no longer returns {', '.join(names)}"


def _new_outputs(read: _Pairs) -> Iterator[str]:
    names = sorted({name for old, new in read.values() for name in set(new.outputs) - set(old.outputs)})
    if names:
        yield f"also returns {', '.join(names)}"


def _class_notes(before: ProcessorReadings, after: ProcessorReadings, changed: bool) -> Iterator[str]:
    if before.processor_class != after.processor_class:
        yield f"processor class from {before.processor_class} to {after.processor_class}"
    classes = f"from {before.image_processor_class} to {after.image_processor_class}"
    if before.backend != after.backend:
        speeds = (_SPEED.get(readings.backend, "no") for readings in (before, after))
        yield f"image processor {' to '.join(speeds)}, {classes}"
    elif before.image_processor_class != after.image_processor_class:
        yield f"image processor class {classes}{'' if changed else ', with equal pixels'}"


def _cases(cases: list[str]) -> str:
    """Return the first ids and the number of the others."""
    rest = f" and {len(cases) - _MOST_CASES} more" if len(cases) > _MOST_CASES else ""
    return f"{', '.join(cases[:_MOST_CASES])}{rest}"
