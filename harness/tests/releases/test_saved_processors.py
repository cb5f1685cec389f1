"""Processors built without a hub, saved, loaded again and compared: every planted change is noticed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.releases.processors.built_processor import ProcessorError
from harness.releases.processors.processor_comparison import ProcessorComparison, ProcessorOutcome, compare_processors
from harness.releases.processors.processor_pictures import CASES, SIZES, draw_picture
from harness.releases.processors.processor_reader import make_processor, read_processor
from harness.releases.processors.processor_readings import SAMPLES, ProcessorReadings
from harness.releases.sweep.type_verdicts import vision_language_types
from harness.tests.support.documented_release import expecting_upstream_failures

FAMILIES = ("llava", "paligemma", "blip-2")
# Of the 100 types of transformers 5.24 without torchvision; 88 with it.
LEAST_BUILT = 35
WITHOUT_PROCESSOR = "vision-encoder-decoder"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, ProcessorReadings]]:
    directories = {family: tmp_path_factory.mktemp(family) for family in FAMILIES}
    return {family: (directory, make_processor(family, directory)) for family, directory in directories.items()}


@pytest.fixture
def llava(saved: dict[str, tuple[Path, ProcessorReadings]], tmp_path: Path) -> tuple[Path, ProcessorReadings]:
    directory, readings = saved["llava"]
    return copytree(directory, tmp_path / "llava"), readings


def edit_fields(directory: Path, part: str, **fields: Any) -> None:
    """Change fields of a part of the saved processor, or of the processor itself."""
    file = directory / "processor_config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    (content[part] if part else content).update(fields)
    file.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_processor_is_the_same_after_its_round_trip(
    saved: dict[str, tuple[Path, ProcessorReadings]], family: str
) -> None:
    directory, readings = saved[family]
    assert list(readings.cases) == list(CASES)
    assert {case: reading.error for case, reading in readings.cases.items() if reading.error} == {}
    assert all(reading.image_tokens >= 8 for reading in readings.cases.values())
    assert readings.remark == ""
    assert compare_processors(readings, read_processor(directory)) == ProcessorComparison(
        ProcessorOutcome.SAME, (), (), None
    )


def test_readings_are_equal_after_json(llava: tuple[Path, ProcessorReadings]) -> None:
    _, readings = llava
    loaded = ProcessorReadings.from_record(json.loads(json.dumps(readings.record())))
    assert loaded.record() == readings.record()
    assert compare_processors(readings, loaded).sentence == ""
    pixels = loaded.cases["wide-short"].pixels
    assert pixels is not None
    assert pixels.shape == (1, 3, 224, 224)
    assert pixels.samples.shape == (SAMPLES,)


def test_two_pictures_have_the_tokens_of_both(llava: tuple[Path, ProcessorReadings]) -> None:
    cases = llava[1].cases
    assert cases["two-short"].image_tokens == cases["square-short"].image_tokens + cases["wide-short"].image_tokens
    assert len(cases["square-long"].token_ids) > len(cases["square-short"].token_ids) + 100


def test_another_resampling_filter_is_noticed(
    llava: tuple[Path, ProcessorReadings], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, before = llava
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image,
        "resize",
        lambda image, size, resample=None, *rest, **options: resize(image, size, Image.Resampling.BILINEAR),
    )
    if before.backend == "torchvision":
        edit_fields(directory, "image_processor", resample=Image.Resampling.BILINEAR)
    comparison = compare_processors(before, read_processor(directory))
    assert comparison.verdict is ProcessorOutcome.CHANGED
    (change,) = comparison.changes
    assert change.startswith("pixels differ in square-short, wide-short, tall-short and 3 more: by at most ")
    assert comparison.largest_pixels is not None
    assert 0.05 < comparison.largest_pixels.largest < 3


def test_one_more_image_token_is_noticed(llava: tuple[Path, ProcessorReadings]) -> None:
    directory, before = llava
    edit_fields(directory, "", num_additional_image_tokens=1)
    comparison = compare_processors(before, read_processor(directory))
    ids, count = comparison.changes
    assert ids.startswith("token ids differ in square-short")
    assert count == "number of image tokens from 255 to 256 in square-short, wide-short, tall-short and 3 more"
    assert comparison.largest_pixels is None


def test_other_normalisation_is_noticed_with_its_size(llava: tuple[Path, ProcessorReadings]) -> None:
    directory, before = llava
    edit_fields(directory, "image_processor", image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5])
    comparison = compare_processors(before, read_processor(directory))
    assert comparison.verdict is ProcessorOutcome.CHANGED
    assert comparison.largest_pixels is not None
    # White becomes 1 instead of (1 - 0.408) / 0.276.
    assert comparison.largest_pixels.largest == pytest.approx((1 - 0.40821073) / 0.27577711 - 1, abs=0.01)


def test_a_fast_image_processor_is_named_with_the_difference(
    llava: tuple[Path, ProcessorReadings], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoProcessor

    directory, readings = llava
    before = replace(readings, backend="pil", image_processor_class="LlavaImageProcessor")
    load = AutoProcessor.from_pretrained

    def load_fast(*arguments: Any, **options: Any) -> Any:
        processor = load(*arguments, **options)
        slow = type(processor.image_processor)

        class LlavaImageProcessorFast(slow):  # type: ignore[misc, valid-type]
            def __call__(self, *arguments: Any, **options: Any) -> Any:
                outputs = super().__call__(*arguments, **options)
                outputs["pixel_values"] = outputs["pixel_values"] + 0.0078
                return outputs

        processor.image_processor.__class__ = LlavaImageProcessorFast
        return processor

    monkeypatch.setattr(AutoProcessor, "from_pretrained", load_fast)
    comparison = compare_processors(before, read_processor(directory))
    assert comparison.verdict is ProcessorOutcome.CHANGED
    assert comparison.sentence == (
        "pixels differ in square-short, wide-short, tall-short and 3 more: by at most 0.0078, on average 0.0078, in "
        f"{comparison.largest_pixels.case if comparison.largest_pixels else ''}; image processor slow (Pillow) to fast "
        "(torchvision), from LlavaImageProcessor to LlavaImageProcessorFast"
    )


def test_a_renamed_class_with_equal_pixels_is_said_and_not_counted(llava: tuple[Path, ProcessorReadings]) -> None:
    _, before = llava
    after = replace(before, image_processor_class="RenamedImageProcessor", processor_class="RenamedProcessor")
    comparison = compare_processors(before, after)
    assert comparison.verdict is ProcessorOutcome.SAME
    assert [note.split(" from ")[0] for note in comparison.notes] == ["processor class", "image processor class"]
    assert comparison.sentence.endswith("to RenamedImageProcessor, with equal pixels")


def test_the_first_differing_position_and_a_failing_case_are_named(llava: tuple[Path, ProcessorReadings]) -> None:
    _, before = llava
    case = before.cases["tall-short"]
    other = replace(case, token_ids=(*case.token_ids[:260], 1, *case.token_ids[261:]), outputs=("input_ids", "new"))
    failing = replace(case, error="ValueError: no")
    after = replace(before, cases={**before.cases, "tall-short": other, "tiny-short": failing})
    comparison = compare_processors(before, after)
    length = len(case.token_ids)
    assert comparison.changes == (
        "tiny-short now fails: ValueError: no",
        f"token ids differ in tall-short, first at position 260 of tall-short ({length} and {length} ids)",
        "no longer returns attention_mask, pixel_values",
    )
    assert comparison.notes == ("also returns new",)


def test_differences_of_rounding_are_not_changes(llava: tuple[Path, ProcessorReadings]) -> None:
    _, before = llava
    case = before.cases["square-short"]
    assert case.pixels is not None
    rounded = replace(case.pixels, samples=case.pixels.samples + np.float32(1e-6), digest="other")
    after = replace(before, cases={**before.cases, "square-short": replace(case, pixels=rounded)})
    assert compare_processors(before, after).verdict is ProcessorOutcome.SAME


def test_a_type_without_processor_is_refused_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(ProcessorError, match=f"^transformers maps no processor to {WITHOUT_PROCESSOR}$"):
        make_processor(WITHOUT_PROCESSOR, tmp_path)


def test_a_processor_that_cannot_be_loaded_is_refused_with_the_upstream_sentence(
    llava: tuple[Path, ProcessorReadings],
) -> None:
    directory, _ = llava
    (directory / "tokenizer.json").unlink()
    with pytest.raises(ProcessorError, match=r"^AutoProcessor fails: \w+Error: .+"):
        read_processor(directory)


def test_a_missing_library_is_no_change(llava: tuple[Path, ProcessorReadings], monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.auto import image_processing_auto

    directory, before = llava
    # Without torchvision, releases forget the classes that need it.
    monkeypatch.setitem(image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES, "llava", {"torchvision": None})
    monkeypatch.setitem(image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES, "vipllava", (None, None))
    edit_fields(directory, "image_processor", image_processor_type="ForgottenImageProcessor")
    after = read_processor(directory)
    assert after.cases == {}
    comparison = compare_processors(before, after)
    assert comparison.verdict is ProcessorOutcome.SAME
    assert comparison.sentence == (
        "after: not read, a library is missing: transformers maps no image processor to llava with the installed "
        "libraries"
    )


def test_pictures_are_drawn_alike_every_time() -> None:
    pictures = {name: draw_picture(name) for name in SIZES}
    assert {name: picture.size for name, picture in pictures.items()} == dict(SIZES)
    assert all(draw_picture(name).tobytes() == picture.tobytes() for name, picture in pictures.items())
    assert np.asarray(pictures["wide"]).std() > 50


def built_types(directory: Path) -> Iterator[str]:
    for model_type in vision_language_types():
        try:
            before = make_processor(model_type, directory / model_type)
        except ProcessorError:
            continue
        comparison = compare_processors(before, read_processor(directory / model_type))
        assert comparison.changes == (), f"{model_type}: {comparison.sentence}"
        yield model_type


@pytest.mark.types
def test_every_type_is_built_or_refused_and_equals_itself(tmp_path: Path) -> None:
    with expecting_upstream_failures():
        assert len([*built_types(tmp_path)]) >= LEAST_BUILT
