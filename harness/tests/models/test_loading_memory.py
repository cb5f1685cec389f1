"""Loading a checkpoint holds its weights once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.tests.support.saved_checkpoints import save_tiny_checkpoint
from harness.tests.support.tiny import tiny_vlm

# Loads a tiny checkpoint first, so that the libraries are in memory before the large one.
PROGRAM = """
import resource, sys
from pathlib import Path
import harness
peaks = []
for source in sys.argv[1:]:
    vlm = harness.Vlm.load(source, device="cpu", dtype="bf16", cache=Path(source))
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)
weights = sum(parameter.nbytes for parameter in vlm.model.parameters())
print(weights, peaks[1] - peaks[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the unit of the peak is that of Linux")
@pytest.mark.parametrize("shard", ["5GB", "200MB"])
def test_the_peak_of_loading_is_near_the_size_of_the_weights(shard: str, tmp_path: Path) -> None:
    save_tiny_checkpoint(tmp_path / "tiny")
    vlm = tiny_vlm(layers=12, width=2048, dtype=torch.bfloat16)
    vlm.model.save_pretrained(tmp_path / "large", max_shard_size=shard)
    vlm.processor.save_pretrained(tmp_path / "large")
    assert (tmp_path / "large" / "model.safetensors").exists() == (shard == "5GB")
    assert json.loads((tmp_path / "large" / "config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16"
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "tiny"), str(tmp_path / "large")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    weights, peak = map(int, result.stdout.split())
    assert weights > 900e6
    assert peak <= 1.3 * weights
