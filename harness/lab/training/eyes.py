"""The embedded models as training and judging see them: which parts are eyes, how pictures become image rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.models.embedded import scenes_instructblip, scenes_llava

Inputs = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Eyes:
    """The trained part of an embedded model.

    `load` is the public loader. `parts` are the prefixes of the trained tensors. `configs` name the sub-configurations
    with attention. `ordered` says whether the image tokens keep the patches' order. `tower` is the vision tower, whose
    last hidden state (batch, 1 + 36, width) has a class token in front. `bridge` are the parameters between tower and
    language model, `exit` the last layer among them; `rows(model, features, prompt)` are the image rows (batch, image
    tokens, d) of such features after a prompt of one sample.
    """

    name: str
    load: Callable[..., tuple[Any, Any]]
    trained: Path
    parts: tuple[str, ...]
    image_tokens: int
    configs: tuple[str, ...]
    ordered: bool
    tower: Callable[[Any], nn.Module]
    bridge: Callable[[Any], list[nn.Parameter]]
    exit: Callable[[Any], nn.Linear]
    rows: Callable[[Any, torch.Tensor, Inputs], torch.Tensor]


def _projected(model: Any, features: torch.Tensor, prompt: Inputs) -> torch.Tensor:
    rows: torch.Tensor = model.model.multi_modal_projector(features[:, 1:])
    return rows


def _queried(model: Any, features: torch.Tensor, prompt: Inputs) -> torch.Tensor:
    queries = model.query_tokens.expand(len(features), -1, -1)
    ids = prompt["qformer_input_ids"].expand(len(features), -1)
    answers = model.qformer(input_ids=ids, query_embeds=queries, encoder_hidden_states=features)
    rows: torch.Tensor = model.language_projection(answers.last_hidden_state[:, : queries.shape[1]])
    return rows


EYES: dict[str, Eyes] = {
    eyes.name: eyes
    for eyes in (
        Eyes(
            name="scenes-llava",
            load=scenes_llava.load,
            trained=scenes_llava.TRAINED,
            parts=scenes_llava.TRAINED_PARTS,
            image_tokens=scenes_llava.IMAGE_TOKENS,
            configs=("vision_config",),
            ordered=True,
            tower=lambda model: model.model.vision_tower,
            bridge=lambda model: list(model.model.multi_modal_projector.parameters()),
            exit=lambda model: model.model.multi_modal_projector.linear_2,
            rows=_projected,
        ),
        Eyes(
            name="scenes-instructblip",
            load=scenes_instructblip.load,
            trained=scenes_instructblip.TRAINED,
            parts=scenes_instructblip.TRAINED_PARTS,
            image_tokens=scenes_instructblip.IMAGE_TOKENS,
            configs=("vision_config", "qformer_config"),
            ordered=False,
            tower=lambda model: model.vision_model,
            bridge=lambda model: [
                model.query_tokens,
                *model.qformer.parameters(),
                *model.language_projection.parameters(),
            ],
            exit=lambda model: model.language_projection,
            rows=_queried,
        ),
    )
}
