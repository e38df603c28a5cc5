"""GPTQ against the textbook form of its update, its limiting cases, and its refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from slmlab.quant import quantize_model
from slmlab.quant.gptq import BLOCK_COLUMNS, gptq_quantize, inverse_factor
from slmlab.quant.grid import from_codes, scales_and_zero_points, to_codes
from slmlab.quant.scheme import parse_scheme
from slmlab.quant.tensor import quantize_tensor
from tests.quant.small_models import decoder

INTEGERS = (
    "int8",
    "int8-asym",
    "int4-row",
    "int4-g8",
    "int4-g8-asym",
    "int3-row",
    "int3-g8",
    "int3-g8-asym",
    "int2-row",
    "int2-g8",
    "int2-g8-asym",
)
CODEBOOKS = ("nf4-g8", "fp4-g8", "nf4-g8-dq")
seeds = st.integers(0, 10_000)


def weight(seed: int, rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.1


def correlated(seed: int, columns: int, tokens: int = 400) -> Tensor:
    """Second moment of inputs whose channels share a few directions and differ in size."""
    random = torch.Generator().manual_seed(seed + 1)
    hidden = torch.randn(tokens, 3, generator=random) @ torch.randn(3, columns, generator=random)
    x = hidden + 0.5 * torch.randn(tokens, columns, generator=random)
    x = x * (0.2 + 2 * torch.rand(columns, generator=random))
    return x.T @ x / tokens


def output_error(delta: Tensor, hessian: Tensor) -> float:
    return float(torch.einsum("oi,ij,oj->", delta, hessian, delta))


def textbook(w: Tensor, hessian: Tensor, name: str, damping: float, act_order: bool) -> Tensor:
    """Equations 2 and 3 of the paper as they stand: one inverse, struck down column by column."""
    scheme = parse_scheme(name)
    size = scheme.group_size or w.shape[1]
    scales, zero_points = scales_and_zero_points(w, scheme)
    stored = quantize_tensor(w, scheme).scales.double()
    h = hessian.double()
    h = h + damping * h.diagonal().mean() * torch.eye(len(h), dtype=torch.float64)
    inverse = torch.linalg.inv(h)
    left = w.double().clone()
    codes = torch.zeros(w.shape, dtype=torch.int8)
    order = hessian.diagonal().argsort(descending=True, stable=True)
    for i in (order if act_order else torch.arange(w.shape[1])).tolist():
        g = slice(i // size, i // size + 1)
        zero_point = None if zero_points is None else zero_points[:, g]
        codes[:, i : i + 1] = to_codes(left[:, i : i + 1], scales[:, g], zero_point, scheme)
        rounded = from_codes(codes[:, i : i + 1], stored[:, g].float(), zero_point, scheme)
        error = (left[:, i] - rounded[:, 0].double()) / inverse[i, i]
        left -= torch.outer(error, inverse[i])
        # Equation 3: strike row and column i from H before it is inverted again.
        inverse = inverse - torch.outer(inverse[:, i], inverse[i]) / inverse[i, i]
        inverse[i, :] = inverse[:, i] = 0
        inverse[i, i] = 1
    return codes


@pytest.mark.parametrize("act_order", (True, False))
@pytest.mark.parametrize("scheme", (*INTEGERS, *CODEBOOKS))
def test_codes_of_the_textbook_form(scheme: str, act_order: bool) -> None:
    w, hessian = weight(3, 6, 40), correlated(3, 40)
    got = gptq_quantize(w, hessian, scheme, act_order=act_order)
    want = textbook(w, hessian, scheme, 0.01, act_order)
    # A value on the edge between two codes may fall either way in float32 and float64.
    assert (got.codes == want).float().mean() > 0.98
    assert (got.codes != quantize_tensor(w, scheme).codes).any()


@pytest.mark.parametrize("act_order", (True, False))
@pytest.mark.parametrize("scheme", (*INTEGERS, *CODEBOOKS))
def test_identity_hessian_is_rounding_to_nearest(scheme: str, act_order: bool) -> None:
    w = weight(5, 7, 45)
    nearest = quantize_tensor(w, scheme)
    for hessian in (torch.eye(45), torch.diag(torch.rand(45) + 0.1)):
        got = gptq_quantize(w, hessian, scheme, act_order=act_order)
        assert torch.equal(got.codes, nearest.codes)
        assert torch.equal(got.dequantize(), nearest.dequantize())
        assert got.nbytes == nearest.nbytes


@given(seed=seeds, scheme=st.sampled_from(INTEGERS), columns=st.integers(8, 48))
def test_output_error_shrinks(seed: int, scheme: str, columns: int) -> None:
    w, hessian = weight(seed, 24, columns), correlated(seed, columns)
    nearest = output_error(quantize_tensor(w, scheme).dequantize() - w, hessian)
    got = output_error(gptq_quantize(w, hessian, scheme).dequantize() - w, hessian)
    assert got < nearest


@given(seed=seeds, factor=st.sampled_from((0.25, 2.0, 1024.0)))
def test_a_multiple_of_the_hessian_gives_the_same_codes(seed: int, factor: float) -> None:
    w, hessian = weight(seed, 5, 24), correlated(seed, 24)
    plain = gptq_quantize(w, hessian, "int3-g8")
    assert torch.equal(plain.codes, gptq_quantize(w, factor * hessian, "int3-g8").codes)


@pytest.mark.parametrize("factor", [1e-200, 1e-80, 1e80, 1e200])
def test_a_hessian_of_any_size(factor: float) -> None:
    w, hessian = weight(4, 5, 24), correlated(4, 24).double()
    plain = gptq_quantize(w, hessian, "int3-g8")
    assert torch.equal(plain.codes, gptq_quantize(w, factor * hessian, "int3-g8").codes)


@pytest.mark.parametrize("damping", [1e10, 1e80, 1e200])
def test_huge_damping_is_rounding_to_nearest(damping: float) -> None:
    w, hessian = weight(4, 5, 24), correlated(4, 24)
    got = gptq_quantize(w, hessian, "int3-g8", damping=damping)
    assert torch.equal(got.codes, quantize_tensor(w, "int3-g8").codes)


def test_a_parameter_of_one_row_under_another_default_dtype() -> None:
    w, hessian = nn.Parameter(weight(4, 1, 24)), correlated(4, 24)
    want = gptq_quantize(w.repeat(2, 1), hessian, "int4-g8").codes[:1]
    torch.set_default_dtype(torch.bfloat16)
    try:
        got = gptq_quantize(w, hessian, "int4-g8")
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(got.codes, want)
    assert not any(part.requires_grad for part in got.stored().values())


def test_rows_are_independent() -> None:
    w, hessian = weight(1, 6, 32), correlated(1, 32)
    whole = gptq_quantize(w, hessian, "int3-g8").codes
    assert torch.equal(whole[2:4], gptq_quantize(w[2:4], hessian, "int3-g8").codes)


def test_blocks_of_columns_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = BLOCK_COLUMNS + 40
    w, hessian = weight(2, 8, columns), correlated(2, columns, tokens=2000)
    blocked = gptq_quantize(w, hessian, "int4-g8").codes
    monkeypatch.setattr("slmlab.quant.gptq.BLOCK_COLUMNS", columns)
    single = gptq_quantize(w, hessian, "int4-g8").codes
    assert (blocked == single).float().mean() > 0.99
    want = textbook(w, hessian, "int4-g8", 0.01, act_order=True)
    assert (blocked == want).float().mean() > 0.98


@given(seed=seeds, columns=st.integers(2, 30))
def test_inverse_factor(seed: int, columns: int) -> None:
    hessian = correlated(seed, columns)
    factor = inverse_factor(hessian, damping=0.01).double()
    damped = hessian.double() + 0.01 * hessian.diagonal().double().mean() * torch.eye(columns)
    damped = damped / damped.diagonal().mean()
    torch.testing.assert_close(
        factor.T @ factor @ damped, torch.eye(columns).double(), rtol=1e-3, atol=1e-3
    )
    assert torch.equal(factor, factor.triu())


def dead_input() -> Tensor:
    hessian = correlated(0, 16)
    hessian[3] = hessian[:, 3] = 0
    return hessian


def twin_inputs() -> Tensor:
    x = torch.randn(200, 16)
    x[:, 5] = 2 * x[:, 9]
    return x.T @ x / 200


def few_tokens() -> Tensor:
    x = torch.randn(10, 16)
    return x.T @ x / 10


@pytest.mark.parametrize("singular", (dead_input, twin_inputs, few_tokens))
def test_singular_hessian_needs_damping(singular: object) -> None:
    w, hessian = weight(0, 4, 16), singular()  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"singular with damping=0.*damping=0\.01"):
        gptq_quantize(w, hessian, "int4-g8", damping=0)
    damped = gptq_quantize(w, hessian, "int4-g8").dequantize()
    assert (damped - w).abs().max() < 1
    gptq_quantize(w, correlated(0, 16), "int4-g8", damping=0)  # a regular one needs none


@given(seed=seeds)
def test_dependent_inputs_are_found_behind_float32_rounding(seed: int) -> None:
    """Rounding leaves the second moment's smallest eigenvalue tiny, of either sign."""
    x = torch.randn(500, 16, generator=torch.Generator().manual_seed(seed))
    x[:, 5] = x[:, 3] + x[:, 9] - 0.3 * x[:, 11]
    with pytest.raises(ValueError, match="singular"):
        inverse_factor(x.T @ x / 500, damping=0)


def test_inputs_that_are_always_zero_are_rounding_to_nearest() -> None:
    w = weight(0, 4, 16)
    got = gptq_quantize(w, torch.zeros(16, 16), "int4-g8")
    assert torch.equal(got.codes, quantize_tensor(w, "int4-g8").codes)
    model: Any = decoder()
    model.layers[0].input_layernorm.weight.zero_()
    rows = torch.randint(0, 96, (10, 40), generator=torch.Generator().manual_seed(1))
    assert quantize_model(model, "int4-g32", "gptq", rows)(rows).isfinite().all()


def test_refusals() -> None:
    w, hessian = weight(0, 4, 16), correlated(0, 16)
    with pytest.raises(ValueError, match=r"hessian must have shape \(in, in\) = \(16, 16\)"):
        gptq_quantize(w, torch.eye(4), "int4-g8")
    with pytest.raises(ValueError, match="symmetric"):
        gptq_quantize(w, hessian + torch.ones(16, 16).triu(1) * 10, "int4-g8")
    with pytest.raises(ValueError, match="NaN"):
        gptq_quantize(w, hessian * float("nan"), "int4-g8")
    with pytest.raises(ValueError, match="NaN"):
        gptq_quantize(w * float("nan"), hessian, "int4-g8")
    with pytest.raises(ValueError, match="damping=-1"):
        gptq_quantize(w, hessian, "int4-g8", damping=-1)
    with pytest.raises(TypeError, match="damping must be a number"):
        gptq_quantize(w, hessian, "int4-g8", damping="0.01")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="hessian must be a floating-point tensor"):
        gptq_quantize(w, [[1.0]], "int4-g8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="does not quantise"):
        gptq_quantize(w, hessian, "float16")
