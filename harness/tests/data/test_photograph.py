from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from harness.data.photograph import decode_image, find_fault
from harness.data.sample import DataError
from harness.tests.support.photographs import (
    MemoryFile,
    encode_image,
    find_real_data,
    needs_real_data,
    png_chunk,
    random_pixels,
)


def decoded_pixels(path: Path) -> np.ndarray:
    picture = decode_image(path)
    assert picture.mode == "RGB"
    assert find_fault(path) is None
    return np.asarray(picture).astype(int)


def test_an_rgb_file_is_decoded_unchanged(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_image("a"))
    assert (decoded_pixels(tmp_path / "a.png") == random_pixels("a")).all()


def test_greyscale_is_copied_to_three_channels(tmp_path: Path) -> None:
    grey = random_pixels("a")[..., 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert (decoded_pixels(tmp_path / "a.png") == grey[..., None]).all()


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    grey = random_pixels("a")[..., 0]
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / f"a.{suffix}")
    assert (decoded_pixels(tmp_path / f"a.{suffix}") == grey[..., None]).all()


GREY = random_pixels("a")[..., 0].astype(np.float64)


@pytest.mark.parametrize(
    "values",
    [
        (GREY / 255).astype(np.float32),
        GREY.astype(np.float32),
        (GREY * 257).astype(np.float32),
        GREY.astype(np.int32),
        (GREY * 257).astype(np.int32),
    ],
    ids=["shares", "levels", "sixteen", "integers", "sixteen-integers"],
)
def test_values_are_scaled_by_their_range(tmp_path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert (decoded_pixels(tmp_path / "a.tif") == GREY[..., None]).all()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.vstack([GREY[:-1] / 255, np.full_like(GREY[:1], np.nan)]), "values that are NaN or infinite"),
        (GREY - 300, "values down to -"),
        (GREY / 255 * 3.7, "values from "),
        (np.exp(GREY / 40) / 5, "values from "),
        (GREY * 1e6, "values from "),
        (GREY * 16, "values from "),
    ],
    ids=["nan", "negative", "bright", "high-dynamic-range", "large", "twelve-bits"],
)
def test_values_of_an_unknown_range_are_refused_with_a_reason(tmp_path: Path, values: np.ndarray, reason: str) -> None:
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "a.tif")
    assert (find_fault(tmp_path / "a.tif") or "").startswith(f"a.tif has {reason}")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_eight_bit_levels_in_sixteen_bits_are_not_decoded_as_black(tmp_path: Path, suffix: str) -> None:
    """Eight-bit levels are used unscaled; ten to fourteen bits are indistinguishable from a dark photograph."""
    levels = GREY.astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / f"a.{suffix}")
    assert (decoded_pixels(tmp_path / f"a.{suffix}") == GREY[..., None]).all()
    Image.fromarray(levels * 16).save(tmp_path / f"b.{suffix}")
    assert (find_fault(tmp_path / f"b.{suffix}") or "").startswith(
        f"b.{suffix} has values from 0 to 4080, which are neither"
    )


@pytest.mark.parametrize(("factor", "reason"), [(257, None), (16, "below 4,096 of"), (1, "below 256 of")])
def test_a_sixteen_bit_colour_image_must_use_its_full_range(factor: int, reason: str | None) -> None:
    """Pillow keeps only the upper eight bits, so values of a smaller range become almost black."""
    rows = b"".join(b"\0" + (row.astype(np.uint16) * factor).astype(">u2").tobytes() for row in random_pixels("a"))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 24, 24, 16, 2, 0, 0, 0))
    source = MemoryFile(
        b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    )
    if reason:
        assert reason in (find_fault(source) or "")
    else:
        assert (np.asarray(decode_image(source)) == random_pixels("a")).all()


@pytest.mark.parametrize("values", [(255 - GREY) * 257, 1 - GREY / 255], ids=["integers", "floats"])
def test_an_image_stored_with_white_as_zero_is_inverted(tmp_path: Path, values: np.ndarray) -> None:
    kind = np.uint16 if values.max() > 1 else np.float32
    Image.fromarray(values.astype(kind)).save(tmp_path / "a.tif", tiffinfo={262: 0})
    assert (decoded_pixels(tmp_path / "a.tif") == GREY[..., None]).all()


def test_a_png_with_an_unwritten_second_half_is_broken() -> None:
    """An interrupted download that reserves space first leaves such a file; Pillow decodes it without an error."""
    complete = encode_image("a", "PNG")
    reason = find_fault(MemoryFile(complete[: len(complete) // 2] + bytes(len(complete) - len(complete) // 2))) or ""
    assert reason.startswith("held is broken or truncated (broken PNG file")


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_unreadable_exif_data_does_not_change_the_image(tmp_path: Path, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    Image.fromarray(random_pixels("a")).save(tmp_path / "a", kind, exif=b"Exif\0\0garbage", **options)
    assert (decoded_pixels(tmp_path / "a") == random_pixels("a")).all()


def test_a_too_elongated_image_is_refused(tmp_path: Path) -> None:
    """A processor that resizes the shorter side to 336 pixels would make 20 million columns of the longer one."""
    Image.new("RGB", (60_000, 1)).save(tmp_path / "a.png")
    Image.new("RGB", (3, 600)).save(tmp_path / "b.png")
    assert find_fault(tmp_path / "a.png") == "a.png has 60000 x 1 pixels, too elongated for a photograph"
    assert find_fault(tmp_path / "b.png") is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_global_settings_of_pillow_do_not_change_the_result(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    complete = encode_image("a", kind)
    (tmp_path / "half.jpg").write_bytes(complete[: len(complete) // 2])
    (tmp_path / "whole.jpg").write_bytes(complete)
    assert (find_fault(tmp_path / "half.jpg") or "").startswith("half.jpg is broken or truncated")
    assert find_fault(tmp_path / "whole.jpg") is None
    assert (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS) == (True, 10)


def test_cmyk_is_converted_to_the_original_colours(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (200, 40, 90)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(decoded_pixels(tmp_path / "a.jpg") - (200, 40, 90)).max() <= 6


def test_a_palette_image_is_decoded_to_its_colours(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (12, 200, 77)).quantize(4).save(tmp_path / "a.png")
    assert (decoded_pixels(tmp_path / "a.png") == (12, 200, 77)).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 8, 4))
    image.convert(mode).save(tmp_path / "a.png")
    picture = decoded_pixels(tmp_path / "a.png")
    assert (picture[:4] == 255).all()
    assert (picture[4:] == 0).all()


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_the_exif_orientation_is_applied(tmp_path: Path, orientation: int, turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = random_pixels("a")[:16]
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    upright = np.rot90(stored, turns)
    assert decoded_pixels(tmp_path / "a.png").shape == upright.shape
    assert (decoded_pixels(tmp_path / "a.png") == upright).all()


def test_the_first_frame_of_an_animation_is_used(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 0, 250)))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert (decoded_pixels(tmp_path / "a.gif") == (250, 0, 0)).all()


def test_a_warning_of_pillow_is_not_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 24 - 1)
    (tmp_path / "a.png").write_bytes(encode_image("a"))
    with pytest.warns(Image.DecompressionBombWarning), Image.open(tmp_path / "a.png"):
        pass
    assert (decoded_pixels(tmp_path / "a.png") == random_pixels("a")).all()


@pytest.mark.parametrize("action", ["always", "error"])
def test_warning_filters_change_only_if_warnings_are_errors(monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    """Images are decoded in a thread while a model runs whose warnings are counted."""
    filters: list[str] = []

    def warn(image: Image.Image, *, in_place: bool) -> None:
        filters.append(warnings.filters[0][0])
        warnings.warn("Corrupt EXIF data", UserWarning, stacklevel=1)

    monkeypatch.setattr(ImageOps, "exif_transpose", warn)
    with warnings.catch_warnings(record=True, action=action) as caught:
        assert find_fault(MemoryFile(encode_image("a"))) is None
    assert filters == (["error", "ignore"] if action == "error" else ["always"])
    assert len(caught) == (action == "always")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "a.jpg is empty"),
        (b"<html>404</html>", "a.jpg is not an image"),
        (encode_image("a", "JPEG")[:-300], "a.jpg is broken or truncated"),
        (encode_image("a", "PNG")[:-300], "a.jpg is broken or truncated"),
        (encode_image("a", "WEBP")[:-300], "a.jpg is broken or truncated"),
    ],
    ids=["empty", "text", "jpeg", "png", "webp"],
)
def test_a_broken_file_is_named_with_its_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    assert (find_fault(path) or "").startswith(reason)
    with pytest.raises(DataError, match=f"{path}: {reason}.*intact copy"):
        decode_image(path)


def test_missing_files_folders_and_invalid_names_have_reasons(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    assert find_fault(tmp_path / "none.jpg") == "none.jpg is missing"
    assert (find_fault(tmp_path / "folder.jpg") or "").startswith("folder.jpg cannot be read")
    assert (find_fault(tmp_path / "a\0.jpg") or "").endswith("cannot be read (embedded null byte)")


WHOLE = {kind: encode_image("a", kind) for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP")}


@given(st.sampled_from(sorted(WHOLE)), st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=8))
def test_damaged_bytes_give_an_image_or_a_reason(kind: str, damage: list[tuple[int, int]]) -> None:
    content = bytearray(WHOLE[kind])
    for position, value in damage:
        content[position % len(content)] = value
    with warnings.catch_warnings(action="error"):
        reason = find_fault(MemoryFile(bytes(content)))
        if reason is None:
            assert decode_image(MemoryFile(bytes(content))).mode == "RGB"
        else:
            assert reason.startswith("held is ")


@needs_real_data
def test_real_photographs_look_the_same_in_every_mode(tmp_path: Path) -> None:
    path = min((find_real_data("coco") / "train2017").glob("*.jpg"))
    plain = decoded_pixels(path)
    assert plain.std() > 20
    for mode, bound in (("CMYK", 1), ("RGBA", 0), ("L", None)):
        file = io.BytesIO()
        decode_image(path).convert(mode).save(file, "TIFF")
        again = np.asarray(decode_image(MemoryFile(file.getvalue()))).astype(int)
        expected = (
            plain if bound is not None else np.asarray(decode_image(path).convert("L").convert("RGB")).astype(int)
        )
        assert np.abs(again - expected).max() <= (bound or 0)


@needs_real_data
def test_a_truncated_real_photograph_has_a_fault() -> None:
    content = min((find_real_data("coco") / "train2017").glob("*.jpg")).read_bytes()
    for share in (0.01, 0.3, 0.7, 0.99):
        assert find_fault(MemoryFile(content[: int(share * len(content))])) is not None
