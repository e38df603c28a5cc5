"""Codes of 8, 4, 3 or 2 bits into bytes and back, as they lie in memory and in files.

A row of codes is a stream of bits, first code in the lowest bits of the first byte: two 4-bit
codes a byte (even column in the low nibble), four 2-bit codes a byte, eight 3-bit codes in three
bytes. Negative codes are stored in two's complement. Each row ends on a whole byte.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

WIDTHS = (8, 4, 3, 2)


def packed_columns(columns: int, bits: int) -> int:
    """Bytes that a row of ``columns`` codes takes."""
    return -(-columns * bits // 8)


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Put codes side by side.

    Args:
        codes: (rows, columns) int8; each in -2**(bits-1) .. 2**(bits-1) - 1, or in
            0 .. 2**bits - 1 where they are read back with ``signed=False``.
        bits: 8, 4, 3 or 2.

    Returns:
        (rows, ceil(columns * bits / 8)) uint8.

    Raises:
        ValueError: another width or shape, a code that does not fit.
        TypeError: codes that are no int8 tensor.
    """
    _check(codes, "codes", torch.int8, bits)
    low, high = (int(end) for end in codes.aminmax()) if codes.numel() else (0, 0)
    if low < -(2 ** (bits - 1)) or high >= 2**bits or (low < 0 and high >= 2 ** (bits - 1)):
        raise ValueError(
            f"codes run from {low} to {high}, which {bits} bits cannot hold: clamp them"
        )
    columns = codes.shape[1]
    per_word = {8: 1, 4: 2, 3: 8, 2: 4}[bits]
    if columns % per_word:
        codes = functional.pad(codes, (0, -columns % per_word))
    # A copy in any case: contiguous() would leave a single row its odd strides.
    unsigned = codes.clone(memory_format=torch.contiguous_format).view(torch.uint8)
    if bits == 8:
        return unsigned
    if bits == 3:
        return _pack_3(unsigned)[:, : packed_columns(columns, bits)].contiguous()
    while bits < 8:
        unsigned, bits = _fold(unsigned, bits), 2 * bits
    return unsigned


def _fold(unsigned: Tensor, bits: int) -> Tensor:
    """Neighbouring bytes that hold ``bits`` bits each become one byte that holds both.

    Two bytes are handled as one 16-bit number, the even column in its low half (little-endian).
    """
    pairs, mask = unsigned.view(torch.int16), 2**bits - 1
    return (pairs & mask | pairs >> (8 - bits) & mask << bits).to(torch.uint8)


def _pack_3(unsigned: Tensor) -> Tensor:
    """Eight codes become one word of 24 bits, its low byte first."""
    lanes = unsigned.view(unsigned.shape[0], -1, 8).int().unbind(-1)
    words = lanes[0] & 7
    for lane in range(1, 8):
        words |= (lanes[lane] & 7) << (3 * lane)
    return torch.stack([words >> shift & 0xFF for shift in (0, 8, 16)], -1).byte().flatten(1)


def unpack_codes(packed: Tensor, bits: int, columns: int, *, signed: bool = True) -> Tensor:
    """The codes that `pack_codes` put into ``packed``.

    Args:
        packed: (rows, ceil(columns * bits / 8)) uint8.
        columns: codes in a row.
        signed: two's complement codes; False for indices 0 .. 2**bits - 1 of a code book.

    Returns:
        (rows, columns) int8.

    Raises:
        ValueError: another width, a row length that does not match ``columns``.
        TypeError: packed that is no uint8 tensor.
    """
    _check(packed, "packed", torch.uint8, bits)
    if packed.shape[1] != packed_columns(columns, bits):
        raise ValueError(
            f"packed has {packed.shape[1]} bytes a row, {columns} codes of {bits} bits take "
            f"{packed_columns(columns, bits)}: pass the columns and bits it was packed with"
        )
    if bits == 8:
        return packed.view(torch.int8).clone()
    unsigned = _unpack_3(packed) if bits == 3 else _lanes(packed, bits)
    codes = unsigned.view(torch.int8)[:, :columns]
    if signed:  # move the sign bit to the top, and let the shift back copy it down
        codes = (codes << (8 - bits)) >> (8 - bits)
    return codes.contiguous()


def _lanes(packed: Tensor, bits: int) -> Tensor:
    lanes = [packed >> shift & (2**bits - 1) for shift in range(0, 8, bits)]
    return torch.stack(lanes, -1).flatten(1)


def _unpack_3(packed: Tensor) -> Tensor:
    if packed.shape[1] % 3:
        packed = functional.pad(packed, (0, -packed.shape[1] % 3))
    low, middle, high = packed.view(packed.shape[0], -1, 3).int().unbind(-1)
    words = low | middle << 8 | high << 16
    return torch.stack([words >> 3 * lane & 7 for lane in range(8)], -1).byte().flatten(1)


def _check(tensor: Tensor, name: str, dtype: torch.dtype, bits: int) -> None:
    if not isinstance(tensor, Tensor) or tensor.dtype != dtype:
        kind = getattr(tensor, "dtype", type(tensor).__name__)
        raise TypeError(f"{name} must be a tensor of {dtype}, not {kind}")
    if bits not in WIDTHS:
        raise ValueError(f"bits={bits} is not one of {WIDTHS}")
    if tensor.dim() != 2:
        raise ValueError(f"{name} must have shape (rows, columns), not {tuple(tensor.shape)}")
