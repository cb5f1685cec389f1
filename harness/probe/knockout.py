"""Attention knockout: the loss of likelihood of a caption if later tokens cannot attend to the image in some layers.

Source: Geva et al. 2023 (attention knockout); Zhang et al., arXiv 2411.18620 (for LLaVA).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from harness.analysis.knockout_windows import knockout_windows, onward_starts
from harness.errors import is_out_of_memory
from harness.models.anatomy import Anatomy
from harness.probe.answer_pass import AnswerPass, Blocked, KnockoutError
from harness.probe.answered_prompts import AnsweredPrompts

#: The blocked attention of each path, from the queries to the keys.
PATHS: Mapping[str, str] = MappingProxyType(
    {
        "later": "from all tokens after the image to the image",
        "answer": "from the tokens that predict the caption to the image",
        "instruction": "from the instruction's tokens to the image",
        "other": "from all tokens after the image to as many other prompt tokens, chosen at random",
    }
)
#: The choices of a knockout, as declared in profiles.
KNOCKOUT_POLICY = (
    "loss of the first caption's log-likelihood in nats; blocked are all tokens from the first to the last image token"
)
# Largest difference between a repeated pass and the complete one, relative to the largest likelihood or to 1 nat: the
# likelihood of a caption that the model is sure of is near zero, but its rounding is as large as any other.
_TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-5}
_WIDE_TOLERANCE = 2e-2  # for 16-bit types


@dataclass(frozen=True, slots=True, eq=False)
class KnockoutReadings:
    """Losses of the log-likelihood of each sample's first caption, in nats, float64.

    likelihood: the log-likelihood without a knockout, (batch,). caption_tokens: the number of the caption's tokens with
    the end of text, int (batch,). `later`, `answer`, `instruction`, `other`: the losses per window of layers, (batch,
    windows), by path; None for a path that was not requested. onward: the losses of the path `later` blocked from a
    layer on, (batch, starts).
    """

    likelihood: NDArray[np.float64]
    caption_tokens: NDArray[np.int64]
    onward: NDArray[np.float64]
    later: NDArray[np.float64] | None = None
    answer: NDArray[np.float64] | None = None
    instruction: NDArray[np.float64] | None = None
    other: NDArray[np.float64] | None = None


class Knockout:
    """Measures the knockouts of a model, batch by batch.

    The first batch decides how: if the repeated part of a pass gives the same likelihoods as the complete pass, only
    that part is repeated for each window. Otherwise the whole decoder runs again. `checked` is False before it.
    `unembeds` is False if the model's logits are more than the output of its unembedding.
    """

    def __init__(self, anatomy: Anatomy, size: int, dtype: torch.dtype = torch.float32) -> None:
        """Prepare the knockouts of a model with weights of a data type, in windows of `size` layers."""
        self._name, self._depth, self._dtype = anatomy.name, anatomy.depth, dtype
        self.windows = knockout_windows(self._depth, size)
        self.starts = onward_starts(self._depth, size)
        self.checked, self.unembeds, self._resumes = False, True, True

    @torch.inference_mode()
    def __call__(self, answers: AnswerPass, paths: Sequence[str], *, all_starts: bool = True) -> KnockoutReadings:
        """Return the losses for a batch.

        Args:
            answers: its complete pass, with `starts`, with `unembeds` and, unless `checked`, with `checking`.
            paths: names of `PATHS`.
            all_starts: False to measure `onward` from the first layer only, which is the loss without the image.

        Raises:
            KnockoutError: the model's attention cannot be blocked.
        """
        masks = self.masks(answers)
        if not self.checked:
            self._resumes = self._check(answers, masks)
            self.checked = True
        likelihood = answers.sums(answers.log_probabilities)
        resumes = self._resumes and not answers.earlier_tokens_attend_after(masks.first)

        def loss(path: str, layers: range) -> NDArray[np.float64]:
            queries, keys = masks.of(path)
            if not queries.any():
                return np.zeros(len(likelihood))
            blocked = Blocked(layers, queries, keys)
            if not resumes:
                return likelihood - answers.likelihoods(blocked)
            first = int(queries.any(0).nonzero()[0])
            return likelihood - answers.likelihoods(blocked, start=layers.start, first=first)

        losses = {path: np.stack([loss(path, window) for window in self.windows], 1) for path in paths}
        starts = self.starts if all_starts else self.starts[:1]
        onward = [loss("later", range(start, self._depth)) for start in starts]
        counts = answers.prompts.is_token.sum(1).numpy()
        return KnockoutReadings(likelihood, counts, np.stack(onward, 1), **losses)

    @staticmethod
    def masks(answers: AnswerPass) -> PathMasks:
        """Return the queries and keys of each path for a batch."""
        return PathMasks(answers.prompts)

    def _check(self, answers: AnswerPass, masks: PathMasks) -> bool:
        """Return True if a partly repeated pass equals the complete one.

        Raises:
            KnockoutError: the recorded states do not give the model's own likelihoods, or the decoder run again does
                not give them.
        """
        assert answers.own is not None
        name, expected = self._name, answers.sums(answers.own)
        tolerance = _TOLERANCES.get(self._dtype, _WIDE_TOLERANCE) * max(1.0, np.abs(expected).max())

        def are_own() -> bool:
            return bool(np.abs(answers.sums(answers.log_probabilities) - expected).max() <= tolerance)

        if not are_own():
            # Some models scale or cap their logits, or mask entries that are no text.
            answers.use_own_logits()
            self.unembeds = False
            if not are_own():
                raise KnockoutError(
                    f"{name}: its last states do not give its own logits, so likelihoods with blocked attention cannot "
                    "be computed"
                )
        middle = min(self.starts, key=lambda start: abs(start - self._depth // 2))
        try:
            resumed = [answers.likelihoods(start=start, first=masks.first) for start in (0, middle)]
            if all(np.abs(values - expected).max() <= tolerance for values in resumed):
                return True
        except Exception as error:  # The model's code may raise any type for a part of its input.
            if is_out_of_memory(error):
                raise
        again = answers.likelihoods()
        if not np.abs(again - expected).max() <= tolerance:
            raise KnockoutError(
                f"{name}: its decoder called again gives other likelihoods (by {np.abs(again - expected).max():.2g} "
                "nats), so the effect of blocked attention cannot be isolated"
            )
        return False


class PathMasks:
    """The queries and keys of each path, bool (batch, tokens), for prompts with answers."""

    def __init__(self, prompts: AnsweredPrompts) -> None:
        columns, image = torch.arange(prompts.tokens, device=prompts.image.device), prompts.image
        # Row and tile ends between image tokens carry image information, so they count as image.
        image_span = (image.cumsum(1) > 0) & (image.flip(1).cumsum(1).flip(1) > 0)
        later = (columns > (columns * image).amax(1, keepdim=True)) & prompts.real
        predicting = later & (columns >= prompts.prompt_tokens - 1)
        self._paths = {
            "later": (later, image_span),
            "answer": (predicting, image_span),
            "instruction": (prompts.instruction & later, image_span),
            "other": (later, _chosen(prompts.text, image_span.sum(1), prompts.seeds)),
        }
        #: The first token of the batch whose attention is blocked by some path.
        self.first = int(later.any(0).nonzero()[0])

    def of(self, path: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the queries and the keys of a path."""
        return self._paths[path]


def _chosen(text: torch.Tensor, counts: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
    """Return as many text tokens as `counts`, or all, bool (batch, tokens); each row's choice has its seed.

    The first token of a prompt is not chosen, because many heads attend to it when they have nothing to attend to.
    """
    chosen = torch.zeros_like(text)
    for row, seed in enumerate(seeds):
        positions = text[row].nonzero()[:, 0]
        positions = positions[positions > 0]
        order = torch.randperm(len(positions), generator=torch.Generator().manual_seed(seed))
        chosen[row, positions[order[: int(counts[row])].to(positions.device)]] = True
    return chosen
