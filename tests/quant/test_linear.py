from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from slmlab.quant import QuantizedLinear, quantize_tensor
from slmlab.quant.kernels import MOST_ROWS, PRECISION, reference


@pytest.mark.parametrize("name", ["int8", "int4-g32", "nf4-g64", "int3-g32-asym", "fp4-g64-dq"])
@pytest.mark.parametrize("bias", [True, False])
def test_many_rows_are_the_dequantised_product(name, bias) -> None:
    linear = nn.Linear(64, 96, bias=bias)
    layer = QuantizedLinear.from_linear(linear, name)
    x = torch.randn(3, MOST_ROWS, 64)
    wanted = functional.linear(x, quantize_tensor(linear.weight, name).dequantize(), linear.bias)
    assert torch.allclose(layer(x), wanted, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_few_rows_are_near_and_keep_their_dtype(dtype) -> None:
    layer = QuantizedLinear.from_linear(nn.Linear(64, 96), "int4-g32")
    x = torch.randn(2, 1, 64, dtype=dtype)
    weight = layer.weight.dequantize()
    assert layer.bias is not None
    wanted = functional.linear(x.float(), weight, layer.bias)
    got = layer(x)
    assert got.dtype == dtype and got.shape == (2, 1, 96)
    assert layer.kernel_nbytes > 0
    bound = x.float().abs() @ weight.abs().t() + layer.bias.abs()
    assert ((got.float() - wanted).abs() <= PRECISION * bound).all()
    layer.exact = True
    assert torch.allclose(layer(x.float()), wanted, atol=1e-5)


def test_gradients_go_through_to_the_input() -> None:
    layer = QuantizedLinear.from_linear(nn.Linear(64, 32), "nf4-g64")
    x = torch.randn(2, 64, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, layer.weight.dequantize().sum(0).expand(2, 64), atol=1e-5)


def test_the_stored_dtypes_survive_a_cast_of_the_model() -> None:
    layer = QuantizedLinear.from_linear(nn.Linear(64, 32), "int4-g32")
    before = layer.weight.dequantize()
    layer(torch.randn(1, 64))
    for dtype in (torch.bfloat16, torch.float64, torch.float16, torch.float32):
        layer.to(dtype)
        assert layer.scales.dtype == torch.float16
        assert layer.bias is not None and layer.bias.dtype == dtype
    assert torch.equal(layer.weight.dequantize(), before)


def test_a_copy_and_a_state_dict_hold_the_same_weight() -> None:
    layer = QuantizedLinear.from_linear(nn.Linear(64, 32), "int3-g32-asym")
    x = torch.randn(1, 64)
    wanted = layer(x)
    assert torch.equal(copy.deepcopy(layer)(x), wanted)
    other = QuantizedLinear.from_linear(nn.Linear(64, 32), "int3-g32-asym")
    other(x)  # its kernel is made from the weight that is about to be replaced
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), wanted)


@pytest.mark.parametrize("name", ["int8", "int8-asym", "int4-g32"])
def test_a_copy_has_a_kernel_of_its_own(name) -> None:
    layer, x = QuantizedLinear.from_linear(nn.Linear(64, 32), name), torch.randn(1, 64)
    wanted = layer(x)
    copied = copy.deepcopy(layer)
    layer.load_state_dict(QuantizedLinear.from_linear(nn.Linear(64, 32), name).state_dict())
    assert torch.equal(copied(x), wanted) and not torch.equal(layer(x), wanted)


@pytest.mark.parametrize("name", ["int4-g5", "int2-g5", "int3-g5", "nf4-g5", "int4-g32"])
def test_a_single_output(name) -> None:
    linear = nn.Linear(64, 1)
    layer, x = QuantizedLinear.from_linear(linear, name), torch.randn(2, 64)
    assert torch.allclose(layer(x) - linear.bias, reference(x, layer.weight), atol=2e-2)


def test_through_the_meta_device() -> None:
    layer = QuantizedLinear.from_linear(nn.Linear(64, 32), "int4-g32")
    state, empty = layer.state_dict(), copy.deepcopy(layer).to("meta").to_empty(device="cpu")
    assert empty.scales.dtype == torch.float16
    empty.load_state_dict(state)
    assert torch.equal(empty.weight.dequantize(), layer.weight.dequantize())


def test_nbytes_is_that_of_its_buffers_and_bias() -> None:
    layer = QuantizedLinear.from_linear(nn.Linear(64, 32), "nf4-g64-dq")
    assert layer.nbytes == sum(t.nbytes for t in layer.state_dict().values())
    assert layer.kernel_nbytes == 0


def test_no_rows_and_an_empty_batch() -> None:
    layer = QuantizedLinear.from_linear(nn.Linear(64, 32), "int4-g32")
    assert layer(torch.randn(0, 64)).shape == (0, 32)
    assert layer(torch.randn(64)).shape == (32,)


def test_refusals() -> None:
    layer = QuantizedLinear.from_linear(nn.Linear(8, 8), "int8")
    with pytest.raises(ValueError, match="quantised already \\(int8\\)"):
        QuantizedLinear.from_linear(layer, "int8")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"must be an nn\.Linear"):
        QuantizedLinear.from_linear(nn.Conv1d(1, 1, 1), "int8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"bias must have shape \(out,\) = \(8,\), not \(1,\)"):
        QuantizedLinear(layer.weight, torch.ones(1))
    with pytest.raises(TypeError, match="QuantizedTensor"):
        QuantizedLinear(torch.ones(2, 2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shape \(1, 9\), this layer takes \(\.\.\., 8\)"):
        layer(torch.ones(1, 9))
