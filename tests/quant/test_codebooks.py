from __future__ import annotations

import bitsandbytes.functional as bnb
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slmlab.quant.codebooks import fp4_levels, levels, nearest_codes, nf4_levels


@pytest.mark.parametrize("make", [nf4_levels, fp4_levels])
def test_levels_do_not_depend_on_default_dtype_or_device(make) -> None:
    want = make()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            got = make()
    finally:
        torch.set_default_dtype(torch.float32)
    assert got.device.type == "cpu" and torch.equal(got, want)


@pytest.mark.parametrize("book", ["nf4", "fp4"])
def test_levels_equal_bitsandbytes_to_the_bit(book) -> None:
    _, state = bnb.quantize_4bit(torch.randn(1, 64), blocksize=64, quant_type=book)
    assert torch.equal(levels(book), state.code)


def test_nf4_splits_the_normal_distribution_into_even_shares() -> None:
    # Between two neighbouring levels on one side of zero lies the same probability.
    tail = 1 - (1 / 32 + 1 / 30) / 2
    spread = torch.special.ndtri(torch.tensor(tail, dtype=torch.float64))
    shares = torch.special.ndtr(levels("nf4").double() * spread).diff()
    assert torch.allclose(shares[:7], shares[:7].mean(), rtol=1e-5)
    assert torch.allclose(shares[7:], shares[7:].mean(), rtol=1e-5)
    assert shares[0] > shares[-1]  # seven steps below zero, eight above


def test_fp4_decodes_bit_by_bit() -> None:
    exponents = {1: 8.0, 2: 4.0, 3: 2.0}
    for code, value in enumerate(fp4_levels().tolist()):
        sign, exponent, mantissa = -1 if code & 8 else 1, code >> 1 & 3, code & 1
        size = exponents[exponent] * (1 + mantissa / 2) if exponent else mantissa / 16
        assert value == pytest.approx(sign * size / 12, rel=1e-6)


@given(st.sampled_from(("nf4", "fp4")), st.lists(st.floats(-1.5, 1.5, width=32), min_size=1))
def test_no_level_is_nearer(book, values) -> None:
    x = torch.tensor(values)
    codes = nearest_codes(x, book)
    chosen = (levels(book)[codes.int()].double() - x.double()).abs()
    best = (levels(book).double() - x.double()[:, None]).abs().amin(1)
    assert torch.allclose(chosen, best, rtol=0, atol=1e-7)


def test_an_unknown_book() -> None:
    with pytest.raises(ValueError, match="'nf3' is unknown; use one of nf4, fp4"):
        levels("nf3")
