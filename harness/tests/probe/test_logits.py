"""Ranks of entries, computed block by block, compared with a sort of all logits."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from harness.probe.logits import best_entries, dense_logits, join_targets, rank

WIDTH, ENTRIES, STATES = 6, 40, 9


def draw_head(seed: int, *, bias: bool) -> nn.Linear:
    """Return an unembedding of small integers, so that float32 logits are exact and ties frequent."""
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(WIDTH, ENTRIES, bias=bias)
    for parameter in head.parameters():
        parameter.data = torch.randint(-3, 4, parameter.shape, generator=generator).float()
    return head


def draw_targets(generator: torch.Generator) -> torch.Tensor:
    """Return three words of up to two entries for each state; the last word may have no entry."""
    targets = torch.randint(0, ENTRIES, (STATES, 3, 2), generator=generator)
    targets[:, 1, 1] = -1
    targets[::2, 2] = -1
    return targets


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@given(
    seed=st.integers(0, 2**32 - 1),
    bias=st.booleans(),
    block=st.sampled_from([1, 7, ENTRIES]),
    rows=st.sampled_from([1, 4, STATES]),
    k=st.sampled_from([1, 5]),
)
def test_ranks_equal_those_of_a_sort(dtype: torch.dtype, seed: int, bias: bool, block: int, rows: int, k: int) -> None:
    head = draw_head(seed, bias=bias).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    states, targets = torch.randint(-3, 4, (STATES, WIDTH), generator=generator).float(), draw_targets(generator)
    with (
        torch.no_grad(),
        mock.patch("harness.probe.precision._ROWS", block),
        mock.patch("harness.probe.precision._CONVERTED_ROWS", block),
        mock.patch("harness.probe.logits._STATES", rows),
    ):
        ranking, logits = rank(states, head, targets, k), dense_logits(states, head)
        expected = states.double() @ head.weight.double().T + (head.bias.double() if bias else 0.0)
    assert torch.equal(logits.double(), expected)
    assert torch.equal(ranking.logits.double(), expected.sort(descending=True).values[:, :k])
    assert torch.equal(expected.gather(1, ranking.entries), ranking.logits.double())
    assert all(len(set(entries)) == k for entries in ranking.entries.tolist())
    for state, words in enumerate(targets.tolist()):
        for word, entries in enumerate(words):
            values = [float(expected[state, entry]) for entry in entries if entry >= 0]
            larger = [int((expected[state] > value).sum()) for value in values]
            assert float(ranking.targets[state, word]) == max(values, default=-torch.inf)
            assert ranking.in_top((1, k))[state, word].tolist() == [
                bool(values) and min(larger) < limit for limit in (1, k)
            ]


def test_a_nan_is_never_among_the_best() -> None:
    head = draw_head(0, bias=False)
    states = torch.ones(2, WIDTH)
    states[0] = torch.nan
    best = best_entries(dense_logits(states, head).detach())
    assert best[0].tolist() == [[-1] * best.shape[2]]
    assert rank(states, head, best, 1).in_top((1,)).flatten().tolist() == [False, True]


def test_best_entries_are_all_that_tie() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0, 2.0], [4.0, 3.0, 3.0, 2.0]])
    assert [sorted(entries) for entries in best_entries(logits)[:, 0].tolist()] == [[1, 2], [-1, 0]]


def test_the_number_of_tied_entries_is_bounded() -> None:
    assert best_entries(torch.full((2, 50_000), torch.inf)).shape == (2, 1, 1024)


def test_target_tables_of_different_sizes_are_joined() -> None:
    joined = join_targets([torch.tensor([[[1, 2]]]), torch.tensor([[[3], [4]]]), torch.empty(0, 1, 1).long()])
    assert joined.tolist() == [[[1, 2], [-1, -1]], [[3, -1], [4, -1]]]
