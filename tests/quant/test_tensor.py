"""Codes, scales and sizes against bitsandbytes, gguf and the definition."""

from __future__ import annotations

import math

import bitsandbytes.functional as bnb
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor

from slmlab.quant import QuantizedTensor, quantize_tensor
from slmlab.quant.codebooks import levels
from slmlab.quant.tensor import from_codes, scales_and_zero_points, to_codes

INTEGERS = ["int8", "int8-asym", "int8-g32", "int4-row", "int4-g32", "int4-g24", "int4-g32-asym"]
LOW = ["int3-row", "int3-g16", "int3-g40-asym", "int2-row", "int2-g32", "int2-g8-asym"]
BOOKS = ["nf4-g64", "nf4-g16-dq", "fp4-g64", "fp4-g20-dq"]
schemes = st.sampled_from(INTEGERS + LOW + BOOKS)
SMALLEST_FP16 = 2.0**-24


@st.composite
def weights(draw) -> Tensor:
    """Small matrices of any size: columns of very different magnitude, zeros, whole zero rows."""
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 100))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    w = torch.randn(rows, columns, generator=generator)
    low, high = draw(st.sampled_from(((-9, 3), (-1, 1))))
    w *= 10.0 ** torch.randint(low, high, (columns,), generator=generator)
    w += draw(st.sampled_from((0.0, 0.0, 2.0)))
    w[torch.rand(rows, columns, generator=generator) < draw(st.sampled_from((0.0, 0.3)))] = 0
    if draw(st.booleans()):
        w[0] = 0
    return w


def by_weight(per_group: Tensor, q: QuantizedTensor) -> Tensor:
    """(out, groups) -> (out, in)."""
    size = q.scheme.group_size or q.shape[1]
    return per_group.float().repeat_interleave(size, 1)[:, : q.shape[1]]


def fp16_rounding(scales: Tensor) -> Tensor:
    """How far a number can be from the fp16 number it is rounded to."""
    return (scales * 2.0**-11).clamp(min=SMALLEST_FP16 / 2)


@given(weights(), schemes)
def test_every_weight_comes_back_within_half_a_step_and_the_rounding_of_its_scale(w, name) -> None:
    q = quantize_tensor(w, name)
    error = (q.dequantize() - w).abs()
    scales = by_weight(q.scales, q)
    if q.scheme.codebook:
        table = levels(q.scheme.codebook).sort().values
        half_step = table.diff().max() / 2 * scales
    else:
        half_step = scales / 2
    rounding = 1e-6 * scales
    if q.scheme.kind == "int":
        zeros = 0 if q.zero_points is None else by_weight(q.zero_points, q)
        rounding = (q.codes.float() - zeros).abs() * fp16_rounding(scales)
    if q.absmax_blocks is not None:
        # Steps of 1/255 of the largest absmax of 256 groups, rounded: at most one step.
        rounding = rounding + q.absmax_blocks.max() / 255
    assert (error <= half_step * (1 + 1e-3) + rounding + 1e-37).all()


@given(weights(), schemes)
def test_codes_lie_in_the_range_and_zero_stays_zero(w, name) -> None:
    q = quantize_tensor(w, name)
    low, high = q.scheme.code_range
    assert q.codes.dtype == torch.int8 and q.codes.shape == w.shape
    assert q.codes.min() >= low and q.codes.max() <= high
    assert (q.dequantize()[w == 0] == 0).all()
    assert q.dequantize().dtype == torch.float32


@given(weights(), schemes)
def test_nbytes_is_what_safetensors_writes_and_what_the_scheme_predicts(w, name) -> None:
    q = quantize_tensor(w, name)
    file = save(q.stored())
    payload = len(file) - 8 - int.from_bytes(file[:8], "little")
    assert q.nbytes == payload
    assert 8 * q.nbytes == q.scheme.matrix_bits(*w.shape)
    assert q.bits_per_weight == 8 * q.nbytes / w.numel()


@given(weights(), schemes)
def test_storing_and_quantising_again_change_nothing(w, name) -> None:
    q = quantize_tensor(w, name)
    restored = QuantizedTensor.from_stored(q.stored(), q.shape, name)
    assert torch.equal(restored.dequantize(), q.dequantize())
    again = QuantizedTensor.from_codes(q.codes, *scales_and_zero_points(w, name), name)
    assert all(torch.equal(part, again.stored()[key]) for key, part in q.stored().items())
    if q.scheme.symmetric:
        assert torch.equal(quantize_tensor(q.dequantize(), name).dequantize(), q.dequantize())


@given(weights(), st.sampled_from(("int4-g24", "int3-g40-asym", "nf4-g64", "int8-g32")))
def test_each_group_is_on_its_own_and_the_last_may_be_short(w, name) -> None:
    whole = quantize_tensor(w, name).dequantize()
    size = quantize_tensor(w, name).scheme.group_size
    pieces = [quantize_tensor(piece, name).dequantize() for piece in w.split(size, 1)]
    assert torch.equal(whole, torch.cat(pieces, 1))


@pytest.mark.parametrize("name", ["int8", "int4-g32", "int2-g32"])
def test_symmetric_codes_by_the_definition(name) -> None:
    w = torch.randn(8, 64)
    q = quantize_tensor(w, name)
    for row in range(8):
        size = q.scheme.group_size or 64
        for group, part in enumerate(w[row].split(size)):
            scale = part.abs().max().item() / (2 ** (q.scheme.code_bits - 1) - 1)
            assert q.scales[row, group].item() == pytest.approx(scale, rel=2**-11)
            wanted = [round(value / scale) for value in part.tolist()]
            assert q.codes[row, group * size :][:size].tolist() == wanted


@pytest.mark.parametrize("book", ["nf4", "fp4"])
@pytest.mark.parametrize("block", [64, 128])
def test_equals_bitsandbytes(book, block) -> None:
    w = torch.randn(48, 384)
    w[3, :block] = 0
    w[4, ::2] = 0
    w[5] *= 1e-6
    packed, state = bnb.quantize_4bit(w, blocksize=block, quant_type=book)
    q = quantize_tensor(w, f"{book}-g{block}")
    theirs = torch.stack((packed.view(48, -1) >> 4, packed.view(48, -1) & 15), -1).flatten(1)
    assert torch.equal(q.codes, theirs.to(torch.int8))
    assert torch.equal(q.scales.flatten(), state.absmax)
    assert torch.equal(q.dequantize(), bnb.dequantize_4bit(packed, state))


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_int8_g32_equals_q8_0_within_the_rounding_of_the_scale(scale) -> None:
    gguf = pytest.importorskip("gguf", reason="gguf comes with the extra llama-cpp")
    kind = gguf.constants.GGMLQuantizationType.Q8_0
    w = scale * torch.randn(64, 320)
    theirs = torch.from_numpy(gguf.dequantize(gguf.quantize(w.numpy(), kind), kind))
    q = quantize_tensor(w, "int8-g32")
    rounding = fp16_rounding(by_weight(q.scales, q))
    assert ((q.dequantize() - theirs).abs() <= q.codes.abs() * rounding).all()


def test_double_quantisation_costs_little_and_spares_small_groups() -> None:
    w = torch.randn(8, 64)
    w[1] *= 1e-4
    w[2] = 0
    plain, double = quantize_tensor(w, "nf4-g64"), quantize_tensor(w, "nf4-g64-dq")
    assert torch.equal(plain.codes, double.codes)
    step = plain.scales.max() / 255
    assert ((plain.scales - double.scales).abs() <= step * (1 + 1e-5)).all()
    assert double.scales[1] > 0 and (double.dequantize()[2] == 0).all()
    assert double.bits_per_weight < plain.bits_per_weight


@pytest.mark.parametrize("name", ["int8", "int4-g32", "int3-g32-asym", "int2-g32"])
def test_tiny_weights_get_a_coarser_grid_and_no_wrong_factor(name) -> None:
    for size in (1e-6, 1e-7, 1e-9, 1e-30):
        w = size * torch.randn(4, 64)
        q = quantize_tensor(w, name)
        assert (q.scales > 0).all()
        assert (q.scales.float() <= max(8 * size, SMALLEST_FP16)).all()
        assert ((q.dequantize() - w).abs() <= by_weight(q.scales, q) * 0.51).all()


def test_a_group_of_zeros() -> None:
    w = torch.ones(2, 64)
    w[1] = 0
    assert quantize_tensor(w, "int8").scales[1] == 1
    zero_points = quantize_tensor(w, "int4-g32-asym").zero_points
    assert zero_points is not None and zero_points[1].tolist() == [-8, -8]
    assert quantize_tensor(w, "nf4-g64").scales[1] == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_count_as_their_float32_values(dtype) -> None:
    w = torch.randn(4, 64).to(dtype)
    assert torch.equal(
        quantize_tensor(w, "int4-g32").dequantize(),
        quantize_tensor(w.float(), "int4-g32").dequantize(),
    )


def test_rows_in_pieces_give_what_one_piece_gives(monkeypatch) -> None:
    w = torch.randn(50, 96)
    whole = quantize_tensor(w, "int3-g32-asym")
    monkeypatch.setattr("slmlab.quant.tensor._CHUNK", 7 * 96)
    pieces = quantize_tensor(w.t().contiguous().t(), "int3-g32-asym")
    assert torch.equal(whole.dequantize(), pieces.dequantize())


def test_column_by_column_as_gptq_does_it() -> None:
    w = torch.randn(6, 64)
    scales, zeros = scales_and_zero_points(w, "int4-g32-asym")
    assert zeros is not None
    codes = [
        to_codes(w[:, [c]], scales[:, [c // 32]], zeros[:, [c // 32]], "int4-g32-asym")
        for c in range(64)
    ]
    assert torch.equal(torch.cat(codes, 1), quantize_tensor(w, "int4-g32-asym").codes)
    back = from_codes(torch.cat(codes, 1), scales, zeros, "int4-g32-asym")
    assert (back - w).abs().max() <= scales.max() * 0.51


def test_bad_weights() -> None:
    w = torch.randn(3, 8)
    w[1, 2], w[2, 0] = math.nan, math.inf
    with pytest.raises(ValueError, match=r"2 values that are NaN or infinite.*row 1, column 2"):
        quantize_tensor(w, "int8")
    with pytest.raises(ValueError, match="shape \\(out, in\\)"):
        quantize_tensor(torch.ones(3), "int8")
    with pytest.raises(ValueError, match="at least one weight"):
        quantize_tensor(torch.ones(3, 0), "int8")
    with pytest.raises(TypeError, match="floating-point"):
        quantize_tensor(torch.ones(3, 3, dtype=torch.int8), "int8")
    for without_numbers in (torch.eye(8).to_sparse(), torch.empty(4, 4, device="meta")):
        with pytest.raises(ValueError, match="must be dense and hold its numbers"):
            quantize_tensor(without_numbers, "int8")
    with pytest.raises(ValueError, match="above fp16's largest"):
        quantize_tensor(torch.full((2, 8), 1e7), "int8")
    with pytest.raises(ValueError, match="above fp16's largest"):
        quantize_tensor(torch.tensor([[3e38, -3e38]]), "int8-asym")


def test_large_finite_weights_are_not_taken_for_infinite() -> None:
    w = torch.full((1, 64), 3e38)  # their sum is infinite
    assert (quantize_tensor(w, "nf4-g64").dequantize() == w).all()


def test_bad_schemes() -> None:
    w = torch.randn(3, 8)
    with pytest.raises(ValueError, match="valid forms: float32"):
        quantize_tensor(w, "int5-g32")
    with pytest.raises(ValueError, match="'float16' does not quantise"):
        quantize_tensor(w, "float16")
    with pytest.raises(TypeError, match="w is quantised already \\(int8\\)"):
        quantize_tensor(quantize_tensor(w, "int8"), "int4-row")  # type: ignore[arg-type]
