"""Changes that a regression suite must accept: one function each, and a table of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.models.prompts.prompt import Batch, TokenGroups
from harness.models.vlm import Vlm
from harness.tests.support.faults import Change, patch_draws, patch_encoding

EXTRA_PADDING = 5


def change_nothing(_: Vlm, __: pytest.MonkeyPatch) -> None:
    """Change nothing."""


def use_eager_attention(vlm: Vlm, _: pytest.MonkeyPatch) -> None:
    """Switch to eager attention."""
    vlm.model.set_attn_implementation({vlm.anatomy.attention_key: "eager"})


def set_threads(number: int) -> Change:
    """Compute with this number of threads. The caller restores the previous number."""

    def change(_: Vlm, __: pytest.MonkeyPatch) -> None:
        torch.set_num_threads(number)

    return change


def shuffle_samples(_: Vlm, patch: pytest.MonkeyPatch) -> None:
    """Draw the same samples in another order."""
    patch_draws(patch, lambda samples: [samples[row] for row in np.random.default_rng(0).permutation(len(samples))])


def pad_left(_: Vlm, patch: pytest.MonkeyPatch) -> None:
    """Put columns of padding before every batch."""

    def padded(processor: Any, batch: Batch) -> Batch:
        fill = {"input_ids": processor.tokenizer.pad_token_id, "attention_mask": 0}
        inputs = {
            name: nn.functional.pad(tensor, (EXTRA_PADDING, 0), value=fill[name]) if name in fill else tensor
            for name, tensor in batch.inputs.items()
        }
        masks = (getattr(batch.groups, group.name) for group in fields(TokenGroups))
        groups = TokenGroups(*(nn.functional.pad(mask, (EXTRA_PADDING, 0), value=False) for mask in masks))
        return replace(batch, inputs=inputs, groups=groups)

    patch_encoding(patch, padded)


@dataclass(frozen=True, slots=True)
class Harmless:
    """A change that alters no result. `options` are passed to `measure`."""

    change: Change = change_nothing
    options: Mapping[str, Any] = field(default_factory=dict)


HARMLESS: Mapping[str, Harmless] = {
    "batch size 1": Harmless(options={"batch_size": 1}),
    "batch size 4": Harmless(options={"batch_size": 4}),
    "batch size 16": Harmless(options={"batch_size": 16}),
    "left padding": Harmless(pad_left),
    "eager attention": Harmless(use_eager_attention),
    "1 thread": Harmless(set_threads(1)),
    "2 threads": Harmless(set_threads(2)),
    # The adjusted curve relates samples to each other, so it needs all samples of the baseline.
    "samples in another order": Harmless(shuffle_samples, {"samples": None}),
}
