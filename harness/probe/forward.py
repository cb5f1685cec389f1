"""An observed forward pass of a batch, from its inputs to its readings."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.data.sample import Sample
from harness.models.forward_pass import forward_pass
from harness.models.prompts.prompt import Batch
from harness.models.vlm import Vlm
from harness.probe.lens_task import LensTask
from harness.probe.observation import observing
from harness.probe.readings import Readings
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
    """Return the readings of one forward pass over the prompts of `samples`; `observing` describes the arguments.

    Raises:
        SelfCheckError, AttentionError: a check fails, or attention cannot be read; see `Observation`.
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
        ) as observation,
    ):
        output = forward_pass(vlm, batch.inputs, batch.groups.image, ids)
        readings = observation.readings()
        logits = getattr(output, "logits", None)
        if checking and isinstance(logits, torch.Tensor) and observation.head_logits is not None:
            check_output(vlm.anatomy.name, observation.head_logits, logits[:, -1])
        return readings
