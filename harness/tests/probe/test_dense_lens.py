"""The last tokens that the dense lens decodes, compared with the logits of each residual point."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch import nn

from harness.probe import dense_lens
from harness.probe.dense_lens import DenseLens
from harness.probe.lens_task import KS, LensTask, References

WIDTH, ENTRIES, POINTS, BATCH = 6, 40, 3, 2


class TwiceLinear(nn.Module):
    """An unembedding that is not plain."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.head = head

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return 2 * self.head(states)


@pytest.mark.parametrize("plain", [True, False])
def test_points_share_a_pass_over_a_plain_unembedding(plain: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(WIDTH, ENTRIES)
    head = linear if plain else TwiceLinear(linear)
    image = torch.tensor([[True, True, False, False]] * BATCH)
    lens = DenseLens(
        LensTask(References((((1,),),) * BATCH, ((),) * BATCH), (), dense=True), image, head, nn.Identity()
    )
    points = torch.randn(POINTS, BATCH, 4, WIDTH)
    with torch.no_grad():
        for states in points:
            lens.read(states)
        logits = head(points[:, :, -1]).transpose(0, 1)
        with mock.patch("harness.probe.dense_lens.rank", wraps=dense_lens.rank) as decode:
            agreement = lens.exit_agreement(logits[:, -1])
    assert decode.call_count == (1 if plain else POINTS)
    assert torch.equal(lens.decoded_last(), logits.topk(max(KS), dim=-1).indices)
    assert torch.equal(agreement, logits.argmax(-1) == logits[:, -1:].argmax(-1))
    assert agreement[:, -1].all()
