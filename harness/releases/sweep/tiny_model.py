"""A tiny random model of any type, with weights drawn so that its attention is not uniform."""

from __future__ import annotations

from typing import Any

import torch

from harness.models.anatomy import refuse_unmeasurable
from harness.releases.sweep.shrink import tiny_config
from harness.releases.sweep.tiny_fields import TINY_FIELDS

# Standard deviation of an embedding's numbers; other matrices keep the size of what they are given.
_EMBEDDED = 0.5
_GAIN = 2.0
# Deep convolutional towers add up what they convolve, without a norm between.
_CONVOLVED = 1.0
_SHIFT = 0.1


def tiny_model(model_type: str, class_name: str) -> Any:
    """A model of the named class with a tiny configuration and drawn weights, frozen and in eval mode.

    Raises:
        AnatomyError: by its configuration it cannot be measured.
        ImportError: it needs a library that is not installed.
    """
    import transformers

    config = tiny_config(model_type, TINY_FIELDS.get(model_type, ("", {}))[1])
    refuse_unmeasurable(config, class_name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, class_name)(config)
        draw_weights(model)
    return model.requires_grad_(False).eval()


@torch.no_grad()
def draw_weights(model: Any, seed: int = 0) -> None:
    """Draws every parameter anew: matrices normal by their fan-in, vectors a little off what they were."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            continue
        drawn = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim < 2:
            # Some are created empty and hold whatever the memory held.
            parameter.nan_to_num_(0.0, 0.0, 0.0).clamp_(-2.0, 2.0).add_(_SHIFT * drawn)
        elif "embed" in name:
            parameter.copy_(_EMBEDDED * drawn)
        else:
            gain = _CONVOLVED if parameter.ndim == 4 else _GAIN
            parameter.copy_(drawn * (gain / max(1, parameter[0].numel())) ** 0.5)
