"""Similarities from group means of unit vectors equal the mean over every pair of tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.models.prompts.prompt import TokenGroups
from harness.probe.precision import upcast
from harness.probe.similarity import GroupSums, adjusted
from harness.tests.support import literal
from harness.tests.support.tiny import random_groups


def random_states(rng: np.random.Generator, groups: TokenGroups, width: int = 12) -> torch.Tensor:
    """Return states with a common direction and norms over three decades, as in language models."""
    states = rng.normal(size=(*groups.real.shape, width)) + 0.7 * rng.normal(size=width)
    return torch.tensor(states * 10.0 ** rng.uniform(-1, 2, (*groups.real.shape, 1)))


def measured(states: torch.Tensor, groups: TokenGroups) -> torch.Tensor:
    sums = GroupSums(groups)
    return sums.similarities(sums(states))


seeds = st.integers(0, 2**32 - 1)


@given(seed=seeds, batch=st.integers(1, 4))
def test_group_means_give_the_mean_over_all_pairs(seed: int, batch: int) -> None:
    rng = np.random.default_rng(seed)
    groups = random_groups(rng, batch)
    states = random_states(rng, groups)
    expected = literal.similarities(states, groups)
    np.testing.assert_allclose(measured(states, groups).numpy(), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(measured(states.float(), groups).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_states_in_16_bits_are_reduced_in_float32() -> None:
    rng = np.random.default_rng(5)
    groups = random_groups(rng, 3)
    states = random_states(rng, groups).bfloat16()
    values = measured(states, groups)
    assert values.dtype == torch.float32
    np.testing.assert_allclose(values.numpy(), literal.similarities(states, groups), rtol=1e-5, atol=1e-6)


@given(seed=seeds)
def test_values_in_the_padding_do_not_affect_similarities(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = random_groups(rng, 3)
    states = random_states(rng, groups)
    clean = measured(states, groups)
    for poison in (torch.nan, torch.inf, 0.0):
        spoiled = torch.where(groups.real.unsqueeze(-1), states, poison)
        assert torch.equal(measured(spoiled, groups), clean)


@given(seed=seeds, share=st.sampled_from([0.3, 1.0]))
def test_a_state_of_norm_zero_has_cosine_zero_with_any_other(seed: int, share: float) -> None:
    """A fault may zero features. With a share of 1 a whole group is zero."""
    rng = np.random.default_rng(seed)
    groups = random_groups(rng, 3)
    states = random_states(rng, groups)
    zeroed = groups.image & torch.tensor(rng.random(groups.image.shape) < share)
    zeroed[0] |= groups.text[0] & torch.tensor(rng.random(groups.text[0].shape) < share)
    states[zeroed] = 0.0
    expected = literal.similarities(states, groups)
    np.testing.assert_allclose(measured(states, groups).numpy(), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(measured(states.float(), groups).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_means_count_a_state_of_norm_zero() -> None:
    groups = random_groups(np.random.default_rng(1), 1)
    states = random_states(np.random.default_rng(2), groups)
    states[groups.image] = 0.0
    row = np.flatnonzero(groups.image[0].numpy())[0]
    states[0, row, 0] = 3.0
    sums = GroupSums(groups)
    mean = sums.means(sums(states))[0, 0]
    assert mean[0] == pytest.approx(1.0 / int(groups.image.sum()))
    assert not mean[1:].any()


def test_a_non_finite_state_gives_non_finite_similarities() -> None:
    groups = random_groups(np.random.default_rng(1), 1)
    clean = random_states(np.random.default_rng(2), groups)
    for poison in (torch.nan, torch.inf):
        states = clean.clone()
        states[0, np.flatnonzero(groups.image[0].numpy())[0], 0] = poison
        assert not measured(states, groups)[0, :3].isfinite().any()


@given(seed=seeds)
def test_similarities_depend_neither_on_order_within_a_group_nor_on_scale(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = random_groups(rng, 1)
    states = random_states(rng, groups)
    changed = states.clone()
    template = groups.text & ~groups.instruction
    for mask in (groups.image, groups.instruction, template):
        rows = np.flatnonzero(mask[0].numpy())
        changed[0, rows] = states[0, rng.permutation(rows)]
    changed *= torch.tensor(10.0 ** rng.uniform(-3, 3, (*groups.real.shape, 1)))
    torch.testing.assert_close(measured(changed, groups), measured(states, groups), rtol=1e-9, atol=1e-12)


@given(seed=seeds, batch=st.integers(2, 5))
def test_a_batch_gives_the_same_similarities_as_its_samples_alone(seed: int, batch: int) -> None:
    rng = np.random.default_rng(seed)
    groups = random_groups(rng, batch)
    states = random_states(rng, groups)
    together = measured(states, groups)
    for row in range(batch):
        real = groups.real[row]
        names = TokenGroups.__slots__
        alone = TokenGroups(*(getattr(groups, name)[row : row + 1, real] for name in names))
        single = measured(states[row : row + 1, real], alone)[0]
        torch.testing.assert_close(together[row], single, rtol=1e-9, atol=1e-12)


@given(seed=seeds, n=st.integers(2, 5))
def test_adjusted_subtracts_the_mean_over_pairs_of_different_samples(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    groups = random_groups(rng, n)
    points = [random_states(rng, groups) for _ in range(2)]
    sums = GroupSums(groups)
    means = torch.stack([sums.means(sums(states)) for states in points], dim=1)
    values = adjusted(means[:, :, 0], means[:, :, 1]).numpy()
    image, text = groups.image.numpy(), groups.text.numpy()
    for point, states in enumerate(map(literal.to_float64, points)):
        for i in range(n):
            paired = literal.mean_cosine_across(states[i], image[i], text[i])
            others = [literal.mean_cosine_across(states[i], image[i], text[j], states[j]) for j in range(n) if j != i]
            assert values[i, point] == pytest.approx(paired - np.mean(others), rel=1e-9, abs=1e-12)


def test_adjusted_needs_two_samples() -> None:
    with pytest.raises(ValueError, match="at least two"):
        adjusted(torch.ones(1, 3, 4), torch.ones(1, 3, 4))


def test_upcast_keeps_float64_and_converts_float16_to_float32() -> None:
    assert upcast(torch.ones(1, dtype=torch.float64)).dtype == torch.float64
    assert upcast(torch.ones(1, dtype=torch.float16)).dtype == torch.float32
