"""A model with an unmerged adapter gives the readings of the model into which the adapter is merged."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from harness.judgement.weights import weight_change, weight_parts
from harness.models.anatomy import find_anatomy
from harness.models.linear import is_plain
from harness.models.vlm import Vlm
from harness.probe.self_checks import SelfCheckError
from harness.profile.profile import Profile
from harness.tests.support.saved_weights import hash_weights
from harness.tests.support.tiny import have_same_numbers, tiny_profile, tiny_vlm

peft = pytest.importorskip("peft", reason="adapters need peft: pip install peft")

pytestmark = [
    pytest.mark.usefixtures("tiny_data"),
    # PEFT warns about some releases of transformers.
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers", "ignore::UserWarning:peft"),
]
DECODER = r".*language_model\.layers.*\.(q|k|v|o|up|down|gate)_proj"
CONFIGS: dict[str, dict[str, Any]] = {
    "head": {"target_modules": ["lm_head"]},
    "o_proj": {"target_modules": ["o_proj"]},
    "all linear": {"target_modules": "all-linear"},
    "bias": {"target_modules": rf"{DECODER}|lm_head", "bias": "all"},
    "DoRA": {"target_modules": ["o_proj", "lm_head"], "use_dora": True},
    "saved modules": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm", "o_proj"]},
    "trained tokens": {"target_modules": ["q_proj"], "trainable_token_indices": list(range(5, 60))},
}


def with_model(vlm: Vlm, model: Any) -> Vlm:
    return Vlm(vlm.name, model, vlm.processor, find_anatomy(model))


def randomise_adapter(model: Any, seed: int = 1) -> Any:
    """Add noise to the trainable parameters, because a new adapter changes nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(noise * (0.3 if "lora_" in name else 0.1))
    return model.eval().requires_grad_(False)


def make_adapted(vlm: Vlm, **config: Any) -> Vlm:
    return with_model(vlm, randomise_adapter(peft.get_peft_model(vlm.model, peft.LoraConfig(r=4, **config))))


def make_merged(vlm: Vlm) -> Vlm:
    return with_model(vlm, copy.deepcopy(vlm.model).merge_and_unload())


def assert_close(first: Profile, second: Profile, tolerance: float = 1e-4) -> None:
    assert first.arrays.keys() == second.arrays.keys()
    for name, values in first.arrays.items():
        np.testing.assert_allclose(values, second.arrays[name], rtol=tolerance, atol=0.1 * tolerance, err_msg=name)


@pytest.mark.parametrize("kind", CONFIGS)
def test_an_adapter_is_measured_as_if_merged(kind: str) -> None:
    vlm = make_adapted(tiny_vlm(), **CONFIGS[kind])
    profile = tiny_profile(vlm)
    assert profile["exit_agreement"][:, -1].all()
    assert_close(profile, tiny_profile(make_merged(vlm)))
    plain = tiny_profile(tiny_vlm())
    assert any((profile[name] != plain[name]).any() for name in ("recall_5", "norm_image"))


def test_an_adapter_on_a_tied_head_is_measured_as_if_merged() -> None:
    vlm = tiny_vlm()
    vlm.model.lm_head.weight = vlm.model.model.language_model.embed_tokens.weight
    vlm.model.config.tie_word_embeddings = vlm.model.config.text_config.tie_word_embeddings = True
    vlm = make_adapted(vlm, **CONFIGS["trained tokens"])
    assert not is_plain(vlm.anatomy.unembedding)
    assert_close(tiny_profile(vlm), tiny_profile(make_merged(vlm)))


def test_the_active_adapter_is_measured_and_a_disabled_adapter_is_not() -> None:
    vlm = make_adapted(tiny_vlm(), **CONFIGS["head"])
    vlm.model.add_adapter("second", peft.LoraConfig(r=2, target_modules=["lm_head", "o_proj"]))
    randomise_adapter(vlm.model.requires_grad_(True), 2).set_adapter("second")
    second = copy.deepcopy(vlm.model).merge_and_unload(adapter_names=["second"])
    assert_close(tiny_profile(vlm), tiny_profile(with_model(vlm, second)))
    with vlm.model.disable_adapter():
        disabled_profile = tiny_profile(vlm)
    base = copy.deepcopy(vlm.model).unload()
    assert_close(disabled_profile, tiny_profile(with_model(vlm, base)))


def test_cached_readings_with_an_adapter_are_not_reused_without_it(tmp_path: Any) -> None:
    vlm = make_adapted(tiny_vlm(), **CONFIGS["head"], lora_alpha=64)
    adapted_profile = tiny_profile(vlm, cache=tmp_path)
    with vlm.model.disable_adapter():
        base_profile = tiny_profile(vlm, cache=tmp_path)
        assert have_same_numbers(base_profile, tiny_profile(vlm))
    assert any((adapted_profile[name] != base_profile[name]).any() for name in ("recall_5", "exit_agreement"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (peft.PromptTuningConfig, "a forward pass covered .* tokens, but the prompts have"),
        (peft.PrefixTuningConfig, "layer 1: attention covers .* tokens, but the prompts have"),
    ],
)
def test_an_adapter_that_adds_tokens_is_refused_with_a_remedy(config: Any, message: str) -> None:
    model = peft.get_peft_model(tiny_vlm().model, config(task_type="CAUSAL_LM", num_virtual_tokens=3)).eval()
    with pytest.raises(SelfCheckError, match=rf"{message} .*; the model adds tokens of its own, as prompt tuning"):
        tiny_profile(with_model(tiny_vlm(), model))


def test_parts_of_an_adapted_model_have_the_names_of_the_base_model() -> None:
    vlm = make_adapted(tiny_vlm(), target_modules=r".*layers\.[23].*(q|o)_proj")
    origin = tiny_vlm()
    change = weight_change(weight_parts(vlm), weight_parts(origin))
    assert (change.layers, change.same_layers, change.unshared) == ((3, 4), (1, 2), ())
    assert change.restructured == ("layer 3", "layer 4")
    assert hash_weights(vlm.model) != hash_weights(origin.model)
