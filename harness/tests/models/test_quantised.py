"""Quantised layers give the readings of the dequantised model, up to the rounding of their inputs."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.judgement.weights import weight_change, weight_parts
from harness.models.anatomy import find_anatomy
from harness.models.registry import find_model
from harness.models.vlm import Vlm, load_vlm
from harness.probe.last_token import linear_map
from harness.profile.profile import Profile
from harness.tests.support.saved_weights import hash_weights
from harness.tests.support.tiny import have_same_numbers, tiny_profile, tiny_vlm

pytestmark = pytest.mark.usefixtures("tiny_data")
# Number of rows of a head that 4-bit CPU kernels accept: complete blocks.
ENTRIES = 384
CHANGED = ("language_model.layers", "lm_head")


def make_wide_vlm() -> Vlm:
    """A model whose decoder layers are as wide as a block of 4-bit codes, with a head of whole blocks."""
    vlm = tiny_vlm(width=64)
    head = nn.Linear(64, ENTRIES, bias=False)
    head.weight.requires_grad_(False).zero_()[: len(vlm.model.lm_head.weight)] = vlm.model.lm_head.weight
    vlm.model.lm_head = head
    return with_anatomy(vlm)


def with_anatomy(vlm: Vlm) -> Vlm:
    return Vlm(vlm.name, vlm.model, vlm.processor, find_anatomy(vlm.model))


def replace_layers(vlm: Vlm, make: Callable[[nn.Linear, Any], nn.Module], like: Any = None) -> Vlm:
    """Return the model with the linear layers of its decoder and head replaced."""
    others = dict((like or vlm.model).named_modules())
    for name, layer in list(vlm.model.named_modules()):
        if isinstance(layer, nn.Linear) and any(part in name for part in CHANGED):
            owner, _, child = name.rpartition(".")
            setattr(vlm.model.get_submodule(owner), child, make(layer, others[name]))
    return with_anatomy(vlm)


def to_8_bits(layer: nn.Linear, _: Any = None) -> nn.Module:
    import bitsandbytes

    quantised = bitsandbytes.nn.Linear8bitLt(
        layer.in_features, layer.out_features, bias=layer.bias is not None, has_fp16_weights=False
    )
    quantised.load_state_dict(layer.state_dict())
    return quantised.to("cpu").eval().requires_grad_(False)


def to_4_bits(layer: nn.Linear, _: Any = None) -> nn.Module:
    import bitsandbytes

    quantised = bitsandbytes.nn.Linear4bit(
        layer.in_features, layer.out_features, bias=layer.bias is not None, quant_type="nf4", compress_statistics=False
    )
    quantised.load_state_dict(layer.state_dict())
    return quantised.to("cpu").eval().requires_grad_(False)


def dequantise(layer: nn.Linear, quantised: Any) -> nn.Linear:
    """Return the plain layer with dequantised weights, read from the layer's state dict."""
    import bitsandbytes

    plain, saved = copy.deepcopy(layer), quantised.state_dict()
    if "SCB" in saved:
        plain.weight.copy_(saved["weight"].float() * saved["SCB"].view(-1, 1) / 127)
    else:
        plain.weight.copy_(bitsandbytes.functional.dequantize_4bit(saved["weight"], quantised.weight.quant_state))
    return plain


@pytest.fixture
def quantise(request: pytest.FixtureRequest) -> Callable[[nn.Linear, Any], nn.Module]:
    pytest.importorskip("bitsandbytes", reason="8 and 4 bit need bitsandbytes: pip install bitsandbytes")
    peft_model: Callable[[nn.Linear, Any], nn.Module] = {8: to_8_bits, 4: to_4_bits}[request.param]
    return peft_model


def assert_near(first: Profile, second: Profile) -> None:
    """Assert equality up to the error of 8-bit inputs and 16-bit sums."""
    np.testing.assert_allclose(first["inter"], second["inter"], atol=2e-2)
    np.testing.assert_allclose(first["norm_image"], second["norm_image"], atol=5e-2)
    assert np.abs(first["norm_image"] - second["norm_image"]).mean() < 1e-2
    np.testing.assert_allclose(first["recall_5"].mean(0), second["recall_5"].mean(0), atol=0.15)


@pytest.mark.parametrize("quantise", [8, 4], indirect=True)
def test_quantised_layers_and_head_are_measured(quantise: Callable[[nn.Linear, Any], nn.Module]) -> None:
    vlm = replace_layers(make_wide_vlm(), quantise)
    # Dequantise before the first pass: there, 4-bit layers on a CPU change to a layout that they cannot save exactly.
    full = replace_layers(make_wide_vlm(), dequantise, vlm.model)
    profile = tiny_profile(vlm)
    assert vlm.anatomy.vocabulary_size == ENTRIES
    assert profile["exit_agreement"][:, -1].all()
    assert profile.environment.dtype == "float32"
    assert_near(profile, tiny_profile(full))
    # A run does not change the hash, so a second run reuses the cached readings.
    assert profile.weights == hash_weights(vlm.model) == tiny_profile(vlm).weights


def add_adapters(vlm: Vlm, kind: str = "") -> Any:
    """Return the model of PEFT with random adapters of all linear layers, the same each time."""
    import peft

    if kind:
        setattr(vlm.model, kind, True)
    peft_model = peft.get_peft_model(vlm.model, peft.LoraConfig(r=4, target_modules="all-linear"))
    generator = torch.Generator().manual_seed(0)
    for name, weight in sorted(peft_model.named_parameters()):
        if "lora_" in name:
            weight.requires_grad_(False).copy_(0.2 * torch.randn(weight.shape, generator=generator))
    return peft_model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quantise", "kind"), [(8, "is_loaded_in_8bit"), (4, "is_loaded_in_4bit")], indirect=["quantise"], ids=["8", "4"]
)
@pytest.mark.filterwarnings("ignore::FutureWarning:transformers", "ignore::UserWarning:peft")
def test_adapters_of_quantised_layers_are_measured(quantise: Callable[[nn.Linear, Any], nn.Module], kind: str) -> None:
    pytest.importorskip("peft", reason="adapters need PEFT: pip install peft")
    vlm = replace_layers(make_wide_vlm(), quantise)
    full = replace_layers(make_wide_vlm(), dequantise, vlm.model)
    bare = tiny_profile(full)
    model, merged = add_adapters(vlm, kind).base_model.model, add_adapters(full).merge_and_unload()
    profile, exact = (tiny_profile(replace(vlm, model=m, anatomy=find_anatomy(m))) for m in (model, merged))
    assert profile["exit_agreement"][:, -1].all()
    for measure in ("inter", "norm_image"):
        change = np.abs(exact[measure] - bare[measure]).mean()
        assert np.abs(profile[measure] - exact[measure]).mean() < 0.1 * change


@pytest.mark.parametrize("quantise", [8, 4], indirect=True)
def test_the_map_of_a_quantised_layer_is_that_of_its_dequantised_weights(
    quantise: Callable[[nn.Linear, Any], nn.Module],
) -> None:
    layer = nn.Linear(64, 96).requires_grad_(False)
    quantised = quantise(layer, None)
    exact = dequantise(layer, quantised)
    readings = linear_map(quantised, torch.zeros(3, 64))
    assert readings.bias is not None
    torch.testing.assert_close(readings.weight, exact.weight, rtol=8e-3, atol=1e-4)
    torch.testing.assert_close(readings.bias, exact.bias, rtol=8e-3, atol=1e-4)


@pytest.mark.parametrize("quantise", [8, 4], indirect=True)
def test_a_changed_scale_changes_the_hashes(quantise: Callable[[nn.Linear, Any], nn.Module]) -> None:
    vlm = replace_layers(make_wide_vlm(), quantise)
    before, parts = hash_weights(vlm.model), weight_parts(vlm)
    assert weight_change(weight_parts(vlm), parts).describe() == "weights are the same"
    layer: Any = vlm.anatomy.layers[1].mlp.up_proj
    scales = layer.weight.SCB if hasattr(layer.weight, "SCB") else layer.weight.quant_state.absmax
    scales *= 1.5
    assert hash_weights(vlm.model) != before
    assert weight_change(weight_parts(vlm), parts).layers == (2,)


@pytest.mark.parametrize("width", [8, 4])
def test_a_saved_quantised_model_is_measured_as_in_memory(tmp_path: Path, width: int) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="8 and 4 bit need bitsandbytes")
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    full = tiny_vlm(width=64)
    full.model.save_pretrained(tmp_path / "full")
    config = BitsAndBytesConfig(
        **{f"load_in_{width}bit": True},
        llm_int8_skip_modules=["lm_head", "model.vision_tower", "model.multi_modal_projector"],
    )
    model = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "full", dtype=torch.float32, quantization_config=config
    ).eval()
    kinds = {type(module) for module in model.modules()}
    assert kinds & {bitsandbytes.nn.Linear8bitLt, bitsandbytes.nn.Linear4bit}
    # Dequantise before the first pass: there, 4-bit layers on a CPU change to a layout that they cannot save exactly.
    model.save_pretrained(tmp_path / "saved")
    full.processor.save_pretrained(tmp_path / "saved")
    memory = tiny_profile(Vlm("tiny", model, full.processor, find_anatomy(model)))
    loaded = load_vlm(find_model(str(tmp_path / "saved")), cache=tmp_path, device="cpu")
    # The checkpoint's processor comes back with the same settings, so the inputs are the same.
    assert have_same_numbers(tiny_profile(loaded), memory)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_dynamic_8_bit_layers_are_measured() -> None:
    quantize = getattr(getattr(torch.ao, "quantization", None), "quantize_dynamic", None)
    if quantize is None:
        pytest.skip("this release of torch has no dynamic quantisation of its own")
    vlm = make_wide_vlm()
    model = quantize(vlm.model, {nn.Linear}, dtype=torch.qint8)
    profile = tiny_profile(Vlm("tiny", model, vlm.processor, find_anatomy(model)))
    assert profile["exit_agreement"][:, -1].all()

    def plain(layer: nn.Linear, quantised: Any) -> nn.Linear:
        layer.weight.copy_(quantised.weight().dequantize())
        return layer

    second = tiny_profile(replace_layers(make_wide_vlm(), plain, model))
    assert np.abs(profile["inter"] - second["inter"]).max() < 5e-2
    assert np.abs(profile["norm_image"] - second["norm_image"]).mean() < 5e-2


def test_a_quantised_layer_that_does_not_run_is_named_with_the_way_out() -> None:
    pytest.importorskip("bitsandbytes", reason="8 bit needs bitsandbytes")
    vlm = tiny_vlm()
    vlm.model.lm_head = to_8_bits(vlm.model.lm_head)
    vlm.model.lm_head.weight = vlm.model.model.language_model.embed_tokens.weight
    expected = (
        r"Linear8bitLt takes the place of a linear layer but does not map vectors of 32 numbers "
        r"\(AttributeError: .*\); "
    )
    with pytest.raises(Exception, match=expected + re.escape("dequantise the model or merge the adapter")):
        tiny_profile(with_anatomy(vlm))
