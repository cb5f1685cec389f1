"""Large images are decoded within memory bounds, and images built to exhaust memory or time are refused."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.data import photograph as decoding
from harness.data.photograph import decode_image, find_fault
from harness.data.value_range import RangeError, ValueRange
from harness.tests.support.photographs import MemoryFile, png_chunk, random_pixels

SIDE = 10_000
# Prints the peak memory in bytes of a separate process that decodes an image.
DECODE = """
import sys
from pathlib import Path
from harness.data.photograph import find_fault
assert find_fault(Path(sys.argv[1])) is None
line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
print(1024 * int(line.split()[1]))
"""


def sixteen_bits(width: int, height: int, channels: int) -> bytes:
    """Return a PNG of 16 bits per channel, brightest at the right; written by rows to save memory."""
    row = np.repeat(np.linspace(0, 65_535, width).astype(">u2"), channels).tobytes()
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(b"\0" + row) for _ in range(height)) + packer.flush()
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def same_value(mode: str, kind: str, **options: str) -> bytes:
    """Return a compressed image in which all pixels are equal."""
    file = io.BytesIO()
    Image.new(mode, (SIDE, SIDE), 1 if mode == "F" else None).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system has no /proc with the peak memory")
@pytest.mark.parametrize("mode", ["grey", "rgb", "rgba", "float", "cmyk", "transparent"])
def test_an_image_of_a_hundred_megapixels_is_decoded_within_the_memory_bound(tmp_path: Path, mode: str) -> None:
    channels = {"grey": 1, "rgb": 3, "rgba": 4}
    modes = {"float": "F", "cmyk": "CMYK", "transparent": "RGBA"}
    content = (
        sixteen_bits(SIDE, SIDE, channels[mode])
        if mode in channels
        else same_value(modes[mode], "TIFF", compression="tiff_adobe_deflate")
    )
    (tmp_path / "a").write_bytes(content)
    run = [sys.executable, "-c", DECODE, str(tmp_path / "a")]
    peak = int(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
    assert peak < 1.2e9


def test_sixteen_bit_values_are_converted_in_strips() -> None:
    source = MemoryFile(sixteen_bits(4000, 4000, 1))
    tracemalloc.start()
    try:
        picture = decode_image(source)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert picture.size == (4000, 4000)
    assert most < 100e6, "the values alone are 128 MB as floats"


def as_file(mode: str) -> bytes:
    """Return an encoded image with different values in every row."""
    wide = random_pixels("a", 40)[..., 0].astype(np.float64)
    file = io.BytesIO()
    if mode in ("L", "LA", "P", "1", "RGB", "RGBA", "CMYK"):
        image = Image.fromarray(random_pixels("a", 40)).convert(mode)
        if "A" in mode:
            image.putalpha(Image.fromarray(random_pixels("b", 40)[..., 0]))
        image.save(file, "TIFF")
    elif mode == "sixteen":
        Image.fromarray((wide * 257).astype(np.uint16)).save(file, "PNG")
    elif mode == "negative":
        Image.fromarray((wide * 257).astype(np.uint16)).save(file, "TIFF", tiffinfo={262: 0})
    elif mode == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(random_pixels("a", 40)[:24]).save(file, "PNG", exif=exif)
    elif mode == "see-through":
        Image.fromarray(random_pixels("a", 40)).quantize(16).save(file, "PNG", transparency=bytes(range(0, 256, 16)))
    else:
        values = {"shares": wide / 255, "levels": wide, "fractions": wide * 0.99}[mode]
        Image.fromarray(values.astype(np.float32)).save(file, "TIFF")
    return file.getvalue()


MODES = ["L", "LA", "P", "1", "RGB", "RGBA", "CMYK", "sixteen", "negative", "turned", "see-through"]


@pytest.mark.parametrize("mode", [*MODES, "shares", "levels", "fractions"])
def test_decoding_in_strips_gives_the_same_image(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = np.asarray(decode_image(MemoryFile(as_file(mode))))
    for pixels_at_once in (1, 40 * 7, 40 * 39):
        monkeypatch.setattr(decoding, "_PIXELS_AT_ONCE", pixels_at_once)
        assert (np.asarray(decode_image(MemoryFile(as_file(mode)))) == expected).all()


@pytest.mark.parametrize("parts", [1, 2, 7])
@pytest.mark.parametrize("median", [0.9, 0.999, 1.0, 1.001, 30.0])
@pytest.mark.parametrize("count", [11, 12])
def test_the_median_is_computed_over_all_strips(parts: int, median: float, count: int) -> None:
    low, high = np.linspace(0.1, median, count // 2 + 1), np.linspace(median, 200.5, count - count // 2)
    values = np.random.default_rng(0).permutation(np.concatenate([[0.0], low[:-1], high]))
    span = ValueRange()
    for part in np.array_split(values, parts):
        span.add(part)
    if np.median(values[values > 0]) >= 1:
        assert span.factors() == (1.0, 1.0)
    else:
        with pytest.raises(RangeError, match=r"values from 0 to 200\.5"):
            span.factors()


def progressive(scans: int) -> bytes:
    """Return a progressive JPEG of 16 x 16 grey pixels with this many empty scans."""

    def segment(marker: int, content: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content

    codes = bytes([1] + [0] * 15)
    first = segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + b"\x0f"
    empty = segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + b"\x00\x01"
    return b"".join(
        (
            b"\xff\xd8",
            segment(0xDB, b"\0" + bytes([1]) * 64),
            segment(0xC2, struct.pack(">BHHB", 8, 16, 16, 1) + bytes([1, 0x11, 0])),
            segment(0xC4, b"\x00" + codes + b"\x00"),
            segment(0xC4, b"\x10" + codes + b"\xe0"),
            first,
            empty * scans,
            b"\xff\xd9",
        )
    )


def test_a_jpeg_with_more_than_a_thousand_scans_is_refused() -> None:
    """With 100 megapixels a scan of 200 bytes takes 10 ms, so 256 MB would take hours."""
    assert find_fault(MemoryFile(progressive(30))) is None
    assert find_fault(MemoryFile(progressive(1000))) == "held has more than 1,000 scans, so it is not a photograph"


def test_the_scan_limit_holds_for_a_jpeg_with_further_images() -> None:
    """Pillow opens such a file as MPO."""
    file, plain = io.BytesIO(), Image.fromarray(random_pixels("a"))
    plain.save(file, "MPO", save_all=True, append_images=[plain])
    index = file.getvalue()
    # The APP2 segment after the start of the image lists the images.
    length = index.index(b"\xff\xe2") + 2
    listed = index[length - 2 : length + int.from_bytes(index[length : length + 2], "big")]
    for scans, reason in ((30, None), (1000, "held has more than 1,000 scans, so it is not a photograph")):
        content = b"\xff\xd8" + listed + progressive(scans)[2:]
        with Image.open(io.BytesIO(content)) as image:
            assert image.format == "MPO"
        assert find_fault(MemoryFile(content)) == reason


def test_a_tile_larger_than_a_photograph_is_not_decoded() -> None:
    tags = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: 10_001, 323: 10_001, 324: 200, 325: 64}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    content = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0)
    reason = find_fault(MemoryFile(content.ljust(200, b"\0") + bytes(64)))
    assert reason == "held claims more than 100,000,000 pixels, so it is not a photograph"


def test_webp_has_its_own_pixel_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The WebP decoder needs 16 bytes per pixel in addition to the image."""
    file = io.BytesIO()
    Image.fromarray(random_pixels("a")).save(file, "WEBP")
    assert find_fault(MemoryFile(file.getvalue())) is None
    monkeypatch.setitem(decoding._MOST_PIXELS_OF, "WEBP", 575)
    assert "more than 575 pixels" in (find_fault(MemoryFile(file.getvalue())) or "")
