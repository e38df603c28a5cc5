"""Scheme names and what a weight costs under each: "int4-g32", "nf4-g64-dq", "float16", ...

Storage: integer schemes keep one fp16 scale a group (or row) and, with "-asym", one zero point
of the codes' width; nf4 and fp4 keep one fp32 absmax a group, with "-dq" an 8-bit absmax and
one fp32 for each 256 of those (Dettmers et al. 2023, arXiv:2305.14314, section 3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FLOAT_BITS = {"float32": 32, "float16": 16, "bfloat16": 16}
VALID_FORMS = (
    "float32, float16, bfloat16, int8, int8-asym, int8-gN, intB-row, intB-gN, intB-gN-asym "
    "(B = 4, 3, 2), nf4-gN, fp4-gN, nf4-gN-dq, fp4-gN-dq (N = group size, such as int4-g32)"
)
DOUBLE_QUANT_BLOCK = 256
_INTEGER = re.compile(r"int8(?P<asym8>-asym)?|int8-g(?P<g8>[1-9][0-9]*)")
_LOW = re.compile(r"int(?P<bits>[432])-(?:row|g(?P<group>[1-9][0-9]*)(?P<asym>-asym)?)")
_FOUR = re.compile(r"(?:nf4|fp4)-g(?P<group>[1-9][0-9]*)(?P<dq>-dq)?")


@dataclass(frozen=True)
class Scheme:
    """How a weight matrix is stored.

    code_bits: bits a weight, without metadata. group_size: weights that share one scale along
    the input dimension; None means a whole row, and no scale at all for float schemes. Where it
    does not divide the row, the last group of each row is shorter and has a scale of its own.
    scale_bits, zero_point_bits: bits a group. double_quantized: absmax kept in 8 bits.
    """

    name: str
    code_bits: int
    group_size: int | None = None
    scale_bits: int = 0
    zero_point_bits: int = 0
    double_quantized: bool = False

    @property
    def is_float(self) -> bool:
        """True for float32, float16 and bfloat16: nothing is quantised."""
        return self.name in FLOAT_BITS

    @property
    def kind(self) -> str:
        """ "float", "int" (evenly spaced levels) or "codebook" (nf4, fp4: levels from a table)."""
        if self.is_float:
            return "float"
        return "int" if self.name.startswith("int") else "codebook"

    @property
    def symmetric(self) -> bool:
        """Integer codes around 0 without a zero point."""
        return self.kind == "int" and self.zero_point_bits == 0

    @property
    def codebook(self) -> str | None:
        """ "nf4" or "fp4"; None where the levels are evenly spaced."""
        return self.name[:3] if self.kind == "codebook" else None

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest code: +-(2**(b-1) - 1) symmetric, -2**(b-1) .. 2**(b-1) - 1 with
        a zero point, 0 .. 15 as index of a code book. ValueError for a float scheme."""
        if self.is_float:
            raise ValueError(f"scheme {self.name!r} has no codes: use one that quantises")
        if self.kind == "codebook":
            return 0, 2**self.code_bits - 1
        top = 2 ** (self.code_bits - 1) - 1
        return (-top if self.symmetric else -top - 1), top

    @property
    def compute_dtype(self) -> str:
        """Precision of the products: weight-only schemes dequantise to 16 bit."""
        return self.name if self.is_float else "float16"

    def groups(self, columns: int) -> int:
        """Groups in a row of ``columns`` weights, a last short one included."""
        return -(-columns // (self.group_size or max(1, columns)))

    def matrix_bits(self, rows: int, columns: int) -> int:
        """Bits that a weight (rows, columns) takes, metadata included; groups run along columns.

        Each row of codes is padded to whole bytes; so are the zero points of the whole matrix.
        """
        groups = rows * self.groups(columns)
        bits = rows * _whole_bytes(columns * self.code_bits)
        bits += groups * self.scale_bits + _whole_bytes(groups * self.zero_point_bits)
        if self.double_quantized:
            bits += 32 * -(-groups // DOUBLE_QUANT_BLOCK)
        return bits

    def bits_per_weight(self, rows: int, columns: int) -> float:
        """Bits a weight of a matrix (rows, columns), metadata included."""
        return self.matrix_bits(rows, columns) / (rows * columns)


def _whole_bytes(bits: int) -> int:
    return -(-bits // 8) * 8


def parse_scheme(name: str) -> Scheme:
    """Read a scheme name. Raises ValueError (with the valid forms), TypeError for no str."""
    if not isinstance(name, str):
        raise TypeError(f"scheme must be a str such as 'int4-g32', got {type(name).__name__}")
    if name in FLOAT_BITS:
        return Scheme(name, FLOAT_BITS[name])
    if match := _INTEGER.fullmatch(name):
        group = match["g8"]
        return Scheme(
            name,
            8,
            group_size=int(group) if group else None,
            scale_bits=16,
            zero_point_bits=8 if match["asym8"] else 0,
        )
    if match := _LOW.fullmatch(name):
        bits, group = int(match["bits"]), match["group"]
        return Scheme(
            name,
            bits,
            group_size=int(group) if group else None,
            scale_bits=16,
            zero_point_bits=bits if match["asym"] else 0,
        )
    if match := _FOUR.fullmatch(name):
        double = match["dq"] is not None
        return Scheme(
            name,
            4,
            group_size=int(match["group"]),
            scale_bits=8 if double else 32,
            double_quantized=double,
        )
    raise ValueError(f"scheme {name!r} is unknown; valid forms: {VALID_FORMS}")
