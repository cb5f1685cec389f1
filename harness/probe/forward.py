"""One observed forward pass of a batch: inputs to the device, the prompt through the model, the readings back."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.data.sample import Sample
from harness.models.forward_pass import forward_pass
from harness.models.prompts.prompt import Batch
from harness.models.vlm import Vlm
from harness.probe.lens_task import LensTask
from harness.probe.observation import Readings, observing
from harness.probe.self_checks import check_output


def observe(
    vlm: Vlm,
    batch: Batch,
    samples: Sequence[Sample],
    task: LensTask | None = None,
    *,
    attention: bool = True,
    checking: bool = False,
) -> Readings:
    """The readings of one forward pass over the prompts of `samples`; see `observing` for what is read.

    Raises:
        SelfCheckError, AttentionError: see there.
        ForwardError: the model's own code fails.
    """
    ids = [sample.id for sample in samples]
    with (
        torch.inference_mode(),
        observing(
            vlm.model,
            vlm.anatomy,
            batch.groups.to(vlm.device),
            sample_ids=ids,
            lens=task,
            attention=attention,
            checking=checking,
        ) as seen,
    ):
        output = forward_pass(vlm, batch.inputs, batch.groups.image, ids)
        readings = seen.readings()
        logits = getattr(output, "logits", None)
        if checking and isinstance(logits, torch.Tensor) and seen.head_logits is not None:
            check_output(vlm.anatomy.name, seen.head_logits, logits[:, -1])
        return readings
