"""A photograph as the models get it: eight-bit RGB, upright, whole."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Protocol

import numpy as np

from harness.data.sample import DataError

if TYPE_CHECKING:
    from PIL.Image import Image


class Place(Protocol):
    """Where the bytes of an image lie: a `Path`, or a cell of a table."""

    @property
    def name(self) -> str:
        """What the image is called in messages."""

    def read_bytes(self) -> bytes:
        """The encoded image."""


def photograph(place: Place) -> Image:
    """The image at a place, decoded in full, in mode RGB.

    Greyscale is repeated in the three channels. CMYK and palettes are converted by Pillow. Sixteen bits a channel are
    scaled to eight (65,535 becomes 255). What is transparent is laid on white. The orientation noted in EXIF is
    applied. Of an animation the first frame is taken.

    Raises:
        DataError: the image is missing, truncated, or no image; the message says which.
    """
    found = _decoded(place)
    if isinstance(found, str):
        raise DataError(f"{place}: {found}; put a whole copy in its place or take it out of the dataset")
    return found


def fault(place: Place) -> str | None:
    """Why the image at a place cannot be used (missing, empty, truncated, no image), or None; decodes all of it."""
    found = _decoded(place)
    return found if isinstance(found, str) else None


def _decoded(place: Place) -> Image | str:
    from PIL import Image, UnidentifiedImageError

    try:
        content = place.read_bytes()
    except FileNotFoundError:
        return f"{place.name} is missing"
    except DataError as error:
        return str(error)
    except (OSError, ValueError) as error:
        return f"{place.name} cannot be read ({getattr(error, 'strerror', None) or error})"
    if not content:
        return f"{place.name} is empty"
    try:
        # The user's filter of warnings must not decide which photographs are used.
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as file:
            return _rgb(file)
    except UnidentifiedImageError:
        return f"{place.name} is not an image"
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever the broken bytes lead them to
        return f"{place.name} is broken or truncated ({error})"


def _rgb(file: Image) -> Image:
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I"):
        # Pillow would clip these at 255: a 16-bit photograph would come out white.
        levels = np.asarray(image, dtype=np.float64) / 257.0
        image = Image.fromarray(np.clip(levels, 0, 255).round().astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")
