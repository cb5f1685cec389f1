"""A synthetic sample for the tests of figures and page, whose texts may be hostile, and figures without PNG and PDF."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import pytest
from matplotlib.figure import Figure

from harness.profile.profile import Drawing
from harness.tests.support.synthetic_profiles import L

ROWS, COLUMNS = 2, 3
TEXT = 5


def synthetic_drawing(
    sample_id: str = "sample-0", *, text: str = "word", captions: tuple[str, ...] = ("a word",), grid: bool = True
) -> Drawing:
    """Return a sample of BOS, a grid of image tokens and some text, with random norms. Decoded tokens are `text`."""
    rng = np.random.default_rng(len(sample_id))
    image = ROWS * COLUMNS
    tokens = 1 + image + TEXT
    position = np.arange(tokens)
    groups = {
        "image": (position >= 1) & (position <= image),
        "instruction": (position > image + 1) & (position <= image + 3),
    }
    groups["other"] = ~(groups["image"] | groups["instruction"])
    return Drawing(
        sample_id=sample_id,
        instruction=f"describe {text}",
        captions=captions,
        norm_rows=rng.gamma(2.0, 1.0, (L, tokens)).astype(np.float32),
        groups=groups,
        image_tokens=tuple(tuple([text] * (image - 1) + ["other"]) for _ in range(L + 1)),
        last_token=((text, "a", "b", "c", "d"),) * (L + 1),
        tokens=("<s>", *[""] * image, *[text] * TEXT),
        image=rng.integers(0, 256, (20, 30, 3), dtype=np.uint8),
        grid=(ROWS, COLUMNS) if grid else None,
        no_grid_reason="" if grid else "its image tokens are learnt queries",
    )


HOSTILE = "</td></svg></style><script>alert(1)</script><img src=x onerror=alert(2)> \"'&amp; \u202e{{ 7 * 7 }}"


@contextmanager
def without_raster_and_pdf() -> Iterator[None]:
    """Write only the name of the format to PNG and PDF files, which take three quarters of the time of a report."""
    save = Figure.savefig

    def quick_save(figure: Figure, file: BinaryIO, *, format: str, **options: Any) -> None:
        if format == "svg":
            save(figure, file, format=format, **options)
        else:
            file.write(format.encode())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", quick_save)
        yield


@pytest.fixture
def svg_only() -> Iterator[None]:
    """Figures as SVG only, for a test that reads neither PNG nor PDF."""
    with without_raster_and_pdf():
        yield
