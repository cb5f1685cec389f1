"""Implausible numbers in config.json are refused before a model is built. Numbers of real models pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.models.checkpoints.checkpoint_directory import directory_problem
from harness.models.checkpoints.configuration_bounds import refuse_more_than_stored, refuse_numbers
from harness.models.registry import find_model
from harness.models.vlm import load_vlm
from harness.models.weights_error import WeightsError
from harness.tests.support.saved_checkpoints import (
    change_settings,
    checkpoint,
    checkpoint_templates,
    sharded_checkpoint,
)

__all__ = ["checkpoint", "checkpoint_templates", "sharded_checkpoint"]


@pytest.mark.parametrize(
    ("part", "key", "number"),
    [
        ("text_config", "num_hidden_layers", 10**7),
        ("text_config", "num_hidden_layers", 1e9),
        ("text_config", "num_hidden_layers", 10**400),
        ("vision_config", "num_hidden_layers", 10**7),
        ("vision_config", "depth", 10**12),
        ("vision_config", "depths", [9_000] * 100_000),
        ("text_config", "encoder_layers", 10**7),
        ("text_config", "num_experts", 10**7),
        ("text_config", "n_routed_experts", 10**9),
        ("text_config", "hidden_size", 10**12),
        ("text_config", "head_dim", 10**10),
        ("text_config", "vocab_size", 10**12),
        ("vision_config", "image_size", 10**7),
        ("vision_config", "image_size", [224, 10**7]),
        ("vision_config", "num_channels", 10**9),
        ("text_config", "num_labels", 10**9),
    ],
)
def test_an_implausible_number_is_refused_before_a_model_is_built(
    checkpoint: Path, part: str, key: str, number: Any
) -> None:
    change_settings(checkpoint / "config.json", lambda config: config[part].update({key: number}))
    message = directory_problem(checkpoint, str(checkpoint), unused=False) or ""
    assert message.startswith(f"the checkpoint {checkpoint} has {key} ")
    assert " in config.json, but no model has more than " in message
    with pytest.raises(WeightsError, match="no model has more than"):
        load_vlm(find_model(str(checkpoint)), cache=checkpoint.parent, device="cpu")


@pytest.mark.parametrize(
    ("settings", "stated"),
    [
        ({"num_hidden_layers": 9_000}, "num_hidden_layers 9000"),
        ({"num_hidden_layers": 900, "num_experts": 9_000}, "num_hidden_layers 900 and num_experts 9000"),
    ],
)
def test_more_layers_than_the_weights_allow_are_refused(
    checkpoint: Path, settings: dict[str, int], stated: str
) -> None:
    change_settings(checkpoint / "config.json", lambda config: config["text_config"].update(settings))
    message = directory_problem(checkpoint, str(checkpoint), unused=False) or ""
    assert message.startswith(f"the checkpoint {checkpoint} has {stated} in config.json, but its ")
    assert message.endswith(" weight tensors are too few for that: check that config.json and weights belong together")


# Settings of published models, each with the number of weight tensors.
PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "405B": (
        {"num_hidden_layers": 126, "hidden_size": 16384, "intermediate_size": 53248, "vocab_size": 128256}
        | {"num_attention_heads": 128, "max_position_embeddings": 131072, "rope_theta": 5e5, "eos_token_id": [128001]},
        1138,
    ),
    "experts in one tensor": ({"num_hidden_layers": 94, "num_experts": 512, "num_experts_per_tok": 8}, 1000),
    "experts apart": ({"num_hidden_layers": 61, "n_routed_experts": 384, "moe_intermediate_size": 2048}, 71_000),
    "retrieved experts": ({"num_hidden_layers": 32, "num_experts": 16384}, 400),
    "one shared layer": ({"num_hidden_layers": 48, "num_hidden_groups": 1, "vocab_size": 30000}, 25),
    "long contexts": (
        {"max_position_embeddings": 10_485_760, "rope_theta": 10**10, "no_rope_layers": [1, 1, 0] * 16},
        600,
    ),
    "layers by number": ({"linear_attn_config": {"kda_layers": list(range(1, 127)), "num_heads": 32}}, 1500),
    "heads by layer": ({"num_attention_heads_per_layer": [64] * 80, "num_hidden_layers": 80}, 560),
    "stages": ({"vision_config": {"depths": [2, 2, 18, 2], "image_size": [384, 384], "num_channels": 3}}, 300),
    "labels": (
        {"id2label": {"0": "a"}, "label2id": {"n_layers of a cake": 10**6}, "intermediate_size": [53248] * 90},
        9,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_numbers_of_published_models_pass(name: str) -> None:
    settings, tensors = PUBLISHED[name]
    refuse_numbers({"text_config": settings}, name)
    refuse_more_than_stored({"text_config": settings}, tensors, name)


def test_values_that_are_not_counts_are_left_to_transformers() -> None:
    unusual = {
        "num_hidden_layers": True,
        "depth": float("inf"),
        "num_layers": float("nan"),
        "hidden_size": None,
        "layers": [],
    }
    refuse_numbers(unusual, "odd")
    refuse_more_than_stored(unusual, 0, "odd")
