"""A measurement holds itself against the model's own numbers before it is believed."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from harness.errors import PhaseError
from harness.models.anatomy import Anatomy
from harness.models.vlm import count_image_features
from harness.probe.similarity import upcast

# Relative tolerances; a model in 16 bits rounds its own numbers to about 3 decimal digits.
TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
# Layers count from 1, residual points from 0.
_PER_LAYER = ("norm_shares", "weight_shares", "norm_rows")


class SelfCheckError(PhaseError):
    """A measurement contradicts the model's own numbers; the message names model, layer and both numbers."""


class NotFiniteError(SelfCheckError):
    """Some samples of a batch have readings that are NaN or infinite.

    `faults` says it of each of their rows; `readings` are those of the whole batch, good in the other rows, and None
    where they were not wanted.
    """

    def __init__(self, sentence: str, faults: Mapping[int, str] | None = None, readings: Any = None) -> None:
        super().__init__(sentence)
        self.faults, self.readings = dict(faults or {}), readings


def relative_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest absolute difference over the largest absolute value of `theirs`."""
    scale = float(upcast(theirs).abs().max())
    return float((upcast(ours) - upcast(theirs)).abs().max()) / max(scale, 1e-12)


def check_last_state(anatomy: Anatomy, lens_logits: torch.Tensor, own_logits: torch.Tensor) -> None:
    """Assert that the lens decodes the last residual point to the model's own logits, (batch, vocabulary) each.

    A common factor is allowed: some models scale the normed state, which leaves the order of the entries as it is.

    Raises:
        SelfCheckError: with both top logits and the relative difference.
    """
    own = upcast(own_logits)
    logits = lens_logits.to(own.device)
    tolerance = TOLERANCE.get(own_logits.dtype, 5e-2)
    apart = relative_difference(logits, own)
    if not apart <= tolerance and getattr(anatomy.unembedding, "bias", None) is None:
        factor = float((own * logits).sum() / (logits * logits).sum())
        apart = relative_difference(logits * factor, own) if factor > 0 else apart
    if not apart <= tolerance:
        raise SelfCheckError(
            f"{anatomy.name}: the state before the final norm, through norm and unembedding, gives the top logit "
            f"{float(logits.max()):.6g} where the model's own is {float(own.max()):.6g} "
            f"(relative difference {apart:.2g}); the final norm or the unembedding is not the one the model uses"
        )


def check_exit(anatomy: Anatomy, lens_logits: torch.Tensor, own_logits: torch.Tensor, agreement: torch.Tensor) -> None:
    """Assert that the lens's best entry at the last residual point is the model's own, except where two are as good.

    Args:
        anatomy: of the model, for the message.
        lens_logits: those that the lens decodes there over the whole vocabulary, (batch, vocabulary).
        own_logits: the model's, (batch, vocabulary).
        agreement: the lens's reading of `exit_agreement` there, bool (batch,).

    Raises:
        SelfCheckError: with the number of samples where it is another.
    """
    logits, agreement = lens_logits.to(own_logits.device), agreement.to(own_logits.device)
    best = own_logits == own_logits.amax(-1, keepdim=True)
    mine, others = (logits.masked_fill(hidden, -torch.inf).amax(-1) for hidden in (~best, best))
    contradicted = int((~agreement & (mine - others > 1e-3 * logits.abs().amax(-1))).sum())
    if contradicted:
        raise SelfCheckError(
            f"{anatomy.name}: of the last state LogitLens reads another best entry than the model in {contradicted} of "
            f"{len(agreement)} samples, though its logits are the model's; the head is not what the lens takes it for"
        )


@contextlib.contextmanager
def collect_placeholder_masks(
    model: Any, given: Callable[[Mapping[str, Any]], None] = lambda _: None
) -> Iterator[list[torch.Tensor]]:
    """Collect the masks by which the model itself places features in the prompts, in the passes inside the block.

    `given` takes the arguments of each call before it is made.
    """
    masks: list[torch.Tensor] = []

    def listening(method: Callable[..., Any]) -> Callable[..., Any]:
        names = list(inspect.signature(method).parameters)

        def heard(*args: Any, **kwargs: Any) -> Any:
            given(dict(zip(names, args, strict=False)) | kwargs)
            result = method(*args, **kwargs)
            parts = result if isinstance(result, tuple) else (result,)
            masks.extend(part for part in parts if isinstance(part, torch.Tensor))
            return result

        return heard

    owners = [module for module in model.modules() if hasattr(module, "get_placeholder_mask")]
    for module in owners:
        object.__setattr__(module, "get_placeholder_mask", listening(module.get_placeholder_mask))
    try:
        yield masks
    finally:
        for module in owners:
            del module.get_placeholder_mask


def check_image_positions(
    model: Any, name: str, image: torch.Tensor, inputs: Mapping[str, torch.Tensor], masks: Sequence[torch.Tensor] = ()
) -> None:
    """Assert that the image positions of a batch are where the model puts its image features.

    Held against the model's own placeholder masks of a forward pass; where it makes none, against the number of its
    image features. A model that tells neither is believed.

    Args:
        model: a transformers model.
        name: for the message.
        image: the image positions, bool (batch, tokens).
        inputs: of the model, as it takes them.
        masks: what `collect_placeholder_masks` collected.

    Raises:
        SelfCheckError: with both counts.
    """
    told = [mask for mask in masks if bool(mask.any())]
    for mask in told:
        theirs = (mask.any(-1) if mask.ndim == 3 else mask).to(image.device)
        if theirs.shape != image.shape or not torch.equal(theirs, image):
            raise SelfCheckError(
                f"{name}: the model puts image features at {int(theirs.sum())} positions, the prompts of the batch "
                f"hold {int(image.sum())} image positions, and they are not the same"
            )
    made = None if told else count_image_features(model, inputs)
    if made is not None and made != int(image.sum()):
        raise SelfCheckError(
            f"{name}: the prompts of the first batch hold {int(image.sum())} image positions, but the model makes "
            f"{made} image features of it; the processor and the model do not belong together"
        )


def check_repeatable(
    name: str, first: Any, second: Any, sample_ids: Sequence[str], tolerance: float, again: Callable[[], Any]
) -> None:
    """Assert that passes over the same inputs give the same similarities.

    Args:
        name: for the message.
        first: similarities of one pass, (batch, points, curves).
        second: those of another.
        sample_ids: names of the rows.
        tolerance: largest absolute difference.
        again: gives those of a third pass, which is made where the first two differ: some quantised layers round their
            scales in the first one.

    Raises:
        SelfCheckError: the passes differ; it names the sample and the first residual point.
    """
    if np.abs(first - second).max() <= tolerance or np.abs(again() - second).max() <= tolerance:
        return
    row, point, curve = np.argwhere(np.abs(first - second) > tolerance)[0]
    raise SelfCheckError(
        f"{name}: two passes over the same inputs differ (similarity {first[row, point, curve]:.6g} and "
        f"{second[row, point, curve]:.6g} at residual point {point} of sample {sample_ids[row]}): its forward pass "
        "draws random numbers, or keeps a state from call to call; switch off what ignores model.eval(), as dropout may"
    )


def check_image_is_used(name: str, similarity: Any, other: Any, keys: Sequence[str]) -> None:
    """Assert that the similarities depend on the picture.

    Raises:
        SelfCheckError: two passes over other pictures, `similarity` and `other`, give the same; it names the inputs
            that the processor gives, `keys`.
    """
    if np.array_equal(similarity, other):
        raise SelfCheckError(
            f"{name}: its states do not depend on the picture: the processor gives {', '.join(keys)}, and the forward "
            "pass makes no use of a picture among them; use the processor of this checkpoint, and look at the names of "
            "the arguments of the model's forward"
        )


def find_non_finite(name: str, arrays: Mapping[str, Any], sample_ids: Sequence[str]) -> dict[int, str]:
    """Which rows hold a reading that is NaN or infinite, each with a sentence that names measure, sample and layer.

    Samples are the first axis of every array, residual points or layers the second.
    """
    faults: dict[int, str] = {}
    for measure, values in arrays.items():
        if not np.issubdtype(values.dtype, np.floating) or np.isfinite(values).all():
            continue
        per_layer = measure in _PER_LAYER
        for row in np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(1)).tolist():
            where = (row, *np.argwhere(~np.isfinite(values[row]))[0])
            layer = f" at {'layer' if per_layer else 'residual point'} {where[1] + per_layer}" if len(where) > 2 else ""
            faults.setdefault(
                row,
                f"{name}: {measure} of sample {sample_ids[row]} is {values[where]}{layer}; the hidden states overflow "
                "or hold NaN: use another dtype, or look at the weights",
            )
    return faults


def check_same_hits(name: str, dense: Any, pruned: Any, sample_ids: Sequence[str]) -> None:
    """Assert that the pruned lens finds the words that the dense lens finds, (samples, points, 2, k) each.

    Raises:
        SelfCheckError: naming sample, point and both counts.
    """
    if not np.array_equal(dense, pruned):
        where = tuple(np.argwhere(dense != pruned)[0])
        raise SelfCheckError(
            f"{name}: at residual point {where[1]} of sample {sample_ids[where[0]]} the dense lens finds "
            f"{dense[where]} words and the pruned lens {pruned[where]}"
        )


def check_logits_differ(name: str, logits: torch.Tensor) -> None:
    """Assert that the logits of a batch, (batch, vocabulary), are not all equal, as those of a head of zeros are.

    Raises:
        SelfCheckError: with their value.
    """
    if bool((logits == logits[:, :1]).all()):
        raise SelfCheckError(
            f"{name}: all logits of the model are {float(logits[0, 0]):.6g}, so no entry is the best; its weights are "
            "zero or were not loaded: copy the checkpoint again"
        )


def check_output(name: str, logits: torch.Tensor, given: torch.Tensor) -> None:
    """Assert that the model gives the best entry that its head gives, but for entries that it never lets win.

    Args:
        name: for the message.
        logits: of the last token as the head gives them, (batch, vocabulary).
        given: of the last token as the model gives them, (batch, vocabulary). They may be scaled or capped.

    Raises:
        SelfCheckError: with the number of samples whose best entry is another.
    """
    logits, given = logits.float(), given.float().to(logits.device)
    barred = given <= torch.finfo(torch.float16).min
    at_head = given.gather(-1, logits.masked_fill(barred, -torch.inf).argmax(-1, keepdim=True)).squeeze(-1)
    largest = given.abs().masked_fill(barred, 0).amax(-1)
    changed = int((given.amax(-1) - at_head > TOLERANCE[torch.float32] * largest).sum())
    if changed:
        raise SelfCheckError(
            f"{name}: another logit than the head's largest is the largest of the model's output in {changed} of "
            f"{len(given)} samples, so something changes logits behind the head: remove the hook or wrapper that does"
        )
