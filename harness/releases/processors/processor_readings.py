"""Readings of a processor: token ids and pixels for every case, as a record that JSON can hold."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
#: Pixel values that are kept of a case, evenly spread.
SAMPLES = 2048


@dataclass(frozen=True, slots=True)
class PixelReading:
    """Statistics of one case's pixels, and evenly spread samples of them, float32 (at most `SAMPLES`,).

    `digest` is a hash of all values. `name` is the processor's name of the array.
    """

    name: str
    shape: tuple[int, ...]
    mean: float
    deviation: float
    minimum: float
    maximum: float
    digest: str
    samples: Floats

    @classmethod
    def of(cls, name: str, pixels: npt.NDArray[Any]) -> PixelReading:
        """Return the reading of an array of any shape with at least one value."""
        values = np.ascontiguousarray(pixels, dtype=np.float32)
        flat = values.reshape(-1)
        indexes = np.unique(np.linspace(0, flat.size - 1, min(SAMPLES, flat.size)).astype(np.int64))
        return cls(
            name=name,
            shape=values.shape,
            mean=float(flat.mean()),
            deviation=float(flat.std()),
            minimum=float(flat.min()),
            maximum=float(flat.max()),
            digest=hashlib.sha256(flat.tobytes()).hexdigest()[:16],
            samples=flat[indexes],
        )

    @property
    def statistics(self) -> Floats:
        """Mean, standard deviation, minimum and maximum, float32 (4,)."""
        return np.array([self.mean, self.deviation, self.minimum, self.maximum], dtype=np.float32)

    def record(self) -> dict[str, Any]:
        """Return the reading as a JSON-serialisable mapping."""
        packed = zlib.compress(self.samples.astype("<f4").tobytes())
        return {
            **{name: getattr(self, name) for name in ("name", "mean", "deviation", "minimum", "maximum", "digest")},
            "shape": list(self.shape),
            "samples": base64.b64encode(packed).decode("ascii"),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> PixelReading:
        """Return the reading that `record` describes."""
        samples = np.frombuffer(zlib.decompress(base64.b64decode(record["samples"])), dtype="<f4")
        return cls(**{**record, "shape": tuple(record["shape"]), "samples": samples.astype(np.float32)})


@dataclass(frozen=True, slots=True)
class CaseReading:
    """A processor's output for one case, or its error.

    `sizes` holds the small integer arrays that the processor returns beside ids and pixels, such as grids of patches,
    as nested lists by name. `outputs` holds the names of all outputs. `error` is empty if the case was read.
    """

    token_ids: tuple[int, ...] = ()
    image_tokens: int = 0
    pixels: PixelReading | None = None
    sizes: Mapping[str, Any] | None = None
    outputs: tuple[str, ...] = ()
    error: str = ""

    def record(self) -> dict[str, Any]:
        """Return the reading as a JSON-serialisable mapping."""
        if self.error:
            return {"error": self.error}
        return {
            "token_ids": list(self.token_ids),
            "image_tokens": self.image_tokens,
            "pixels": self.pixels and self.pixels.record(),
            "sizes": dict(self.sizes or {}),
            "outputs": list(self.outputs),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> CaseReading:
        """Return the reading that `record` describes."""
        if record.get("error"):
            return cls(error=record["error"])
        return cls(
            token_ids=tuple(record["token_ids"]),
            image_tokens=record["image_tokens"],
            pixels=PixelReading.from_record(record["pixels"]) if record["pixels"] else None,
            sizes=dict(record["sizes"]),
            outputs=tuple(record["outputs"]),
        )


@dataclass(frozen=True, slots=True)
class ProcessorReadings:
    """The classes of a processor and its output by case id.

    `backend` is `torchvision` for an image processor that works on tensors (a fast one), `pil` for one that works on
    pictures of Pillow, and empty without an image processor. `remark` says how the processor was built or loaded, if
    that was not the usual way. `cases` is empty if a library that the processor requires was missing.
    """

    processor_class: str
    image_processor_class: str
    backend: str
    cases: Mapping[str, CaseReading]
    remark: str = ""

    def record(self) -> dict[str, Any]:
        """Return the readings as a JSON-serialisable mapping."""
        return {
            "processor_class": self.processor_class,
            "image_processor_class": self.image_processor_class,
            "backend": self.backend,
            "remark": self.remark,
            "cases": {case: reading.record() for case, reading in self.cases.items()},
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ProcessorReadings:
        """Return the readings that `record` describes."""
        cases = {case: CaseReading.from_record(reading) for case, reading in record["cases"].items()}
        return cls(**{**record, "cases": cases})
