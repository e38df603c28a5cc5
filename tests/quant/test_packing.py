from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slmlab.quant import pack_codes, unpack_codes
from slmlab.quant.packing import packed_columns


def stream(row: list[int], bits: int) -> list[int]:
    """The row as one long number, first code lowest, cut into bytes."""
    number = sum((code % 2**bits) << (bits * place) for place, code in enumerate(row))
    return list(number.to_bytes(-(-len(row) * bits // 8), "little"))


@given(
    st.sampled_from((8, 4, 3, 2)), st.integers(1, 4), st.integers(1, 40), st.booleans(), st.data()
)
def test_packs_to_the_bit_stream_and_back(bits, rows, columns, signed, data) -> None:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    values = st.lists(st.integers(low, min(high, 127)), min_size=columns, max_size=columns)
    table = data.draw(st.lists(values, min_size=rows, max_size=rows))
    codes = torch.tensor(table, dtype=torch.int8)
    packed = pack_codes(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.tolist() == [stream(row, bits) for row in table]
    assert packed.shape[1] == packed_columns(columns, bits)
    assert torch.equal(unpack_codes(packed, bits, columns, signed=signed), codes)


def test_the_even_column_lies_in_the_low_nibble() -> None:
    assert pack_codes(torch.tensor([[1, 2, -1]], dtype=torch.int8), 4).tolist() == [[0x21, 0x0F]]


def test_columns_that_do_not_lie_together() -> None:
    codes = torch.arange(-8, 8, dtype=torch.int8).view(4, 4)
    assert torch.equal(pack_codes(codes.t(), 4), pack_codes(codes.t().contiguous(), 4))
    assert torch.equal(pack_codes(codes.t(), 8), codes.t().contiguous().view(torch.uint8))


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_a_single_row_with_the_strides_of_a_column(bits) -> None:
    row = torch.tensor([[1], [0], [1], [1], [0]], dtype=torch.int8).t()
    assert pack_codes(row, bits).tolist() == [stream(row[0].tolist(), bits)]
    part = torch.ones(3, 9, dtype=torch.int8)[:1, :4]
    assert pack_codes(part, bits).tolist() == [stream([1] * 4, bits)]


@pytest.mark.parametrize("row", [[8, -1], [-9, 0], [16, 0]])
def test_codes_that_do_not_fit(row) -> None:
    with pytest.raises(ValueError, match="4 bits cannot hold"):
        pack_codes(torch.tensor([row], dtype=torch.int8), 4)


def test_refusals() -> None:
    codes = torch.zeros(2, 3, dtype=torch.int8)
    with pytest.raises(TypeError, match=r"codes must be a tensor of torch\.int8"):
        pack_codes(codes.int(), 4)
    with pytest.raises(ValueError, match="bits=5 is not one of"):
        pack_codes(codes, 5)
    with pytest.raises(ValueError, match="shape \\(rows, columns\\)"):
        pack_codes(codes[0], 4)
    with pytest.raises(ValueError, match="2 bytes a row, 5 codes of 4 bits take 3"):
        unpack_codes(pack_codes(codes, 4), 4, 5)
