"""Products with 16-bit weights have float32 precision and need no float32 copy of the weight."""

from __future__ import annotations

import pytest
import torch

from harness.lab.cost.race import peak_bytes
from harness.probe.precision import product_blocks, split_product, wide_product


@pytest.mark.parametrize("with_onednn", [True, False])
@pytest.mark.parametrize("shape", [(2, 3), (40,), (5, 7), (0,)], ids=["few", "many", "table", "none"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_wide_product_has_at_least_float32_precision(
    dtype: torch.dtype, shape: tuple[int, ...], with_onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not with_onednn:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1300, 40, generator=generator).to(dtype)
    vectors = torch.randn(*shape, 40, generator=generator)
    expected = vectors.double() @ weight.double().T
    product = wide_product(vectors, weight)
    assert product.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(product.double(), expected, rtol=1e-5, atol=1e-5)
    blocks = [*product_blocks(vectors, weight)]
    torch.testing.assert_close(torch.cat(blocks, dim=-1).double(), expected, rtol=1e-5, atol=1e-5)


def test_a_transposed_weight_gives_the_same_product() -> None:
    """The weight of a layer that is read by projecting unit vectors is a transposed matrix."""
    generator = torch.Generator().manual_seed(2)
    weight, vectors = torch.randn(30, 20, generator=generator), torch.randn(4, 30, generator=generator)
    torch.testing.assert_close(wide_product(vectors, weight.T), vectors @ weight, rtol=1e-5, atol=1e-5)


def test_the_wide_product_copies_a_part_of_the_weight_at_a_time() -> None:
    weight, vectors = torch.zeros(8192, 256, dtype=torch.bfloat16), torch.zeros(1, 256)
    peak, product = peak_bytes(lambda: wide_product(vectors, weight), torch.device("cpu"))
    assert product.shape == (1, 8192)
    assert peak < weight.numel() * 4 / 8


def test_the_split_product_is_that_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU's matrix product with 16-bit parts and 32-bit sums is simulated with float32 parts."""
    real = torch.mm
    monkeypatch.setattr(torch, "mm", lambda x, y, out_dtype: real(x.to(out_dtype), y.to(out_dtype)))
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(6, 64, generator=generator).bfloat16()
    values = torch.randn(2, 5, 64, generator=generator)
    expected = values @ weight.float().T
    assert float((split_product(values, weight) - expected).abs().max()) < 1e-3 * 2**-5 * float(expected.abs().max())
