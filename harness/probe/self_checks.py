"""Self-checks, which compare a measurement with the model's own outputs."""

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
from harness.probe.precision import upcast

# Relative tolerances by dtype of the model's outputs; 16-bit types round to about 3 decimal digits.
TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
# Layers count from 1, residual points from 0.
_PER_LAYER = ("norm_shares", "weight_shares", "sink_share", "instruction_share", "step_cosine", "norm_rows")


class SelfCheckError(PhaseError):
    """A measurement contradicts the model's own outputs; the message gives model, layer and both numbers."""


class NotFiniteError(SelfCheckError):
    """Some samples of a batch have readings that are NaN or infinite.

    `faults` maps the row of each such sample to a message. `readings` are those of the whole batch, valid in the other
    rows, or None if not requested.
    """

    def __init__(self, message: str, faults: Mapping[int, str] | None = None, readings: Any = None) -> None:
        super().__init__(message)
        self.faults, self.readings = dict(faults or {}), readings


def relative_difference(values: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the largest absolute difference divided by the largest absolute value of `reference`."""
    scale = float(upcast(reference).abs().max())
    return float((upcast(values) - upcast(reference)).abs().max()) / max(scale, 1e-12)


def check_last_state(anatomy: Anatomy, lens_logits: torch.Tensor, model_logits: torch.Tensor) -> None:
    """Assert that the lens decodes the last residual point to the model's own logits, (batch, vocabulary) each.

    A common factor is allowed: some models scale the normed state, which does not change the order of the entries.

    Raises:
        SelfCheckError: they differ; the message gives both top logits and the relative difference.
    """
    reference = upcast(model_logits)
    logits = lens_logits.to(reference.device)
    tolerance = TOLERANCE.get(model_logits.dtype, 5e-2)
    difference = relative_difference(logits, reference)
    if not difference <= tolerance and getattr(anatomy.unembedding, "bias", None) is None:
        factor = float((reference * logits).sum() / (logits * logits).sum())
        difference = relative_difference(logits * factor, reference) if factor > 0 else difference
    if not difference <= tolerance:
        raise SelfCheckError(
            f"{anatomy.name}: final norm and unembedding map the last residual point to the top logit "
            f"{float(logits.max()):.6g}, but the model's own is {float(reference.max()):.6g} "
            f"(relative difference {difference:.2g}); the final norm or the unembedding is not the one the model uses"
        )


def check_exit(
    anatomy: Anatomy, lens_logits: torch.Tensor, model_logits: torch.Tensor, agreement: torch.Tensor
) -> None:
    """Assert that the lens's best entry at the last residual point equals the model's, except for near ties.

    Args:
        anatomy: the parts of the model; only its name is used, in the message.
        lens_logits: logits that the lens decodes at that point over the whole vocabulary, (batch, vocabulary).
        model_logits: the model's logits, (batch, vocabulary).
        agreement: the lens's `exit_agreement` at that point, bool (batch,).

    Raises:
        SelfCheckError: the entries differ; the message gives the number of samples.
    """
    logits, agreement = lens_logits.to(model_logits.device), agreement.to(model_logits.device)
    best = model_logits == model_logits.amax(-1, keepdim=True)
    best_logit, other_logit = (logits.masked_fill(hidden, -torch.inf).amax(-1) for hidden in (~best, best))
    contradicted = int((~agreement & (best_logit - other_logit > 1e-3 * logits.abs().amax(-1))).sum())
    if contradicted:
        raise SelfCheckError(
            f"{anatomy.name}: at the last residual point LogitLens decodes another best entry than the model in "
            f"{contradicted} of {len(agreement)} samples, although the logits agree; the lens does not support this "
            "unembedding"
        )


@contextlib.contextmanager
def collect_placeholder_masks(
    model: Any, on_call: Callable[[Mapping[str, Any]], None] = lambda _: None
) -> Iterator[list[torch.Tensor]]:
    """Collect the model's own placeholder masks, from `get_placeholder_mask` calls inside the block.

    `on_call` receives the arguments by name before each call.
    """
    masks: list[torch.Tensor] = []

    def recording(method: Callable[..., Any]) -> Callable[..., Any]:
        names = list(inspect.signature(method).parameters)

        def recorded(*args: Any, **kwargs: Any) -> Any:
            on_call(dict(zip(names, args, strict=False)) | kwargs)
            result = method(*args, **kwargs)
            parts = result if isinstance(result, tuple) else (result,)
            masks.extend(part for part in parts if isinstance(part, torch.Tensor))
            return result

        return recorded

    owners = [module for module in model.modules() if hasattr(module, "get_placeholder_mask")]
    for module in owners:
        object.__setattr__(module, "get_placeholder_mask", recording(module.get_placeholder_mask))
    try:
        yield masks
    finally:
        for module in owners:
            del module.get_placeholder_mask


def check_image_positions(
    model: Any, name: str, image: torch.Tensor, inputs: Mapping[str, torch.Tensor], masks: Sequence[torch.Tensor] = ()
) -> None:
    """Assert that the image positions of a batch are where the model inserts its image features.

    They are compared with the model's own placeholder masks of a forward pass or, if it makes none, with the number of
    its image features. A model that provides neither is not checked.

    Args:
        model: a transformers model.
        name: name of the model in the message.
        image: the image positions, bool (batch, tokens).
        inputs: model inputs.
        masks: masks from `collect_placeholder_masks`.

    Raises:
        SelfCheckError: they differ; the message gives both counts.
    """
    model_masks = [mask for mask in masks if bool(mask.any())]
    for mask in model_masks:
        model_positions = (mask.any(-1) if mask.ndim == 3 else mask).to(image.device)
        if model_positions.shape != image.shape or not torch.equal(model_positions, image):
            raise SelfCheckError(
                f"{name}: the model inserts image features at {int(model_positions.sum())} positions, the prompts of "
                f"the batch have {int(image.sum())} image positions, and they are not the same: use the processor of "
                "this checkpoint"
            )
    feature_count = None if model_masks else count_image_features(model, inputs)
    if feature_count is not None and feature_count != int(image.sum()):
        raise SelfCheckError(
            f"{name}: the prompts of the first batch have {int(image.sum())} image positions, but the model makes "
            f"{feature_count} image features: use the processor of this checkpoint"
        )


def check_repeatable(
    name: str, first: Any, second: Any, sample_ids: Sequence[str], tolerance: float, repeat: Callable[[], Any]
) -> None:
    """Assert that passes over the same inputs give the same similarities.

    Args:
        name: name of the model in the message.
        first: similarities of one pass, (batch, points, curves).
        second: similarities of another pass.
        sample_ids: names of the rows.
        tolerance: largest absolute difference.
        repeat: returns the similarities of a third pass, called if the first two differ, because some quantised layers
            round their scales in the first pass.

    Raises:
        SelfCheckError: the passes differ; the message names the sample and the first residual point.
    """
    if np.abs(first - second).max() <= tolerance or np.abs(repeat() - second).max() <= tolerance:
        return
    row, point, curve = np.argwhere(np.abs(first - second) > tolerance)[0]
    raise SelfCheckError(
        f"{name}: two passes over the same inputs differ (similarity {first[row, point, curve]:.6g} and "
        f"{second[row, point, curve]:.6g} at residual point {point} of sample {sample_ids[row]}), so its forward pass "
        "draws random numbers or keeps state between calls: disable modules that ignore model.eval(), such as dropout"
    )


def check_image_is_used(name: str, similarity: Any, other: Any, keys: Sequence[str]) -> None:
    """Assert that the similarities depend on the image.

    Raises:
        SelfCheckError: two passes over different images, `similarity` and `other`, give equal values; the message names
            the processor's outputs, `keys`.
    """
    if np.array_equal(similarity, other):
        raise SelfCheckError(
            f"{name}: its hidden states do not depend on the image: the processor returns {', '.join(keys)}, and the "
            "forward pass uses no image among them. Use the processor of this checkpoint, and compare these names with "
            "the arguments of the model's forward"
        )


def find_non_finite(name: str, arrays: Mapping[str, Any], sample_ids: Sequence[str]) -> dict[int, str]:
    """Return a message for each row with a NaN or infinite reading, which names measure, sample and layer.

    The first axis of every array is the sample, the second the residual point or layer.
    """
    faults: dict[int, str] = {}
    for measure, values in arrays.items():
        if not np.issubdtype(values.dtype, np.floating) or np.isfinite(values).all():
            continue
        per_layer = measure in _PER_LAYER
        for row in np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(1)).tolist():
            index = (row, *np.argwhere(~np.isfinite(values[row]))[0])
            layer = f" at {'layer' if per_layer else 'residual point'} {index[1] + per_layer}" if len(index) > 2 else ""
            faults.setdefault(
                row,
                f"{name}: {measure} of sample {sample_ids[row]} is {values[index]}{layer}; the hidden states overflow "
                "or hold NaN: use another dtype, or check the weights",
            )
    return faults


def check_same_hits(name: str, dense: Any, pruned: Any, sample_ids: Sequence[str], points: Sequence[int]) -> None:
    """Assert that the pruned lens finds the words that the dense lens finds, (samples, points, 2, k) each.

    `points` holds the numbers of the residual points.

    Raises:
        SelfCheckError: they differ; the message gives sample, point and both counts.
    """
    if not np.array_equal(dense, pruned):
        index = tuple(np.argwhere(dense != pruned)[0])
        raise SelfCheckError(
            f"{name}: at residual point {points[index[1]]} of sample {sample_ids[index[0]]} the dense lens finds "
            f"{dense[index]} words and the pruned lens {pruned[index]}; report this as an error of the harness"
        )


def check_logits_differ(name: str, logits: torch.Tensor) -> None:
    """Assert that the logits of a batch, (batch, vocabulary), are not all equal, as with an unembedding of zeros.

    Raises:
        SelfCheckError: all are equal; the message gives their value.
    """
    if bool((logits == logits[:, :1]).all()):
        raise SelfCheckError(
            f"{name}: all logits of the model are {float(logits[0, 0]):.6g}, so no entry is the best. Its weights are "
            "zero or were not loaded: copy the checkpoint again"
        )


def check_output(name: str, logits: torch.Tensor, output: torch.Tensor) -> None:
    """Assert that the model's output has the same best entry as its unembedding, apart from suppressed entries.

    Args:
        name: name of the model in the message.
        logits: logits of the last token from the unembedding, (batch, vocabulary).
        output: logits of the last token in the model's output, (batch, vocabulary). They may be scaled or capped.

    Raises:
        SelfCheckError: the best entries differ; the message gives the number of samples.
    """
    logits, output = logits.float(), output.float().to(logits.device)
    suppressed = output <= torch.finfo(torch.float16).min
    chosen = output.gather(-1, logits.masked_fill(suppressed, -torch.inf).argmax(-1, keepdim=True)).squeeze(-1)
    largest = output.abs().masked_fill(suppressed, 0).amax(-1)
    changed = int((output.amax(-1) - chosen > TOLERANCE[torch.float32] * largest).sum())
    if changed:
        raise SelfCheckError(
            f"{name}: the model's output has another largest logit than its unembedding in {changed} of {len(output)} "
            "samples: remove the hook or wrapper that changes logits after the unembedding"
        )
