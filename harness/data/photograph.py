"""A photograph as the models get it: eight-bit RGB, upright, whole."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from harness.data.sample import DataError
from harness.data.value_range import LEAST_SIXTEEN, RangeError, ValueRange
from harness.errors import printable
from harness.storage.regular_file import read_regular

if TYPE_CHECKING:
    from PIL.Image import Image

#: Kinds of file that are decoded. Others that Pillow knows are no photographs, and some are programs (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM")
#: Pixels and bytes of the largest photograph; what claims more is there to fill the memory.
MOST_PIXELS = 100_000_000
MOST_BYTES = 256_000_000
# Pillow's decoder of WebP holds four bytes a pixel four times over, others two or three times.
_MOST_PIXELS_OF = {"WEBP": 70_000_000}
# Each scan of a JPEG goes through all of its pixels; cameras and programs write 1 to 20.
_MOST_SCANS, _SCAN = 1000, b"\xff\xda"
# Pillow opens a JPEG with further pictures behind it as MPO.
_WITH_SCANS = ("JPEG", "MPO")
_LONGEST = 100  # characters of a name or of somebody else's error in a message
# Pixels that are converted at once: whole copies of a large picture in wider numbers are gigabytes.
_PIXELS_AT_ONCE = 2**20
#: Times that the longer side is the shorter one, at most: a processor that resizes the shorter side fills the memory.
MOST_STRETCHED = 200
_WHITE_IS_ZERO = (262, 0)  # tag of TIFF and its value
_TILE_SIDES = (322, 323)  # tags of TIFF: a tile is decoded whole, however small the picture is
# Pillow's global settings are exchanged while a picture is decoded, by one thread at a time.
_SETTINGS = threading.Lock()


class EncodedImage(Protocol):
    """Where the bytes of an image lie: a `Path`, or a cell of a table."""

    @property
    def name(self) -> str:
        """What the image is called in messages."""

    def read_bytes(self) -> bytes:
        """Return the encoded image."""


def decode_image(place: EncodedImage) -> Image:
    """Return the image at a place, decoded in full, in mode RGB.

    Greyscale is repeated in the three channels. CMYK and palettes are converted by Pillow. Of integers of 16 or 32
    bits and of floats the range decides: white is 1, 255 or 65,535. What is transparent is laid on white. The
    orientation noted in EXIF is applied. Of an animation the first frame is taken. Pillow's global settings have no
    influence.

    Raises:
        DataError: the image is missing, truncated, no image, larger or longer than a photograph is, or has values of
            an unknown range; the message says which.
    """
    found = _decoded(place)
    if isinstance(found, str):
        raise DataError(f"{place}: {found}; put a whole copy in its place or take it out of the dataset")
    return found


def find_fault(place: EncodedImage) -> str | None:
    """Why the image at a place cannot be used (missing, empty, truncated, too large, no image), or None.

    Decodes all of it.
    """
    found = _decoded(place)
    return found if isinstance(found, str) else None


def _decoded(place: EncodedImage) -> Image | str:
    name = printable(place.name, _LONGEST)
    try:
        content = read_encoded(place)
    except FileNotFoundError:
        return f"{name} is missing"
    except DataError as error:
        return str(error)
    except (OSError, ValueError) as error:
        return f"{name} cannot be read ({getattr(error, 'strerror', None) or error})"
    if not content:
        return f"{name} is empty"
    image = _opened(content, name)
    if isinstance(image, str):
        # The user's filter must not make an error of a warning. Filters belong to the whole process, and pictures are
        # decoded beside a model whose warnings are counted: they stay as they are while a picture has no fault.
        with warnings.catch_warnings(action="ignore"):
            image = _opened(content, name)
    return image


def _opened(content: bytes, name: str) -> Image | str:
    """Return the image of some bytes, or what is wrong with them."""
    from PIL import Image, UnidentifiedImageError

    enormous = f"{name} is said to have more than {{:,}} pixels, so it is no photograph"
    try:
        with _own_settings(), Image.open(io.BytesIO(content), formats=_readable()) as file:
            most = _MOST_PIXELS_OF.get(file.format or "", MOST_PIXELS)
            if max(file.width * file.height, _tile_pixels(file)) > most:
                return enormous.format(most)
            if file.format in _WITH_SCANS and content.count(_SCAN) > _MOST_SCANS:
                return f"{name} has more than {_MOST_SCANS:,} scans, so it is no photograph"
            if max(file.size) > MOST_STRETCHED * min(file.size):
                return f"{name} has {file.width} x {file.height} pixels, a strip that is no photograph"
            _refuse_damaged(content)
            return _rgb(file)
    except RangeError as error:
        return f"{name} has {error}"
    except UnidentifiedImageError:
        return f"{name} is not an image of a kind that is read ({', '.join(FORMATS)})"
    except Image.DecompressionBombError:
        return enormous.format(MOST_PIXELS)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever the broken bytes lead them to
        return f"{name} is broken or truncated ({printable(str(error), _LONGEST)})"


def read_encoded(place: EncodedImage) -> bytes:
    """Return the encoded image at a place; of a path only where it is an ordinary file.

    Raises:
        OSError, ValueError: no such file, or none that is read.
        DataError: the place holds no image.
    """
    if isinstance(place, Path):
        return read_regular(place, MOST_BYTES)
    return place.read_bytes()


def _readable() -> list[str]:
    """Return the kinds of file that this Pillow was built to read."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


@contextmanager
def _own_settings() -> Iterator[None]:
    """Pillow's global settings as decoding needs them, whatever another library has set; restored afterwards."""
    from PIL import Image, ImageFile

    with _SETTINGS:
        before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, MOST_PIXELS
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = before


def _refuse_damaged(content: bytes) -> None:
    """Assert that checksums agree where a kind of file has them, which decoding does not look at."""
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=_readable()) as file:
        file.verify()


def _tile_pixels(file: Image) -> int:
    tags = getattr(file, "tag_v2", {})
    width, height = (int(tags.get(tag, 0)) for tag in _TILE_SIDES)
    return width * height


def _rgb(file: Image) -> Image:
    from PIL import Image

    sixteen = any(";16" in str(tile) for tile in getattr(file, "tile", ()))
    _turn_upright(file)
    wide = file.mode.startswith(("I", "F"))
    values = ValueRange()
    for _, strip in _strips(file) if wide else ():
        values.add(np.asarray(strip, dtype=np.float64))
    factor, divisor = values.factors() if wide else (1.0, 1.0)
    if sixteen and not wide:
        _refuse_dark(file)
    tag, zero = _WHITE_IS_ZERO
    negative = getattr(file, "tag_v2", {}).get(tag) == zero
    picture = Image.new("RGB", file.size)
    for top, strip in _strips(file):
        if wide:
            # Pillow would clip these at 255: a 16-bit photograph would come out white, and one of floats black.
            levels = (np.asarray(strip, dtype=np.float64) * factor / divisor).round().astype(np.uint8)
            strip = Image.fromarray(255 - levels if negative else levels)
        if strip.has_transparency_data:
            layer = strip.convert("RGBA")
            strip = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        picture.paste(strip.convert("RGB"), (0, top))
    return picture


def _strips(image: Image) -> Iterator[tuple[int, Image]]:
    """The rows of a picture, some at a time, each time with the number of the first."""
    rows = max(1, _PIXELS_AT_ONCE // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _refuse_dark(image: Image) -> None:
    """Assert that the upper eight of sixteen bits, which are those that Pillow keeps, use their range."""
    high = max(int(np.asarray(strip.convert("RGB")).max()) for _, strip in _strips(image))
    if high < LEAST_SIXTEEN // 256:
        raise RangeError(f"sixteen-bit values below {256 * (high + 1):,} of 65,535: save it with 8 bits a channel")


def _turn_upright(file: Image) -> None:
    """Decode the picture and turn it as its EXIF says; not where EXIF cannot be read, which takes nothing from it."""
    from PIL import ImageOps

    file.load()
    try:
        file.getexif()
    except Warning:  # An error by the user's filter only, which must not decide how the picture is turned.
        raise
    except Exception:  # The reader of EXIF raises whatever the broken bytes lead it to.
        return
    ImageOps.exif_transpose(file, in_place=True)
