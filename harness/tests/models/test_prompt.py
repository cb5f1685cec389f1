"""Token groups partition the prompt, and the instruction group covers exactly the user's text."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import LlavaProcessor

from harness.data.sample import Sample
from harness.models.prompts import prompt
from harness.models.prompts.chat import Prompt, PromptError, prompt_text, write_prompt
from harness.models.prompts.hashes import InputHashes
from harness.models.prompts.prompt import Batch, _row_ends, encode
from harness.models.vlm import Vlm
from harness.tests.support.tiny import SIDE, tiny_vlm

IMAGE_FIRST = "<s>USER: <image>\n{} ASSISTANT:"
IMAGE_LAST = "<s>USER: {}\n<image> ASSISTANT:"
IMAGE_TOKENS = 16


def template(form: str) -> str:
    """Return a chat template that renders `form` with the instruction instead of {}."""
    return form.replace("{}", "{{ messages[0]['content'][1]['text'] }}")


def sample(instruction: str, shade: int = 100, name: str = "one") -> Sample:
    return Sample(name, lambda: Image.new("RGB", (SIDE, SIDE), (shade, 10, 200)), instruction, ("a red circle",), name)


def with_template(vlm: Vlm, form: str = IMAGE_FIRST) -> Any:
    processor = copy.copy(vlm.processor)
    processor.chat_template = template(form)
    return processor


def encode_instructions(vlm: Vlm, *instructions: str, form: str = IMAGE_FIRST) -> Batch:
    samples = [sample(text, name=f"n{row}") for row, text in enumerate(instructions)]
    return encode(with_template(vlm, form), samples, vlm.anatomy.image_positions)


TINY = tiny_vlm()
words = st.sampled_from(
    ["ASSISTANT:", "USER:", "USER", "the", "red", "image", "?", ",", "ASSIST", "héllo", "日本", "🙂", "the"]
)
instructions = st.one_of(
    st.lists(words, min_size=1, max_size=6).map(" ".join),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20),
)


@settings(max_examples=20)
@given(texts=st.lists(instructions, min_size=1, max_size=2), form=st.sampled_from([IMAGE_FIRST, IMAGE_LAST]))
@example(texts=["ASSISTANT:"], form=IMAGE_FIRST)
@example(texts=["USER: USER:"], form=IMAGE_FIRST)
@example(texts=["USER:", "describe the image please"], form=IMAGE_LAST)
@example(texts=["a a a a", "SISTANT: ASSIS"], form=IMAGE_LAST)
def test_groups_partition_the_real_positions(texts: list[str], form: str) -> None:
    try:
        batch = encode_instructions(TINY, *texts, form=form)
    except PromptError as refusal:
        # A short instruction may be a single token, which another test covers.
        assume("1 instruction tokens" not in str(refusal))
        raise
    groups, ids = batch.groups, batch.inputs["input_ids"]
    tokenizer = TINY.processor.tokenizer
    assert torch.equal(groups.image.int() + groups.instruction.int() + groups.other.int(), groups.real.int())
    assert torch.equal(groups.real, batch.inputs["attention_mask"].bool())
    assert not bool((groups.instruction & ~groups.text).any())
    assert not bool((groups.image & groups.text).any())
    assert groups.image.sum(1).tolist() == [IMAGE_TOKENS] * len(texts)
    expanded = form.replace("<image>", "<image>" * IMAGE_TOKENS)
    for row, text in enumerate(texts):
        positions = groups.instruction[row].nonzero().flatten()
        assert torch.equal(positions, torch.arange(int(positions[0]), int(positions[-1]) + 1))
        start, end = int(positions[0]), int(positions[-1]) + 1
        real = int(groups.real[row].int().argmax())
        before, inside, after = (
            tokenizer.decode(ids[row, slice(*span)]) for span in ((real, start), (start, end), (end, None))
        )
        first, last = expanded.split("{}")
        # A token on the border belongs to the instruction, so the rest may lack the border's characters.
        assert first.startswith(before)
        assert last.endswith(after)
        assert text in inside
        assert before + inside + after == first + text + last
        # BOS is a real token but not in the text group.
        assert int(ids[row, real]) == tokenizer.bos_token_id
        assert not bool(groups.text[row, real])
        assert bool(groups.other[row, real])
        assert int(groups.text[row].sum()) == int(groups.real[row].sum()) - IMAGE_TOKENS - 1


@pytest.mark.parametrize("form", [IMAGE_FIRST, IMAGE_LAST], ids=["image first", "image last"])
def test_an_instruction_of_template_words_is_located_correctly(vlm: Vlm, form: str) -> None:
    batch = encode_instructions(vlm, "ASSISTANT: USER:", form=form)
    image = batch.groups.image[0].nonzero().flatten()
    at = batch.groups.instruction[0].nonzero().flatten()
    assert bool((at > image.max()).all() if form == IMAGE_FIRST else (at < image.min()).all())
    outside = vlm.processor.tokenizer.decode(batch.inputs["input_ids"][0, batch.groups.other[0]])
    assert outside.split() == ["<s>USER:", "ASSISTANT:"]


def test_left_padding_only_adds_positions_on_the_left(vlm: Vlm) -> None:
    short, long = "what is it?", "describe the image please and say where the red circle is"
    alone, padded = encode_instructions(vlm, short), encode_instructions(vlm, short, long)
    shift = padded.groups.real.shape[1] - alone.groups.real.shape[1]
    assert shift > 0
    for name in alone.groups.__slots__:
        assert torch.equal(getattr(padded.groups, name)[0, shift:], getattr(alone.groups, name)[0])
        assert not bool(getattr(padded.groups, name)[0, :shift].any())


def test_right_padding_is_refused(vlm: Vlm) -> None:
    class PadsRight(LlavaProcessor):
        """A processor whose tokenizer always pads on the right."""

        def __call__(self, *, text_kwargs: dict[str, Any], **kwargs: Any) -> Any:
            return super().__call__(text_kwargs=text_kwargs | {"padding_side": "right"}, **kwargs)

    processor = copy.copy(vlm.processor)
    processor.__class__ = PadsRight
    samples = [sample("what is it?"), sample("describe the image please and more")]
    with pytest.raises(PromptError, match=r"padded on the right.*pad on the left"):
        encode(processor, samples, vlm.anatomy.image_positions)
    # A single sample has no padding, so the side does not matter.
    encode(processor, samples[:1], vlm.anatomy.image_positions)


@pytest.mark.parametrize(("instruction", "count"), [("?", 1), ("", 0)])
def test_an_instruction_too_short_for_pairs_is_refused(vlm: Vlm, instruction: str, count: int) -> None:
    with pytest.raises(PromptError, match=f"sample n1 has {count} instruction tokens, .* at least 2: use a longer"):
        encode_instructions(vlm, "describe the image", instruction)


def test_an_instruction_with_the_image_token_is_refused(vlm: Vlm) -> None:
    with pytest.raises(PromptError, match="contains the image token <image>; remove it"):
        encode_instructions(vlm, "what is <image> about?")


def test_a_processor_without_chat_template_is_refused(vlm: Vlm) -> None:
    processor = copy.copy(vlm.processor)
    processor.chat_template = None
    with pytest.raises(PromptError, match=r"no chat template.*chat_template.jinja beside .*, or set processor.c"):
        prompt_text(processor, "what is it?")


@pytest.mark.parametrize("form", ["<s>USER: <image> ASSISTANT:", "<s>{}<image>{}", "<s><image>{}."])
def test_a_template_that_changes_the_instruction_is_refused(vlm: Vlm, form: str) -> None:
    processor = with_template(vlm, form)
    if form.endswith("."):
        processor.chat_template = processor.chat_template.replace("['text']", "['text'] | upper")
    with pytest.raises(
        PromptError, match="does not contain the instruction 'what is it\\?' verbatim and once: change chat_template"
    ):
        prompt_text(processor, "what is it?")


def test_another_image_token_leaves_no_image_positions(vlm: Vlm) -> None:
    with pytest.raises(
        PromptError,
        match=r"sample one has no image token .*\(image_token_id\); the processor writes '<image>' with id 3: set it",
    ):
        encode(vlm.processor, [sample("what is it?")], lambda inputs: inputs["input_ids"] == 399)


def compute_hashes(vlm: Vlm, *samples: Sample) -> tuple[InputHashes, ...]:
    return encode(vlm.processor, samples, vlm.anatomy.image_positions).hashes


def test_hashes_distinguish_pixels_from_tokens(vlm: Vlm) -> None:
    base, pixels, tokens = (
        compute_hashes(vlm, sample(*content))[0]
        for content in (("what is it?", 100), ("what is it?", 101), ("what was it?", 100))
    )
    assert (pixels.tokens == base.tokens, pixels.pixels == base.pixels) == (True, False)
    assert (tokens.tokens == base.tokens, tokens.pixels == base.pixels) == (False, True)
    assert all(len(text) == 16 and int(text, 16) >= 0 for text in dataclasses.astuple(base))


def test_hashes_do_not_depend_on_the_batch(vlm: Vlm) -> None:
    samples = [sample("what is it?"), sample("describe the image please and more", 7), sample("where is it?", 9)]
    together = compute_hashes(vlm, *samples)
    assert together == tuple(compute_hashes(vlm, one)[0] for one in samples)
    assert compute_hashes(vlm, *samples[::-1]) == together[::-1]


def test_an_instruction_is_rendered_once_per_batch(vlm: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[str] = []

    def counted(processor: Any, instruction: str) -> Prompt:
        rendered.append(instruction)
        return write_prompt(processor, instruction)

    monkeypatch.setattr(prompt, "write_prompt", counted)
    encode_instructions(vlm, "the red image", "the image ?", "the red image")
    assert rendered == ["the red image", "the image ?"]


def test_groups_move_to_a_device(vlm: Vlm) -> None:
    groups = encode_instructions(vlm, "what is it?").groups.to(torch.device("meta"))
    assert {getattr(groups, name).device.type for name in groups.__slots__} == {"meta"}


@pytest.mark.parametrize(
    ("ids", "ends"),
    [
        ("ii|ii|Bab", "..|..|..."),  # a row end behind every row, and BOS behind the picture
        ("Biib|ab|", "........"),  # one row, and none of its marks is between
        ("Bi<ii>i>>a>", "..<..>.>>.."),  # several marks, the same one again in the text
        ("iii", "..."),
    ],
)
def test_row_ends_are_between_image_tokens_and_directly_after_the_last(ids: str, ends: str) -> None:
    tokens = torch.tensor([[ord(sign) for sign in ids]])
    marked = _row_ends(tokens == ord("i"), tokens)
    assert "".join(sign if mark else "." for sign, mark in zip(ids, marked[0].tolist(), strict=True)) == ends
