"""Prompts followed by answers, as one batch of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from harness.models.prompts.prompt import TokenGroups


@dataclass(frozen=True, slots=True, eq=False)
class AnsweredPrompts:
    """Prompts with an answer each, as one batch; masks are bool (batch, tokens) and include the answers.

    image, text, instruction, real: as in `TokenGroups`, False at the answers except `real`. targets: the answers'
    tokens, (batch, longest), zero after the end of an answer; is_token: False there. seeds: one per row, for choices of
    tokens.
    """

    image: torch.Tensor
    text: torch.Tensor
    instruction: torch.Tensor
    real: torch.Tensor
    targets: torch.Tensor
    is_token: torch.Tensor
    seeds: Sequence[int]

    @property
    def tokens(self) -> int:
        """The number of tokens of a row, padding included."""
        return int(self.real.shape[1])

    @property
    def prompt_tokens(self) -> int:
        """The number of tokens before the answers."""
        return self.tokens - int(self.targets.shape[1])

    @classmethod
    def of(
        cls, groups: TokenGroups, targets: torch.Tensor, is_token: torch.Tensor, seeds: Sequence[int]
    ) -> AnsweredPrompts:
        """Return the prompts of some token groups with their answers."""
        image, text, instruction = (
            nn.functional.pad(mask, (0, targets.shape[1])) for mask in (groups.image, groups.text, groups.instruction)
        )
        return cls(image, text, instruction, torch.cat([groups.real, is_token], 1), targets, is_token, seeds)
