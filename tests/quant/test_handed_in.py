"""Codes and scales that another method chose or a file holds: checked before they are kept."""

from __future__ import annotations

import math

import pytest
import torch

from slmlab.quant import QuantizedTensor, quantize_tensor


def test_bad_codes() -> None:
    codes, scales = torch.full((2, 8), -8, dtype=torch.int8), torch.ones(2, 1)
    with pytest.raises(ValueError, match="int4-row has -7 to 7"):
        QuantizedTensor.from_codes(codes, scales, None, "int4-row")
    codes += 1
    with pytest.raises(ValueError, match=r"scales must have shape .*\(2, 2\)"):
        QuantizedTensor.from_codes(codes, scales, None, "int4-g4")
    with pytest.raises(ValueError, match="scales must lie in 0"):
        QuantizedTensor.from_codes(codes, scales * math.nan, None, "int4-row")
    with pytest.raises(ValueError, match="zero_points must be int8 of shape"):
        QuantizedTensor.from_codes(codes, scales, None, "int4-g8-asym")
    with pytest.raises(ValueError, match="zero_points must be None"):
        QuantizedTensor.from_codes(codes, scales, scales, "int4-row")
    with pytest.raises(TypeError, match="int8 tensor"):
        QuantizedTensor.from_codes(codes.int(), scales, None, "int4-row")
    with pytest.raises(TypeError, match="scales must be a floating-point tensor, not list"):
        QuantizedTensor.from_codes(codes, [[1.0], [1.0]], None, "int4-row")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("zero_points", "error", "message"),
    [
        (torch.full((2, 1), 12, dtype=torch.int8), ValueError, "run from 12 to 12, .* -8 to 7"),
        (torch.full((2, 1), 200, dtype=torch.uint8), TypeError, r"int8 tensor, not torch\.uint8"),
        (torch.full((2, 1), 2.7), TypeError, r"int8 tensor, not torch\.float32"),
        ([[0], [0]], TypeError, "int8 tensor, not list"),
        (torch.zeros(2, 2, dtype=torch.int8), ValueError, r"must have shape \(2, 1\)"),
    ],
)
def test_bad_zero_points(zero_points, error, message) -> None:
    codes = torch.zeros(2, 8, dtype=torch.int8)
    with pytest.raises(error, match=f"zero_points .*{message}"):
        QuantizedTensor.from_codes(codes, torch.ones(2, 1), zero_points, "int4-g8-asym")


@pytest.mark.parametrize(("name", "smallest"), [("int8", 1e-9), ("nf4-g8", 1e-60)])
def test_scales_that_would_be_stored_as_zero(name, smallest) -> None:
    codes, scales = torch.zeros(2, 8, dtype=torch.int8), torch.ones(2, 1, dtype=torch.float64)
    scales[1] = smallest
    with pytest.raises(ValueError, match=f"scales go down to {smallest:g}"):
        QuantizedTensor.from_codes(codes, scales, None, name)


@pytest.mark.parametrize("name", ["int8", "nf4-g8", "nf4-g8-dq"])
def test_scales_are_stored_without_their_gradients(name) -> None:
    scales = torch.ones(2, 1, requires_grad=True)
    q = QuantizedTensor.from_codes(torch.zeros(2, 8, dtype=torch.int8), scales, None, name)
    assert not any(part.requires_grad for part in q.stored().values())


@pytest.mark.parametrize("name", ["int8", "nf4-g8", "nf4-g8-dq"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_stored_scales_are_finite_and_not_negative(name, value) -> None:
    parts = quantize_tensor(torch.randn(2, 8), name).stored()
    scales = parts["absmax_blocks" if name.endswith("dq") else "scales"]
    scales[0] = value
    with pytest.raises(ValueError, match="holds negative numbers, NaN or infinity"):
        QuantizedTensor.from_stored(parts, (2, 8), name)
