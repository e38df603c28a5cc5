"""The layouts of the CUDA products on a CPU, and the products where there is a GPU."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from torch._subclasses.fake_tensor import FakeTensorMode

from slmlab.quant import cuda_kernels, quantize_tensor
from slmlab.quant.cuda_kernels import (
    bitsandbytes_kernel,
    bitsandbytes_layout,
    choose_cuda_kernel,
    high_nibble_first,
    int4pack_kernel,
    works,
)
from slmlab.quant.kernels import PRECISION, choose_kernel, int4_operands, reference
from tests.quant.test_kernels import terms

CODEBOOKS = pytest.mark.parametrize("name", ["nf4-g64", "fp4-g32", "nf4-g128-dq"])


@CODEBOOKS
def test_bitsandbytes_reads_its_layout(name: str) -> None:
    weight = quantize_tensor(torch.randn(48, 384), name)
    assert torch.equal(dequantize_4bit(*bitsandbytes_layout(weight)), weight.dequantize())


@CODEBOOKS
@pytest.mark.parametrize("rows", [1, 2, 32])
def test_bitsandbytes_multiplies_it(name: str, rows: int) -> None:
    weight, x = quantize_tensor(torch.randn(48, 384), name), torch.randn(rows, 384)
    product = bitsandbytes_kernel(weight).multiply(x.bfloat16()).float()
    assert ((product - reference(x, weight)).abs() <= PRECISION * terms(x, weight)).all()


def test_the_even_column_lies_in_the_high_nibble() -> None:
    assert high_nibble_first(torch.tensor([[1, 2, 15, 0]])).tolist() == [[0x12, 0xF0]]


@pytest.mark.parametrize("name", ["int4-g32", "int4-g64-asym", "int3-g128", "int2-g32-asym"])
def test_int4_operands_are_the_weight(name: str) -> None:
    weight = quantize_tensor(torch.randn(16, 256), name)
    group = weight.scheme.group_size
    assert group is not None
    codes, scales_and_zeros = int4_operands(weight, group)
    assert codes.min() >= 0 and codes.max() <= 15
    scales, zeros = scales_and_zeros.float().repeat_interleave(group, 0).permute(2, 1, 0)
    got = (codes - 8) * scales + zeros
    assert ((got - weight.dequantize()).abs() <= 2.0**-8 * (8 * scales + zeros.abs())).all()


@pytest.mark.parametrize("name", ["int4-g32", "int4-g64-asym", "int8-g32"])
def test_torch_takes_the_operands(name: str) -> None:
    """By their shapes and dtypes, with tensors that hold no numbers."""
    real = quantize_tensor(torch.randn(64, 256), name)
    with FakeTensorMode():
        parts: dict[str, Any] = {
            field: torch.empty(tensor.shape, dtype=tensor.dtype)
            for field in ("packed", "stored_scales", "stored_zero_points")
            if (tensor := getattr(real, field)) is not None
        }
        weight = dataclasses.replace(real, **parts)
        x = torch.empty(3, 256, dtype=torch.bfloat16)
        y = int4pack_kernel(weight).multiply(x)
    assert y.shape == (3, 64)


def test_a_product_that_fails_or_differs_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    # A CPU has no _weight_int4pack_mm: the trial fails there.
    assert choose_cuda_kernel(quantize_tensor(torch.randn(64, 256), "int4-g32")) is None
    nf4 = quantize_tensor(torch.randn(64, 256), "nf4-g64")
    works.cache_clear()
    assert choose_cuda_kernel(nf4) is not None
    right = cuda_kernels.high_nibble_first
    monkeypatch.setattr(cuda_kernels, "high_nibble_first", lambda codes: right(codes.flip(1)))
    works.cache_clear()
    assert choose_cuda_kernel(nf4) is None
    works.cache_clear()


@pytest.mark.parametrize(
    "name",
    ["nf4-g16", "nf4-g96", "fp4-g512", "int4-g48", "int4-g32", "int8", "int8-asym"],
)
def test_what_a_library_cannot_take(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_kernels, "works", lambda *_: True)
    rows = 60 if name == "int4-g32" else 64
    assert choose_cuda_kernel(quantize_tensor(torch.randn(rows, 384), name)) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("shape", [(64, 128), (1024, 384), (96, 1024)])
@pytest.mark.parametrize(
    "name",
    [
        "int4-g32",
        "int4-g64-asym",
        "int4-g128",
        "int4-g256-asym",
        "int4-row",
        "int3-g32-asym",
        "int2-g32",
        "int8-g32",
        "nf4-g64",
        "nf4-g64-dq",
        "fp4-g32",
    ],
)
def test_products_on_a_gpu(name: str, shape: tuple[int, int]) -> None:
    if shape[1] % (quantize_tensor(torch.ones(1, shape[1]), name).scheme.group_size or 1):
        pytest.skip("groups do not divide the rows")
    weight = quantize_tensor(torch.randn(shape, device="cuda"), name)
    kernel = choose_kernel(weight)
    assert kernel is not None
    for rows in (1, 2, 5, 32):
        x = torch.randn(rows, shape[1], device="cuda")
        error = (kernel.multiply(x.bfloat16()).float() - reference(x, weight)).abs()
        assert (error <= PRECISION * terms(x, weight)).all()
