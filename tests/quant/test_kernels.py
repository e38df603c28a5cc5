"""Every product agrees with dequantise-and-multiply within what it states."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from slmlab.quant import quantize_tensor
from slmlab.quant.kernels import PRECISION, choose_kernel, reference
from slmlab.quant.tensor import QuantizedTensor

INT8, INT4 = "aten._weight_int8pack_mm", "aten._weight_int4pack_mm_for_cpu"
BNB = "bitsandbytes.gemv_4bit"


def terms(x: Tensor, weight: QuantizedTensor) -> Tensor:
    """Sum of the magnitudes of what a product adds up, as kernels.py defines it."""
    scheme, columns = weight.scheme, weight.shape[1]
    size = scheme.group_size or columns

    def spread(per_group: Tensor) -> Tensor:
        return per_group.float().repeat_interleave(size, 1)[:, :columns]

    if scheme.codebook:
        magnitudes = weight.dequantize().abs()
    else:
        codes = weight.codes.float().abs()
        if weight.zero_points is not None:
            codes += spread(weight.zero_points).abs()
        if scheme.code_bits == 8 and scheme.group_size:
            codes += 16
        magnitudes = codes * spread(weight.scales)
    return x.abs() @ magnitudes.t()


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("int8", INT8),
        ("int8-asym", INT8),
        ("int8-g32", INT4),
        ("int8-g96", INT4),
        ("int4-row", INT4),
        ("int4-g32", INT4),
        ("int4-g64-asym", INT4),
        ("int4-g96-asym", INT4),
        ("int4-g256", INT4),
        ("int3-g32", INT4),
        ("int2-g128-asym", INT4),
        ("nf4-g64", BNB),
        ("nf4-g128-dq", BNB),
        ("fp4-g32", BNB),
    ],
)
@pytest.mark.parametrize("offset", [0.0, 0.05])
def test_a_kernel_agrees_with_the_reference(name, kernel, offset) -> None:
    weight = quantize_tensor(0.02 * torch.randn(96, 256) + offset, name)
    chosen = choose_kernel(weight)
    if kernel == BNB and chosen is None:
        pytest.skip("bitsandbytes has no 4-bit product for this processor")
    assert chosen is not None and chosen.name == kernel
    for rows in (1, 2, 5, 32):
        x = torch.randn(rows, 256) * torch.tensor([1.0, 1.0, 30.0, 0.01]).repeat(64)
        error = (chosen.multiply(x.bfloat16()).float() - reference(x, weight)).abs()
        assert (error <= PRECISION * terms(x, weight)).all()


@pytest.mark.parametrize(
    "name", ["int8", "int8-asym", "int4-g32", "int3-row", "nf4-g32", "int8-g8"]
)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 33), (48, 100), (17, 64), (64, 172)])
def test_a_shape_that_a_library_cannot_take_is_left_to_the_reference(name, rows, columns) -> None:
    # torch's int8 product reads past such rows, bitsandbytes' divides by zero in such groups.
    weight = quantize_tensor(torch.randn(rows, columns), name)
    chosen = choose_kernel(weight)
    x = torch.randn(3, columns)
    if chosen is not None:
        error = (chosen.multiply(x.bfloat16()).float() - reference(x, weight)).abs()
        assert (error <= PRECISION * terms(x, weight)).all()
    else:
        assert columns % 32 or rows % 16 or name == "int8-g8"


def test_the_reference_multiplies_block_by_block(monkeypatch) -> None:
    weight = quantize_tensor(torch.randn(50, 96), "int4-g32-asym")
    x = torch.randn(4, 96)
    monkeypatch.setattr("slmlab.quant.kernels._BLOCK", 96 * 7)
    assert torch.allclose(reference(x, weight), x @ weight.dequantize().t(), atol=1e-5)
    half = reference(x.bfloat16(), weight)
    assert half.dtype == torch.bfloat16


def test_only_copies_count_as_held_beside_the_weight() -> None:
    int8 = quantize_tensor(torch.randn(64, 256), "int8")
    as_stored = choose_kernel(int8)
    laid_out = choose_kernel(quantize_tensor(torch.randn(64, 256), "int4-g32"))
    assert as_stored is not None and as_stored.nbytes < 0.03 * int8.nbytes
    assert laid_out is not None and laid_out.nbytes == 64 * 256 // 2 + 64 * 8 * 2 * 2
