"""A model dispatched over devices, here partly to disk, is measured like one on a single device."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate import dispatch_model

from harness.models.vlm import Vlm
from harness.tests.support.tiny import largest_difference, tiny_profile

pytestmark = pytest.mark.usefixtures("tiny_data")


def test_layers_on_the_disk_change_nothing(vlm: Vlm, fresh_vlm: Vlm, tmp_path: Path) -> None:
    """The output projection's weight is on the meta device while its layer does not run."""
    single = tiny_profile(vlm, controls=("noise", "blank"))
    devices = {name: "cpu" for name, _ in fresh_vlm.model.named_children() if name != "model"}
    inner = fresh_vlm.model.model
    devices |= {f"model.{name}": "cpu" for name, _ in inner.named_children() if name != "language_model"}
    devices |= {f"model.language_model.{name}": "cpu" for name in ("embed_tokens", "norm", "rotary_emb")}
    devices |= {f"model.language_model.layers.{k}": ("cpu", "disk")[k % 2] for k in range(fresh_vlm.anatomy.depth)}
    dispatch_model(fresh_vlm.model, devices, main_device="cpu", offload_dir=tmp_path, force_hooks=True)
    assert any(parameter.is_meta for parameter in fresh_vlm.model.parameters())
    spread = tiny_profile(fresh_vlm, controls=("noise", "blank"))
    assert largest_difference(single, spread) < 1e-6
    for control, curves in single.controls.items():
        for name, curve in curves.items():
            assert abs(curve - spread.controls[control][name]).max() < 1e-6
