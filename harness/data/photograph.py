"""A photograph as the models get it: eight-bit RGB, upright, whole."""

from __future__ import annotations

import io
import stat
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from harness.data.sample import DataError
from harness.errors import shown

if TYPE_CHECKING:
    from PIL.Image import Image

#: Kinds of file that are decoded. Others that Pillow knows are no photographs, and some are programs (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM")
#: Pixels and bytes of the largest photograph; what claims more is there to fill the memory.
MOST_PIXELS = 100_000_000
MOST_BYTES = 256_000_000
_LONGEST = 100  # characters of a name or of somebody else's error in a message


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
        DataError: the image is missing, truncated, no image, or larger than a photograph is; the message says which.
    """
    found = _decoded(place)
    if isinstance(found, str):
        raise DataError(f"{place}: {found}; put a whole copy in its place or take it out of the dataset")
    return found


def fault(place: Place) -> str | None:
    """Why the image at a place cannot be used (missing, empty, truncated, too large, no image), or None.

    Decodes all of it.
    """
    found = _decoded(place)
    return found if isinstance(found, str) else None


def _decoded(place: Place) -> Image | str:
    from PIL import Image, UnidentifiedImageError

    name = shown(place.name, _LONGEST)
    try:
        content = _content(place)
    except FileNotFoundError:
        return f"{name} is missing"
    except DataError as error:
        return str(error)
    except (OSError, ValueError) as error:
        return f"{name} cannot be read ({getattr(error, 'strerror', None) or error})"
    if not content:
        return f"{name} is empty"
    enormous = f"{name} is said to have more than {MOST_PIXELS:,} pixels, so it is no photograph"
    try:
        # The user's filter of warnings must not decide which photographs are used.
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content), formats=_readable()) as file:
            return _rgb(file) if file.width * file.height <= MOST_PIXELS else enormous
    except UnidentifiedImageError:
        return f"{name} is not an image"
    except Image.DecompressionBombError:
        return enormous
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever the broken bytes lead them to
        return f"{name} is broken or truncated ({shown(str(error), _LONGEST)})"


def _content(place: Place) -> bytes:
    if isinstance(place, Path):
        # Following links, as where an archive's folder is linked to; but a pipe or a device would never end.
        found = place.stat()
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(None, "it is a directory")
        if not stat.S_ISREG(found.st_mode):
            raise OSError(None, "it is a pipe or a device")
        if found.st_size > MOST_BYTES:
            raise OSError(None, f"it is larger than {MOST_BYTES:,} bytes, so it is no photograph")
    return place.read_bytes()


def _readable() -> list[str]:
    """The kinds of file that this Pillow was built to read."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


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
