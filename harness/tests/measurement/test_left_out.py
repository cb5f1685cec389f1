"""A sample that cannot be measured is excluded with its reason; the others are unaffected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.data.datasets import DATASETS
from harness.data.sample import Dataset, Sample, left_out_lines
from harness.measurement.plan import MeasureError
from harness.models.prompts.chat import PromptError
from harness.models.vlm import Vlm
from harness.profile.profile import Profile
from harness.tests.support.picky import REFUSAL, make_picky, with_narrow_image
from harness.tests.support.tiny import tiny_profile, tiny_samples, tiny_vlm

pytestmark = pytest.mark.usefixtures("tiny_data")

N = 12
REASON = f"LlavaProcessor rejects its image of 1200 x 5 pixels ({REFUSAL})"
NO_WORD = "its captions have no English content word"


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the dataset `tiny` of `tiny_samples`, some of them changed by their numbers."""

    def change(rows: Sequence[int], by: Callable[[Sample], Sample], paired: bool = False) -> None:
        samples = [by(sample) if row in rows else sample for row, sample in enumerate(tiny_samples(N))]
        if paired:
            samples = [replace(sample, cluster=f"item-{row // 2}") for row, sample in enumerate(samples)]
        draw = Dataset("tiny", "tiny", lambda n, *_: samples[:n], paired=paired)
        monkeypatch.setitem(DATASETS, "tiny", draw)

    return change


@pytest.fixture
def picky() -> Vlm:
    """A tiny model whose processor refuses narrow images."""
    return make_picky(tiny_vlm())


def captioned(*captions: str) -> Callable[[Sample], Sample]:
    return lambda sample: replace(sample, captions=captions)


def check_others(profile: Profile, complete: Profile) -> None:
    """Assert that the measured samples have the same numbers as in the run with all samples."""
    rest = complete.select(profile.sample_ids)
    for name in ("inter", "image", "text", "norm_image", "hits", "words", "exit_agreement"):
        np.testing.assert_allclose(profile.arrays[name], rest.arrays[name], atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [[7], [0], [1], [0, 1], [0, 2, 3, 11]], ids=str)
def test_a_refused_image_is_excluded_at_any_position(
    picky: Vlm, changed: Callable[..., None], tmp_path: Path, rows: list[int]
) -> None:
    complete = tiny_profile(picky, samples=N, controls=("blank",))
    changed(rows, with_narrow_image)
    lines: list[str] = []
    for _ in ("measured", "cached"):
        lines.clear()
        profile = tiny_profile(picky, samples=N, batch_size=4, controls=("blank",), cache=tmp_path, say=lines.append)
        assert profile.sample_ids == tuple(f"tiny-{row}" for row in range(N) if row not in rows)
        assert profile.left_out == {f"tiny-{row}": REASON for row in rows}
        assert f"tiny: left out {len(rows)} ({REASON}): {', '.join(f'tiny-{row}' for row in rows)}" in lines
        assert [drawing.sample_id for drawing in profile.drawings] == list(profile.sample_ids[:2])
        assert len(profile.controls["blank"]["inter"]) == profile.n
        check_others(profile, complete)


def test_a_refused_image_excludes_both_sides_of_an_item(picky: Vlm, changed: Callable[..., None]) -> None:
    changed([1, 6], with_narrow_image, paired=True)
    profile = tiny_profile(picky, samples=N, batch_size=4)
    assert set(profile.left_out) == {"tiny-0", "tiny-1", "tiny-6", "tiny-7"}
    assert profile.left_out["tiny-7"] == f"its item's other side is left out: {REASON}"
    assert profile.n == N - 4 == np.isfinite(profile["likelihood_own"]).sum()


def test_too_few_accepted_images_are_one_error(picky: Vlm, changed: Callable[..., None]) -> None:
    changed(range(1, N), with_narrow_image)
    with pytest.raises(MeasureError) as raised:
        tiny_profile(picky, samples=N)
    message = str(raised.value)
    assert message.startswith(f"1 samples of tiny; {N - 1} are left out, such as tiny-1 ({REASON}): the anisotropy")


def test_a_processor_that_refuses_every_image_raises_a_prompt_error(fresh_vlm: Vlm) -> None:
    fresh_vlm.processor.chat_template = fresh_vlm.processor.chat_template.replace("<image>", "")
    with pytest.raises(PromptError, match="its chat template must write"):
        tiny_profile(fresh_vlm)


def test_samples_without_a_content_word_are_excluded(vlm: Vlm, changed: Callable[..., None]) -> None:
    complete = tiny_profile(vlm, samples=N)
    changed([1, 4], captioned("\N{GRINNING FACE}", "123", "テーブルの上にピザがある LEGO"))
    lines: list[str] = []
    profile = tiny_profile(vlm, samples=N, say=lines.append)
    assert profile.left_out == dict.fromkeys(("tiny-1", "tiny-4"), NO_WORD)
    assert f"tiny: left out 2 ({NO_WORD}): tiny-1, tiny-4" in lines
    assert profile.n == N - 2
    check_others(profile, complete)
    # The captions alternate; the next remaining sample provides the chance words.
    assert profile["chance_words"].tolist() == [*profile["words"].tolist()[1:], profile["words"][0]]


def test_a_word_outside_the_vocabulary_is_another_reason(vlm: Vlm, changed: Callable[..., None]) -> None:
    changed([3], captioned("xqz"))
    profile = tiny_profile(vlm, samples=N)
    assert profile.left_out == {"tiny-3": "no content word of its captions is in the model's vocabulary"}


def test_one_caption_with_a_word_is_enough(vlm: Vlm, changed: Callable[..., None]) -> None:
    changed([3], captioned("\N{GRINNING FACE}", "a red circle"))
    profile = tiny_profile(vlm, samples=N)
    assert (profile.n, profile.left_out) == (N, {})


def test_after_the_eighth_reason_further_reasons_are_only_counted() -> None:
    lines = left_out_lines("coco-captions", {f"coco-{k}": f"{k}.jpg is missing" for k in range(100)})
    assert lines[0] == "coco-captions: left out 1 (0.jpg is missing): coco-0"
    assert lines[-1].startswith("coco-captions: left out 92 more for 92 other reasons: ")
    assert len(lines) == 9
