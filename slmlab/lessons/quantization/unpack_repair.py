"""quantization.unpack_repair: the nibbles of every second byte come out in the wrong order."""

from __future__ import annotations

import torch
from torch import Tensor

from slmlab.checking import Case, Exact, Exercise, Mistake
from slmlab.quant.packing import pack_codes, unpack_codes


def cases(seed: int) -> list[Case]:
    """One byte, one with a minus, two bytes, an odd number of columns, then matrices."""
    random = torch.Generator().manual_seed(seed)

    def case(*codes: int) -> Case:
        row = torch.tensor([codes], dtype=torch.int8)
        return Case({"packed": pack_codes(row, 4), "columns": row.shape[1]})

    def matrix(rows: int, columns: int) -> Case:
        codes = torch.randint(-8, 8, (rows, columns), generator=random).to(torch.int8)
        return Case({"packed": pack_codes(codes, 4), "columns": columns})

    a, b, c = (int(x) + 1 for x in torch.randperm(7, generator=random)[:3])
    return [
        case(a, b),
        case(-a, b),
        case(a, b, b, c),
        case(a, -b, c),
        matrix(2, 8),
        matrix(3, 7),
    ]


def reference(packed: Tensor, columns: int) -> Tensor:
    """The package's unpacking of signed 4-bit codes."""
    return unpack_codes(packed, 4, columns)


def _nibbles(packed: Tensor) -> Tensor:
    """(rows, bytes, 2) int8, 0 .. 15."""
    return torch.stack((packed & 15, packed >> 4), dim=-1).to(torch.int8)


def _signed(nibbles: Tensor) -> Tensor:
    return torch.where(nibbles > 7, nibbles - 16, nibbles)


def _as_found(packed: Tensor, columns: int) -> Tensor:
    nibbles = _nibbles(packed)
    nibbles[:, 1::2] = nibbles[:, 1::2].flip(-1)
    return _signed(nibbles).flatten(1)[:, :columns]


def _the_other_bytes(packed: Tensor, columns: int) -> Tensor:
    nibbles = _nibbles(packed)
    nibbles[:, 0::2] = nibbles[:, 0::2].flip(-1)
    return _signed(nibbles).flatten(1)[:, :columns]


def _all_swapped(packed: Tensor, columns: int) -> Tensor:
    return _signed(_nibbles(packed)).flip(-1).flatten(1)[:, :columns]


def _sign_lost(packed: Tensor, columns: int) -> Tensor:
    return _nibbles(packed).flatten(1)[:, :columns]


def _minus_8(packed: Tensor, columns: int) -> Tensor:
    return (_nibbles(packed) - 8).flatten(1)[:, :columns]


def _padding_kept(packed: Tensor, columns: int) -> Tensor:
    return _signed(_nibbles(packed)).flatten(1)


def _byte_by_byte(packed: Tensor, columns: int) -> Tensor:
    rows = []
    for row in packed.tolist():
        codes: list[int] = []
        for byte in row:
            codes += [byte % 16, byte // 16]
        rows.append([code - 16 if code >= 8 else code for code in codes[:columns]])
    return torch.tensor(rows, dtype=torch.int8)


def _by_shifts(packed: Tensor, columns: int) -> Tensor:
    signed = packed.view(torch.int8)
    codes = torch.empty(len(packed), 2 * packed.shape[1], dtype=torch.int8)
    # The shift back copies the sign bit down.
    codes[:, 0::2], codes[:, 1::2] = (signed << 4) >> 4, signed >> 4
    return codes[:, :columns].clone()


UNPACK_REPAIR = Exercise(
    id="quantization.unpack_repair",
    title="Repair this: nibbles in the wrong order",
    points=3,
    minutes=8,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "the given bug",
            "The bug is still there: bytes 0, 2, 4 come out right and bytes 1, 3, 5 with their two "
            "codes exchanged. Which line treats the two kinds of byte differently?",
            _as_found,
        ),
        Mistake(
            "the other bytes exchanged",
            "Now bytes 1, 3, 5 are right and bytes 0, 2, 4 are exchanged: the bug moved. Which byte "
            "of this format has its high nibble first?",
            _the_other_bytes,
        ),
        Mistake(
            "all bytes exchanged",
            "Every byte is treated alike now, and each the wrong way round: the low nibble holds "
            "the even column. Which half comes first?",
            _all_swapped,
        ),
        Mistake(
            "sign lost",
            "Positive codes are right, negative ones come out as 8 .. 15: a nibble is two's "
            "complement. Which code is 1111?",
            _sign_lost,
        ),
        Mistake(
            "shifted by 8",
            "Every code is off by 8 one way or the other: you subtract 8 as formats with an offset "
            "do, and this one is two's complement. Which code is 0000?",
            _minus_8,
        ),
        Mistake(
            "padding kept",
            "An odd number of columns comes back one longer: the last high nibble is padding. What "
            "is `columns` for?",
            _padding_kept,
        ),
    ),
    hints=(
        "Unpacking what was packed gives the codes back, whatever they are. Try it on a row of four "
        "different codes: which byte breaks it?",
        "Bytes [243, 2], 3 columns: 243 = 3 + 16 * 15 gives 3 and 15, which is -1; 2 = 2 + 16 * 0 "
        "gives 2 and a padding that is dropped: [3, -1, 2]. The given code gives [3, -1, 0].",
        "low = packed & 15; high = packed >> 4\n"
        "codes = low, high, low, high, ... of every byte in turn\n"
        "codes of 8 and more: minus 16\n"
        "keep the first `columns` of each row, as int8",
    ),
    compare=Exact(),
    alternatives=(_byte_by_byte, _by_shifts),
)
