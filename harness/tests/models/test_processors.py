"""Token groups and hashes of the processors of many families, each with a chat template of its own style."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from harness.data.sample import Sample
from harness.models.prompts.prompt import UnevenPromptsError, encode
from harness.tests.support.processors import FAMILIES, make_processor

# The second instruction repeats words of the templates and differs in length from the first.
INSTRUCTIONS = ("what is in the picture?", "ASSISTANT: describe the image please USER:")
SIZES = ((160, 100), (120, 200))


def samples() -> list[Sample]:
    def make_image(index: int) -> Image.Image:
        generator = torch.Generator().manual_seed(index)
        coarse = torch.randint(0, 256, (5, 7, 3), generator=generator, dtype=torch.uint8)
        return Image.fromarray(coarse.numpy()).resize(SIZES[index])

    return [
        Sample(f"n{index}", lambda index=index: make_image(index), text, ("a red circle",), f"n{index}")
        for index, text in enumerate(INSTRUCTIONS)
    ]


# numpy deprecates the way in which some processors convert an image to an array.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_groups_and_hashes(family: str) -> None:
    processor = make_processor(FAMILIES[family])
    tokenizer = processor.tokenizer
    image_token_id = tokenizer.convert_tokens_to_ids(FAMILIES[family].feature)

    def positions(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return inputs["input_ids"] == image_token_id

    drawn = samples()
    one_length = FAMILIES[family].one_length
    if one_length:
        with pytest.raises(UnevenPromptsError, match="pads prompts of different length between their tokens"):
            encode(processor, drawn, positions)
        drawn = [Sample(s.id, s.load_image, INSTRUCTIONS[1], s.captions, s.cluster) for s in drawn]
    together = encode(processor, drawn, positions)
    groups, ids = together.groups, together.inputs["input_ids"]
    assert torch.equal(groups.image.int() + groups.instruction.int() + groups.other.int(), groups.real.int())
    assert torch.equal(groups.image, (ids == image_token_id) & groups.real)
    assert not bool((groups.text & groups.image).any())
    assert bool((groups.instruction <= groups.text).all())
    if not one_length:
        assert not bool(groups.real[0, 0] & groups.real[1, 0])
    bos = (ids == tokenizer.bos_token_id) & groups.real
    between = torch.zeros_like(bos)
    for row in range(len(drawn)):
        at = groups.image[row].nonzero().flatten()
        first, last = int(at[0]), int(at[-1])
        marks = set(ids[row, first:last].tolist()) - {image_token_id}
        while last + 1 < ids.shape[1] and int(ids[row, last + 1]) in marks:
            last += 1
        between[row, first : last + 1] = ~groups.image[row, first : last + 1]
    assert torch.equal(bos, groups.real & ~groups.text & ~groups.image & ~between)
    assert not bool((groups.text & between).any())
    assert int(bos.sum(1).max()) <= 1
    for row, sample in enumerate(drawn):
        at = groups.instruction[row].nonzero().flatten()
        assert torch.equal(at, torch.arange(int(at[0]), int(at[-1]) + 1))
        assert tokenizer.decode(ids[row, at]).strip() == sample.instruction
        alone = encode(processor, [sample], positions)
        width = alone.groups.real.shape[1]
        assert bool(alone.groups.real.all())
        assert torch.equal(alone.inputs["input_ids"][0], ids[row, -width:])
        for name in groups.__slots__:
            assert torch.equal(getattr(alone.groups, name)[0], getattr(groups, name)[row, -width:])
        assert alone.hashes == (together.hashes[row],)
    assert together.hashes[0].pixels != together.hashes[1].pixels


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("family", "end"), [("cohere2_vision", "<line>"), ("idefics3", "<fake_token_around_image>")])
def test_the_end_of_the_last_row_is_no_text_like_the_other_row_ends(family: str, end: str) -> None:
    processor = make_processor(FAMILIES[family])
    tokenizer = processor.tokenizer
    image_token_id = tokenizer.convert_tokens_to_ids(FAMILIES[family].feature)
    batch = encode(processor, samples(), lambda inputs: inputs["input_ids"] == image_token_id)
    for row, ids in enumerate(batch.inputs["input_ids"]):
        end_position = int(batch.groups.image[row].nonzero().max()) + 1
        assert tokenizer.convert_ids_to_tokens(int(ids[end_position])) == end
        assert bool(batch.groups.other[row, end_position])
        assert not bool(batch.groups.text[row, end_position])
