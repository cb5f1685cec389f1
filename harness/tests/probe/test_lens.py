"""The pruned lens compared with the dense lens, and the dense lens with a sort of all logits."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from harness.data.sample import Sample
from harness.models.offloaded import OffloadError
from harness.probe.lens import Lens, open_lens
from harness.probe.lens_task import KS, LensTask, References, learn_block
from harness.probe.vocabulary import Vocabulary
from harness.tests.support import literal
from harness.tests.support.tiny import dense_lens_task, observe, tiny_tokenizer, tiny_vlm

WIDTH, ENTRIES, POINTS = 6, 40, 3


@dataclass(frozen=True)
class Case:
    """Hidden states before the final norm, an unembedding, words and a block."""

    states: torch.Tensor
    image: torch.Tensor
    head: nn.Linear
    norm: nn.Module
    references: References
    block: tuple[int, ...]

    def read(self, block: tuple[int, ...], *, dense: bool) -> Any:
        lens = open_lens(LensTask(self.references, block, dense=dense), self.image, self.head, self.norm)
        with torch.no_grad():
            for point in self.states:
                lens.read(point)
        return lens


def make_case(seed: int, *, exact: bool, bias: bool, duplicates: bool, block: str) -> Case:
    """Return a random case; `exact` draws small integers, so that float32 logits are exact and ties frequent."""
    rng = np.random.default_rng(seed)
    batch, tokens = int(rng.integers(1, 4)), int(rng.integers(4, 9))

    def draw(*shape: int) -> torch.Tensor:
        numbers = rng.integers(-3, 4, shape) if exact else rng.normal(size=shape)
        return torch.tensor(numbers, dtype=torch.float32)

    weight = draw(ENTRIES, WIDTH)
    if duplicates:
        weight[rng.integers(0, ENTRIES, 12)] = weight[rng.integers(0, ENTRIES, 12)]
    head = nn.Linear(WIDTH, ENTRIES, bias=bias)
    with torch.no_grad():
        head.weight.copy_(weight)
        if bias:
            head.bias.copy_(draw(ENTRIES))
    image = torch.zeros(batch, tokens, dtype=torch.bool)
    for row in range(batch):
        # The number of image tokens differs between samples. The last token is never an image token.
        image[row, rng.choice(tokens - 1, rng.integers(1, tokens), replace=False)] = True

    def words() -> tuple[tuple[int, ...], ...]:
        sizes = rng.integers(0, 4, rng.integers(1, 4))
        return tuple(tuple(sorted(rng.choice(ENTRIES, size, replace=False).tolist())) for size in sizes)

    references = References(tuple(words() for _ in range(batch)), tuple(words() for _ in range(batch)))
    requested = sorted(
        {entry for sample in (*references.words, *references.chance_words) for word in sample for entry in word}
    )
    blocks = {
        "none": (),
        "one": (int(rng.integers(ENTRIES)),),
        "lowest": tuple(range(10)),
        "all": tuple(range(ENTRIES)),
        "references": (*requested, *range(8)),
        "random": tuple(rng.choice(ENTRIES, rng.integers(0, ENTRIES), replace=False).tolist()),
    }
    norm = nn.Identity() if exact else nn.RMSNorm(WIDTH)
    return Case(draw(POINTS, batch, tokens, WIDTH), image, head, norm, references, blocks[block])


def literal_hits(case: Case) -> Any:
    """Return words found per sample, point, (own, chance) and k, from a float64 sort of all logits."""
    weight = literal.to_float64(case.head.weight)
    bias = None if case.head.bias is None else literal.to_float64(case.head.bias)
    with torch.no_grad():
        states = literal.to_float64(case.norm(case.states))
    hits = np.zeros((case.states.shape[1], POINTS, 2, len(KS)), dtype=int)
    for row, image in enumerate(case.image.numpy()):
        for point in range(POINTS):
            logits = [literal.logits(state, weight, bias) for state in states[point, row][image]]
            for side, lists in enumerate((case.references.words, case.references.chance_words)):
                for word in lists[row]:
                    for column, k in enumerate(KS):
                        hits[row, point, side, column] += literal.is_word_in_top_k(logits, word, k)
    return hits


cases = st.builds(
    make_case,
    st.integers(0, 2**32 - 1),
    exact=st.booleans(),
    bias=st.booleans(),
    duplicates=st.booleans(),
    block=st.sampled_from(["none", "one", "lowest", "all", "references", "random"]),
)


@settings(max_examples=60)
@given(
    case=cases,
    sieve=st.sampled_from([1, 7, ENTRIES]),
    pending=st.sampled_from([0, 2**20]),
    chunk=st.sampled_from([3, 256]),
)
def test_dense_and_pruned_hits_equal_a_sort_of_all_logits(case: Case, sieve: int, pending: int, chunk: int) -> None:
    """The hits depend neither on block and sieve nor on the number of points and tokens processed together."""
    dense = case.read((), dense=True).hits().numpy()
    np.testing.assert_array_equal(dense, literal_hits(case))
    with (
        mock.patch("harness.probe.logits._ENTRIES", sieve),
        mock.patch("harness.probe.lens._PENDING_LEAST", pending),
        mock.patch("harness.probe.lens._CHUNK", chunk),
    ):
        np.testing.assert_array_equal(case.read(case.block, dense=False).hits().numpy(), dense)


@pytest.mark.parametrize("block", ["none", "lowest", "references", "random"])
def test_pruned_hits_equal_dense_hits_with_a_wide_vocabulary(block: str) -> None:
    """Enough entries that a matmul is split into panels, including copies of the reference rows."""
    rng = np.random.default_rng(17)
    entries, width, batch, tokens = 3001, 64, 4, 41
    head = nn.Linear(width, entries, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor(rng.normal(size=(entries, width))))
        head.weight[1500:1600] = head.weight[:100]
    image = torch.zeros(batch, tokens, dtype=torch.bool)
    image[:, :-1] = True
    words = tuple(tuple((int(entry),) for entry in rng.choice(200, 12)) for _ in range(batch))
    targets = tuple({entry for sample in words for word in sample for entry in word})
    blocks = {"none": (), "lowest": tuple(range(512)), "references": targets, "random": tuple(rng.choice(entries, 512))}
    states = torch.tensor(rng.normal(size=(6, batch, tokens, width)), dtype=torch.float32)
    states[:, :, :8] += 2.0 * head.weight[torch.tensor(rng.choice(200, 8))].detach()
    case = Case(states, image, head, nn.RMSNorm(width), References(words, words[::-1]), blocks[block])
    dense = case.read((), dense=True).hits()
    assert 0 < int(dense[..., 0].sum()) < int(dense[..., 1].sum())
    assert torch.equal(case.read(case.block, dense=False).hits(), dense)


def test_a_good_block_leaves_fewer_tokens_open_with_the_same_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The block affects speed only."""
    monkeypatch.setattr(Lens, "_sieve", lambda *_: None)
    case = make_case(3, exact=False, bias=False, duplicates=False, block="none")
    open_without, open_with_all = (case.read(block, dense=False) for block in ((), tuple(range(ENTRIES))))
    assert torch.equal(open_with_all.hits(), open_without.hits())
    assert open_with_all.opened < open_without.opened


def test_a_word_without_entries_is_never_found() -> None:
    case = make_case(1, exact=False, bias=False, duplicates=False, block="all")
    batch = case.image.shape[0]
    for words in (((),), ()):
        nothing = References((words,) * batch, (words,) * batch)
        for dense in (True, False):
            hits = dataclasses.replace(case, references=nothing).read(case.block, dense=dense).hits()
            assert hits.shape == (batch, POINTS, 2, len(KS))
            assert int(hits.sum()) == 0


@given(seed=st.integers(0, 2**32 - 1), bias=st.booleans(), exact=st.booleans())
def test_exit_agreement_equals_argmax(seed: int, bias: bool, exact: bool) -> None:
    case = make_case(seed, exact=exact, bias=bias, duplicates=False, block="random")
    lens = case.read(case.block, dense=False)
    with torch.no_grad():
        normed = case.norm(case.states[:, :, -1])
        model_logits = case.head(normed[-1])
    agreement = lens.exit_agreement(model_logits).numpy()
    weight, bias_row = literal.to_float64(case.head.weight), literal.to_float64(case.head.bias) if bias else None
    for row in range(case.image.shape[0]):
        best = int(model_logits[row].argmax())
        for point in range(POINTS):
            logits = literal.logits(literal.to_float64(normed[point, row]), weight, bias_row)
            # If entries tie for the largest logit, all of them count as best.
            assert agreement[row, point] == (logits[best] == logits.max())
    assert agreement[:, -1].all()


@given(case=cases)
def test_decoded_entries_are_the_largest_logits(case: Case) -> None:
    lens = case.read((), dense=True)
    lens.exit_agreement(case.head(case.norm(case.states[-1, :, -1])).detach())
    weight = literal.to_float64(case.head.weight)
    bias = None if case.head.bias is None else literal.to_float64(case.head.bias)
    with torch.no_grad():
        states = literal.to_float64(case.norm(case.states))
    decoded, last = lens.decoded().numpy(), lens.decoded_last().numpy()
    for row, image in enumerate(case.image.numpy()):
        positions = np.flatnonzero(image)
        for point in range(POINTS):
            assert (decoded[row, point, len(positions) :] == -1).all()
            rows = [*zip(positions, decoded[row, point], strict=False), (-1, last[row, point])]
            for position, entries in rows:
                logits = literal.logits(states[point, row, position], weight, bias)
                np.testing.assert_allclose(logits[entries], np.sort(logits)[::-1][: max(KS)], rtol=1e-5, atol=1e-5)
                assert len(set(entries.tolist())) == max(KS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
def test_the_last_residual_point_always_agrees_with_the_output(samples: list[Sample], dtype: torch.dtype) -> None:
    for seed in range(4):
        agreement = observe(tiny_vlm(seed, dtype=dtype), samples, dense_lens_task(len(samples))).exit_agreement
        assert agreement is not None
        assert agreement[:, -1].all()


def test_the_last_residual_point_agrees_if_the_best_entries_tie_in_16_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    head, norm = nn.Linear(32, 20_000, bias=False).bfloat16(), nn.RMSNorm(32).bfloat16()
    states = torch.randn(64, 3, 32, generator=generator).bfloat16()
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator))
        model_logits = head(norm(states[:, -1]))
        words = (((1,),),) * 64
        image = torch.tensor([[True, True, False]]).expand(64, -1)
        lens = Lens(LensTask(References(words, words), tuple(range(512))), image, head, norm)
        lens.read(states)
        assert int((model_logits == model_logits.amax(-1, keepdim=True)).sum()) > 64
        assert bool(lens.exit_agreement(model_logits.float()).all())


def test_learn_block_takes_the_most_frequent_entries_and_fills_up_with_the_lowest_ids() -> None:
    assert learn_block(torch.tensor([[7, 7, 3], [9, 3, 7]]), 20, size=2) == (7, 3)
    assert learn_block(torch.tensor([2, 2, 5]), 20, size=5) == (2, 5, 0, 1, 3)
    assert sorted(learn_block(torch.tensor([2]), 4, size=512)) == [0, 1, 2, 3]


def test_an_unembedding_on_the_meta_device_is_refused() -> None:
    case = make_case(1, exact=False, bias=False, duplicates=False, block="none")
    with pytest.raises(OffloadError, match="weights of Linear are on the meta device"):
        Lens(LensTask(case.references, ()), case.image, nn.Linear(WIDTH, ENTRIES, device="meta"), case.norm)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    tokenizer = tiny_tokenizer()
    return Vocabulary(tokenizer, len(tokenizer))


def spelled(entries: tuple[int, ...]) -> list[str]:
    tokenizer = tiny_tokenizer()
    return [tokenizer.decode([entry]) for entry in entries]


def test_the_entries_of_a_word_have_its_stem(vocabulary: Vocabulary) -> None:
    assert " circle" in spelled(vocabulary.entries("circle"))
    assert vocabulary.entries("circles") == vocabulary.entries("circle") == vocabulary.entries("Circle".lower())
    assert all(text.strip().lower() == "circle" for text in spelled(vocabulary.entries("circle")))
    assert vocabulary.entries("circle") == tuple(sorted(vocabulary.entries("circle")))


def test_an_unknown_word_has_the_entries_of_its_first_piece_of_three_letters(vocabulary: Vocabulary) -> None:
    tokenizer = tiny_tokenizer()
    word = "redheartly"
    pieces = [tokenizer.decode([piece]).strip() for piece in tokenizer(" " + word).input_ids]
    first = next(piece for piece in pieces if len(piece) >= 3)
    assert first != word
    assert {text.strip() for text in spelled(vocabulary.entries(word))} == {first}


def test_a_word_without_a_piece_of_three_letters_has_no_entries(vocabulary: Vocabulary) -> None:
    assert vocabulary.entries("xqzjk") == ()
    assert vocabulary.references(["circle", "xqzjk"]) == (vocabulary.entries("circle"), ())


def test_special_tokens_are_never_entries_of_a_word() -> None:
    """The text of a special token may equal a word."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "zebra"]})
    special = tokenizer.convert_tokens_to_ids("zebra")
    vocabulary = Vocabulary(tokenizer, len(tokenizer))
    assert special in tokenizer.all_special_ids
    assert special not in vocabulary.entries("zebra")
    everything = {entry for text in spelled(tuple(range(400))) for entry in vocabulary.entries(text.strip() or "x")}
    assert not everything & set(tokenizer.all_special_ids)


def test_entries_without_a_row_of_the_unembedding_are_excluded() -> None:
    tokenizer = tiny_tokenizer()
    full = Vocabulary(tokenizer, len(tokenizer)).entries("circle")
    assert Vocabulary(tokenizer, max(full)).entries("circle") == full[:-1]
