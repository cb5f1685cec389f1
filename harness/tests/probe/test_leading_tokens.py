"""The order in which the pruned lens decodes tokens that its block leaves open."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.probe.lens import Lens
from harness.probe.lens_task import KS, LensTask, References

WIDTH, ENTRIES, POINTS, TOKENS, WORD = 6, 40, 3, 8, 7


def test_tokens_stay_undecoded_if_a_leading_token_decodes_their_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """All image tokens decode the same word, so one of them settles it for each k at each residual point."""
    monkeypatch.setattr(Lens, "_sieve", lambda *_: None)
    head = nn.Linear(WIDTH, ENTRIES, bias=False)
    with torch.no_grad():
        drawn = torch.randn(ENTRIES, WIDTH, generator=torch.Generator().manual_seed(0))
        head.weight.copy_(nn.functional.normalize(drawn, dim=-1))
    image = torch.tensor([[True] * TOKENS + [False]])
    lens = Lens(LensTask(References((((WORD,),),), ((),)), ()), image, head, nn.Identity())
    with torch.no_grad():
        for _ in range(POINTS):
            lens.read(head.weight[WORD] * torch.arange(1.0, TOKENS + 2).view(1, -1, 1))
        assert lens.hits()[:, :, 0].tolist() == [[[1, 1]] * POINTS]
    assert 0 < lens.opened <= len(KS) * POINTS
