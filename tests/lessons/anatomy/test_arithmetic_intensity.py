"""anatomy.arithmetic_intensity against torch's own FLOP counter and the sizes of real tensors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from slmlab.lessons.anatomy.arithmetic_intensity import ARITHMETIC_INTENSITY
from slmlab.measure import Device

answer = ARITHMETIC_INTENSITY.reference
sides = st.integers(1, 300)
rates = st.floats(1.0, 5000.0)


@given(m=st.integers(1, 64), k=sides, n=sides)
def test_intensity_against_torch(m: int, k: int, n: int) -> None:
    inputs = torch.empty(m, k, dtype=torch.float16, device="meta")
    weights = torch.empty(k, n, dtype=torch.float16, device="meta")
    with FlopCounterMode(display=False) as counter:
        outputs = inputs @ weights
    moved = sum(tensor.nbytes for tensor in (inputs, weights, outputs))
    found = answer(m, k, n, 16, 2, 50.0, 100.0)["flop_per_byte"]
    assert found == pytest.approx(counter.get_total_flops() / moved)


@given(
    k=sides,
    n=sides,
    bits=st.sampled_from((2.5, 4.5, 8.5, 16)),
    activation=st.sampled_from((1, 2, 4)),
    bandwidth=rates,
    peak=rates,
)
def test_the_batch_reaches_the_ridge(
    k: int, n: int, bits: float, activation: int, bandwidth: float, peak: float
) -> None:
    found = answer(1, k, n, bits, activation, bandwidth, peak)
    device = Device("a device", "nowhere", bandwidth_gb_s=bandwidth, fp16_tflop_s=peak / 1000)
    assert found["ridge"] == pytest.approx(device.ridge_flop_per_byte())
    if math.isinf(found["batch"]):
        endless = answer(10**15, k, n, bits, activation, bandwidth, peak)["flop_per_byte"]
        assert endless <= found["ridge"] * (1 + 1e-9)
    elif found["batch"] < 1e6:
        rows = answer(found["batch"], k, n, bits, activation, bandwidth, peak)
        assert rows["flop_per_byte"] == pytest.approx(found["ridge"])


def test_known_figures() -> None:
    # A wide matmul on a device of 100 FLOP a byte: about 100 rows at fp16, 28 at 4.5 bits.
    wide = 2**20
    assert answer(1, wide, wide, 16, 2, 1.0, 100.0)["batch"] == pytest.approx(100, rel=0.01)
    assert answer(1, wide, wide, 4.5, 2, 1.0, 100.0)["batch"] == pytest.approx(28.1, rel=0.01)
    assert answer(1, wide, wide, 4.5, 2, 1.0, 100.0)["flop_per_byte"] == pytest.approx(3.56, 0.01)


def test_the_worked_example() -> None:
    found = answer(1, 64, 64, 16, 2, 10, 40)
    assert [round(value, 4) for value in found.values()] == [0.9697, 4.0, 4.5714]
    for text in ("0.9697", "4.5714"):
        assert text in ARITHMETIC_INTENSITY.hints[1]
