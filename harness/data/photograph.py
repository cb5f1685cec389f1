"""Decoding of photographs to complete, upright images in eight-bit RGB."""

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

#: Formats that are decoded. Pillow's other formats are not photographs, and some are programs (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM")
#: Most pixels and bytes of a photograph; a larger file could exhaust the memory.
MOST_PIXELS = 100_000_000
MOST_BYTES = 256_000_000
# Pillow's WebP decoder keeps four copies of four bytes per pixel, other decoders two or three.
_MOST_PIXELS_OF = {"WEBP": 70_000_000}
# Each scan of a JPEG decodes all pixels again; cameras and programs write 1 to 20 scans.
_MOST_SCANS, _SCAN = 1000, b"\xff\xda"
# Pillow opens a JPEG that is followed by further images as MPO.
_WITH_SCANS = ("JPEG", "MPO")
_LONGEST = 100  # characters of a name or of a library's error in a message
# Pixels converted at once: a full copy of a large image in wider numbers takes gigabytes.
_PIXELS_AT_ONCE = 2**20
#: Largest ratio of the sides. A processor that resizes the shorter side would exhaust the memory beyond it.
MOST_STRETCHED = 200
_WHITE_IS_ZERO = (262, 0)  # TIFF tag and value
_TILE_SIDES = (322, 323)  # TIFF tags: a tile is decoded completely, even if the image is smaller
# Pillow's settings are global, so only one thread at a time may replace them.
_SETTINGS = threading.Lock()


class EncodedImage(Protocol):
    """The source of an encoded image: a `Path`, or a cell of a table."""

    @property
    def name(self) -> str:
        """The image's name in messages."""

    def read_bytes(self) -> bytes:
        """Return the encoded image."""


def decode_image(source: EncodedImage) -> Image:
    """Return the completely decoded image in mode RGB.

    Greyscale is repeated in the three channels. Pillow converts CMYK and palettes. The range of 16-bit, 32-bit and
    float values decides their scale: white is 1, 255 or 65,535. Transparent images get a white background. The EXIF
    orientation is applied. The first frame of an animation is used. Pillow's global settings have no effect.

    Raises:
        DataError: the image is missing, truncated, not an image, too large, too elongated, or has values of an unknown
            range; the message states the reason.
    """
    result = _decoded(source)
    if isinstance(result, str):
        raise DataError(f"{source}: {result}; replace it with an intact copy or remove it from the dataset")
    return result


def find_fault(source: EncodedImage) -> str | None:
    """Return why an image cannot be used (missing, empty, truncated, too large, not an image), or None if it can.

    Decodes the complete image.
    """
    result = _decoded(source)
    return result if isinstance(result, str) else None


def _decoded(source: EncodedImage) -> Image | str:
    name = printable(source.name, _LONGEST)
    try:
        content = read_encoded(source)
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
        # Repeat without warnings, because the user's filter may turn a warning into an error. The first attempt keeps
        # the filters: they are global, and the warnings of a model that runs meanwhile are counted.
        with warnings.catch_warnings(action="ignore"):
            image = _opened(content, name)
    return image


def _opened(content: bytes, name: str) -> Image | str:
    """Return the decoded image, or the reason why it cannot be used."""
    from PIL import Image, UnidentifiedImageError

    enormous = f"{name} claims more than {{:,}} pixels, so it is not a photograph"
    try:
        with _own_settings(), Image.open(io.BytesIO(content), formats=_readable()) as file:
            most = _MOST_PIXELS_OF.get(file.format or "", MOST_PIXELS)
            if max(file.width * file.height, _tile_pixels(file)) > most:
                return enormous.format(most)
            if file.format in _WITH_SCANS and content.count(_SCAN) > _MOST_SCANS:
                return f"{name} has more than {_MOST_SCANS:,} scans, so it is not a photograph"
            if max(file.size) > MOST_STRETCHED * min(file.size):
                return f"{name} has {file.width} x {file.height} pixels, too elongated for a photograph"
            _refuse_damaged(content)
            return _rgb(file)
    except RangeError as error:
        return f"{name} has {error}"
    except UnidentifiedImageError:
        return f"{name} is not an image in a supported format ({', '.join(FORMATS)})"
    except Image.DecompressionBombError:
        return enormous.format(MOST_PIXELS)
    except MemoryError:
        raise
    except Exception as error:  # decoders may raise any error for broken bytes
        return f"{name} is broken or truncated ({printable(str(error), _LONGEST)})"


def read_encoded(source: EncodedImage) -> bytes:
    """Return the bytes of an encoded image; a path must lead to a regular file.

    Raises:
        OSError, ValueError: the file does not exist or is not a regular file of bounded size.
        DataError: the cell contains no image.
    """
    if isinstance(source, Path):
        return read_regular(source, MOST_BYTES)
    return source.read_bytes()


def _readable() -> list[str]:
    """Return the formats that this build of Pillow can read."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


@contextmanager
def _own_settings() -> Iterator[None]:
    """Set Pillow's global settings for decoding, and restore them afterwards."""
    from PIL import Image, ImageFile

    with _SETTINGS:
        before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, MOST_PIXELS
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = before


def _refuse_damaged(content: bytes) -> None:
    """Raise an error if a checksum of the file does not match; decoding does not check them."""
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
            # Pillow would clip at 255, so 16-bit photographs would become white, and floats up to 1 black.
            levels = (np.asarray(strip, dtype=np.float64) * factor / divisor).round().astype(np.uint8)
            strip = Image.fromarray(255 - levels if negative else levels)
        if strip.has_transparency_data:
            layer = strip.convert("RGBA")
            strip = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        picture.paste(strip.convert("RGB"), (0, top))
    return picture


def _strips(image: Image) -> Iterator[tuple[int, Image]]:
    """Yield strips of rows of an image, each with the index of its first row."""
    rows = max(1, _PIXELS_AT_ONCE // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _refuse_dark(image: Image) -> None:
    """Raise `RangeError` if the image is nearly black in the upper eight of sixteen bits, which Pillow keeps."""
    high = max(int(np.asarray(strip.convert("RGB")).max()) for _, strip in _strips(image))
    if high < LEAST_SIXTEEN // 256:
        raise RangeError(
            f"sixteen-bit values below {256 * (high + 1):,} of 65,535: save the image with 8 bits per channel"
        )


def _turn_upright(file: Image) -> None:
    """Decode the image and apply its EXIF orientation; unreadable EXIF data is ignored."""
    from PIL import ImageOps

    file.load()
    try:
        file.getexif()
    except Warning:  # The user's filter made an error of this warning; the caller retries without it.
        raise
    except Exception:  # The EXIF reader may raise any error for broken bytes.
        return
    ImageOps.exif_transpose(file, in_place=True)
