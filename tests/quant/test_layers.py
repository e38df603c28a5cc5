"""What every layer of this room does with its inputs, its dtypes and its gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slmlab.quant import QuantizedLinear
from slmlab.quant.outliers import OutlierLinear
from slmlab.quant.smoothquant import W8A8Linear

COLUMNS = torch.tensor([3, 17])


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(64, 32).requires_grad_(False)


def int8() -> QuantizedLinear:
    return QuantizedLinear.from_linear(linear(), "int8")


LAYERS = {
    "weight only": int8,
    "dynamic": lambda: W8A8Linear(int8()),
    "static": lambda: W8A8Linear(int8(), torch.tensor(4 / 127)),
    "split": lambda: OutlierLinear.from_linear(linear(), COLUMNS),
    "split, integers": lambda: OutlierLinear.from_linear(linear(), COLUMNS, "int8", True),
}
EVERY = pytest.mark.parametrize("kind", list(LAYERS))


@EVERY
@pytest.mark.parametrize("rows", [2, 40])
@pytest.mark.parametrize("kind_of", [torch.int64, torch.bool, torch.complex64])
def test_only_floats_are_multiplied(kind: str, rows: int, kind_of: torch.dtype) -> None:
    with pytest.raises(TypeError, match=f"floating-point tensor, not {kind_of}"):
        LAYERS[kind]()(torch.ones(rows, 64, dtype=kind_of))


@EVERY
def test_shapes(kind: str) -> None:
    layer: Any = LAYERS[kind]()
    x = torch.randn(2, 3, 64)
    assert layer(x).shape == (2, 3, 32)
    assert layer(x[:0]).shape == (0, 3, 32)
    torch.testing.assert_close(layer(x[0, 0]), layer(x)[0, 0], rtol=1e-2, atol=1e-2)
    for wrong in (torch.randn(2, 63), torch.randn(2, 65), torch.tensor(1.0)):
        with pytest.raises(ValueError, match=r"this layer takes \(\.\.\., 64\)"):
            layer(wrong)
    with pytest.raises(TypeError, match="not list"):
        layer([1.0] * 64)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_is_stored_keeps_its_dtype(kind: str, dtype: torch.dtype) -> None:
    layer = LAYERS[kind]()
    moved = copy.deepcopy(layer).to(dtype).float()
    stored = dict(layer.named_buffers())
    assert stored and all(torch.equal(stored[name], b) for name, b in moved.named_buffers())


@EVERY
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_inputs_are_not_hidden(kind: str, value: float) -> None:
    x = torch.randn(3, 64)
    x[1, 20] = value
    y = LAYERS[kind]()(x)
    assert y[[0, 2]].isfinite().all() and not y[1].isfinite().any()


@EVERY
def test_gradients_are_those_of_the_weight(kind: str) -> None:
    layer: Any = LAYERS[kind]()
    x = torch.randn(40, 64)
    with torch.no_grad():
        plain = layer(x)
    x.requires_grad_(True)
    y = layer(x)
    torch.testing.assert_close(y, plain, rtol=1e-3, atol=1e-4)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    want: Tensor = (
        layer.dequantize() if hasattr(layer, "dequantize") else int8().weight.dequantize()
    )
    torch.testing.assert_close(gradient, want.sum(0).expand(40, 64), rtol=1e-4, atol=1e-4)
