"""A measurement holds itself against the model's own numbers before it is believed."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.errors import PhaseError
from harness.models.anatomy import Anatomy, AnatomyError, output_projection
from harness.models.prompt import Batch
from harness.probe.similarity import upcast

# Relative tolerances; a model in 16 bits rounds its own numbers to about 3 decimal digits.
_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
# Layers count from 1, residual points from 0.
_PER_LAYER = ("norm_shares", "weight_shares", "norm_rows")


class SelfCheckError(PhaseError):
    """A measurement contradicts the model's own numbers; the message names model, layer and both numbers."""


def relative_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest absolute difference over the largest absolute value of `theirs`."""
    scale = float(upcast(theirs).abs().max())
    return float((upcast(ours) - upcast(theirs)).abs().max()) / max(scale, 1e-12)


def check_last_state(anatomy: Anatomy, last_state: torch.Tensor, own_logits: torch.Tensor) -> None:
    """Asserts that the last residual point (batch, 1, d), through norm and unembedding, gives the model's own logits.

    Raises:
        SelfCheckError: with both top logits and the relative difference.
    """
    logits = anatomy.unembedding(anatomy.final_norm(last_state))[:, -1]
    apart = relative_difference(logits, own_logits)
    if not apart <= _TOLERANCE.get(own_logits.dtype, 5e-2):
        raise SelfCheckError(
            f"{anatomy.name}: the state before the final norm, through norm and unembedding, gives the top logit "
            f"{float(logits.max()):.6g} where the model's own is {float(own_logits.max()):.6g} "
            f"(relative difference {apart:.2g}); the final norm or the unembedding is not the one the model uses"
        )


def check_image_positions(model: Any, name: str, batch: Batch, device: torch.device) -> None:
    """Asserts that the prompt has as many image positions as the model makes image features of the batch.

    Raises:
        SelfCheckError: with both counts.
    """
    # A Q-Former reads the instruction beside the picture, so its ids belong to the features too.
    asked = inspect.signature(model.get_image_features).parameters
    given = {
        key: value.to(device, model.dtype if value.is_floating_point() else None)
        for key, value in batch.inputs.items()
        if value.is_floating_point() or key in asked
    }
    features = model.get_image_features(**given, return_dict=True)
    made = sum(int(np.prod(part.shape[:-1])) for part in features.pooler_output)
    counted = int(batch.groups.image.sum())
    if made != counted:
        raise SelfCheckError(
            f"{name}: the prompts of the first batch hold {counted} image positions, but the model makes {made} image "
            "features of it; the processor and the model do not belong together"
        )


def check_finite(name: str, arrays: Mapping[str, Any], sample_ids: Sequence[str]) -> None:
    """Asserts that no reading is NaN or infinite; samples are the first axis, residual points or layers the second.

    Raises:
        SelfCheckError: naming the measure, the sample and the layer of the first such number.
    """
    for measure, values in arrays.items():
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            where = np.argwhere(~np.isfinite(values))[0]
            per_layer = measure in _PER_LAYER
            layer = (
                f" at {'layer' if per_layer else 'residual point'} {where[1] + per_layer}" if values.ndim > 2 else ""
            )
            raise SelfCheckError(
                f"{name}: {measure} of sample {sample_ids[where[0]]} is {values[tuple(where)]}{layer}; the hidden "
                "states overflow or hold NaN: use another dtype, or look at the weights"
            )


def check_same_hits(name: str, dense: Any, pruned: Any, sample_ids: Sequence[str]) -> None:
    """Asserts that the pruned lens finds the words that the dense lens finds, (samples, points, 2, k) each.

    Raises:
        SelfCheckError: naming sample, point and both counts.
    """
    if not np.array_equal(dense, pruned):
        where = tuple(np.argwhere(dense != pruned)[0])
        raise SelfCheckError(
            f"{name}: at residual point {where[1]} of sample {sample_ids[where[0]]} the dense lens finds "
            f"{dense[where]} words and the pruned lens {pruned[where]}"
        )


class AttentionCheck:
    """Holds the sum of the attention parts of the last token against the layer's own attention output."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._parts: dict[int, torch.Tensor] = {}
        self._outputs: dict[int, torch.Tensor] = {}

    def parts(self, layer: int, total: torch.Tensor) -> None:
        """Take the summed vectors of one layer, (batch, d), the projection's bias added."""
        self._parts[layer] = total

    @contextlib.contextmanager
    def listening(self, anatomy: Anatomy, busy: Callable[[], bool]) -> Iterator[None]:
        """Records what the output projections of the decoder layers give for the last token."""
        with contextlib.ExitStack() as stack:
            for index, layer in enumerate(anatomy.layers):
                for module in layer.modules():
                    try:
                        projection = output_projection(module)
                    except AnatomyError:
                        continue

                    def record(_: nn.Module, __: Any, output: torch.Tensor, at: int = index) -> None:
                        if not busy():
                            self._outputs[at] = output[:, -1]

                    stack.callback(projection.register_forward_hook(record).remove)
            yield

    def conclude(self) -> None:
        """Asserts that parts and outputs agree in every layer.

        Raises:
            SelfCheckError: naming the layer and both norms, or the layers that gave only one of the two.
        """
        if self._parts.keys() != self._outputs.keys() or not self._parts:
            read, ran = ([layer + 1 for layer in sorted(seen)] for seen in (self._parts, self._outputs))
            raise SelfCheckError(
                f"{self._name}: attention was read in layers {read}, but its output projection ran in layers {ran}; "
                "some layer's attention does not go through the exchanged function"
            )
        for layer, parts in sorted(self._parts.items()):
            output = self._outputs[layer]
            apart = relative_difference(parts, output)
            if not apart <= _TOLERANCE.get(output.dtype, 5e-2):
                raise SelfCheckError(
                    f"{self._name}, layer {layer + 1}: the attention parts of the last token sum to a vector of norm "
                    f"{float(parts.norm()):.6g}, but the layer's attention output has norm "
                    f"{float(upcast(output).norm()):.6g} (relative difference {apart:.2g})"
                )
