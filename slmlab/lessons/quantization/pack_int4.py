"""quantization.pack_int4: two signed 4-bit codes in a byte, the even column in the low nibble."""

from __future__ import annotations

import torch
from torch import Tensor

from slmlab.checking import Case, Exact, Exercise, Mistake
from slmlab.quant.packing import pack_codes


def cases(seed: int) -> list[Case]:
    """Two positive codes, negative ones, three columns, four, then matrices."""
    random = torch.Generator().manual_seed(seed)

    def codes(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high + 1, shape, generator=random).to(torch.int8)

    first = codes(1, 3, 1, 1)
    return [
        Case({"codes": torch.cat((first, first + codes(1, 4, 1, 1)), dim=1)}),
        Case({"codes": torch.cat((codes(-7, -1, 1, 1), codes(1, 7, 1, 1)), dim=1)}),
        Case({"codes": torch.cat((codes(1, 7, 1, 1), codes(-7, -1, 1, 1)), dim=1)}),
        Case({"codes": torch.cat((codes(-7, 7, 1, 2), codes(1, 7, 1, 1)), dim=1)}),
        Case({"codes": torch.tensor([[1, 2, 4, 7]]).roll(int(first), 1).to(torch.int8)}),
        Case({"codes": codes(-8, 7, 3, 8)}),
        Case({"codes": codes(-8, 7, 2, 7)}),
    ]


def reference(codes: Tensor) -> Tensor:
    """The package's packing at 4 bits."""
    return pack_codes(codes, 4)


def _even_columns(codes: Tensor) -> Tensor:
    if codes.shape[1] % 2 == 0:
        return codes
    return torch.cat((codes, codes.new_zeros(len(codes), 1)), dim=1)


def _join(first: Tensor, second: Tensor) -> Tensor:
    """Codes (rows, bytes) each, in two's complement: the first in the low nibble."""
    return (first.int() & 15 | (second.int() & 15) << 4).to(torch.uint8)


def _high_first(codes: Tensor) -> Tensor:
    even = _even_columns(codes)
    return _join(even[:, 1::2], even[:, 0::2])


def _sign_spills(codes: Tensor) -> Tensor:
    even = _even_columns(codes).int()
    return ((even[:, 0::2] | even[:, 1::2] << 4) & 255).to(torch.uint8)


def _sign_lost(codes: Tensor) -> Tensor:
    even = _even_columns(codes).int().abs()
    return _join(even[:, 0::2], even[:, 1::2])


def _shifted_by_8(codes: Tensor) -> Tensor:
    even = _even_columns(codes).int() + 8
    return _join(even[:, 0::2], even[:, 1::2])


def _halves(codes: Tensor) -> Tensor:
    even = _even_columns(codes)
    return _join(*even.chunk(2, dim=1))


def _last_dropped(codes: Tensor) -> Tensor:
    pairs = codes.shape[1] // 2
    return _join(codes[:, 0 : 2 * pairs : 2], codes[:, 1 : 2 * pairs : 2])


def _by_arithmetic(codes: Tensor) -> Tensor:
    rows = []
    for row in codes.tolist():
        nibbles = [code % 16 for code in row] + [0] * (len(row) % 2)
        rows.append([a + 16 * b for a, b in zip(nibbles[::2], nibbles[1::2], strict=True)])
    return torch.tensor(rows, dtype=torch.uint8)


def _by_weights(codes: Tensor) -> Tensor:
    unsigned = torch.where(codes < 0, codes.int() + 16, codes.int())
    padded = torch.nn.functional.pad(unsigned, (0, codes.shape[1] % 2))
    return (padded.unflatten(1, (-1, 2)) * torch.tensor([1, 16])).sum(dim=-1).to(torch.uint8)


PACK_INT4 = Exercise(
    id="quantization.pack_int4",
    title="Pack INT4, two codes a byte",
    points=3,
    minutes=10,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "nibbles swapped",
            "The right codes are in the right bytes and in the wrong halves: the even column "
            "belongs into the low nibble. Which of the two do you shift by 4?",
            _high_first,
        ),
        Mistake(
            "sign spills over",
            "Bytes with a negative even column are off: -1 in 8 bits is 11111111, and its upper "
            "half covers the neighbour. What leaves only four bits of a code?",
            _sign_spills,
        ),
        Mistake(
            "sign lost",
            "Your negative codes come back positive: a nibble of two's complement holds the sign "
            "too, -1 is 1111. Which step of yours forgets it?",
            _sign_lost,
        ),
        Mistake(
            "shifted by 8",
            "You store code + 8, as some formats do; this one keeps two's complement, and a zero "
            "is the nibble 0000. What does the pair [0, 0] pack to?",
            _shifted_by_8,
        ),
        Mistake(
            "halves of the row paired",
            "Right for two columns, off for more: you pair the first half of a row with the second. "
            "Which column is the neighbour of column 0?",
            _halves,
        ),
        Mistake(
            "last column dropped",
            "Rows of odd length lose their last code: it needs a byte of its own, with zeros above "
            "it. How many bytes do three codes take?",
            _last_dropped,
        ),
    ),
    hints=(
        "Each code can be read back: the low nibble of byte j is column 2j, the high one column "
        "2j + 1, both in two's complement. Which of the two fails for your bytes?",
        "Codes [3, -1, 2]: nibbles 0011, 1111, 0010 = 3, 15, 2. First byte 3 + 16 * 15 = 243; the "
        "third code has no neighbour: 2 + 16 * 0 = 2. Packed [243, 2].",
        "add a column of zeros where the number of columns is odd\n"
        "nibbles = codes & 15          (two's complement: -1 becomes 15)\n"
        "packed = even columns | odd columns shifted left by 4, as uint8",
    ),
    compare=Exact(),
    alternatives=(_by_arithmetic, _by_weights),
)
