"""The readings of one observed forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.probe.lens_task import learn_block

FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Readings:
    """The readings of one forward pass, one row per sample; P = L + 1 residual points.

    similarity: (batch, P, 5), columns of `GroupSums.similarities`. post_norm: (batch, 5), after the final norm. means:
    mean unit vectors of image and text tokens, (batch, P, 2, d). norm_ratio: mean norm of image states over that of
    text states, (batch, P). step_cosine: mean cosine of a token's states before and after a layer, (batch, L, 2), for
    image and text tokens. last_units: the last token's states divided by their norms, (batch, P, d).

    norm_shares and weight_shares: shares of the last token's attention, (batch, L, 4), columns of `ShareReader`.
    sink_share: the image's share of the weights minus its share of the norms, (batch, L). instruction_share: the
    image's share of the attention weights of the instruction's tokens, (batch, L). All four are zeros in layers without
    softmax attention; the two with norms also where the value vectors cannot be read.

    hits: words found by the lens, int (batch, P, 2, 2), for own words and another sample's, k = 1 and 5.
    exit_agreement: bool (batch, P). Arrays that were not requested are None. The last three are for figures and exist
    only for a dense task: norm_rows (batch, L, tokens), absent if it has `points`; the entries decoded at the image
    tokens (batch, P, image tokens, 5); those decoded at the last token (batch, P, 5).
    """

    similarity: FloatArray
    post_norm: FloatArray
    means: FloatArray
    norm_ratio: FloatArray
    step_cosine: FloatArray
    last_units: FloatArray
    norm_shares: FloatArray | None = None
    weight_shares: FloatArray | None = None
    sink_share: FloatArray | None = None
    instruction_share: FloatArray | None = None
    hits: NDArray[np.int64] | None = None
    exit_agreement: NDArray[np.bool_] | None = None
    norm_rows: FloatArray | None = None
    decoded: NDArray[np.int64] | None = None
    decoded_last: NDArray[np.int64] | None = None

    def learn_block(self, vocabulary_size: int) -> tuple[int, ...]:
        """Return the block for a `LensTask`, learned from the readings of a dense lens."""
        assert self.decoded is not None
        assert self.decoded_last is not None
        return learn_block(torch.from_numpy(self.decoded), vocabulary_size, last=torch.from_numpy(self.decoded_last))
