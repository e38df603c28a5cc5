"""How plain data is laid out in bytes, and how much of it may travel.

Four bytes with the length of a JSON text, the JSON text, a safetensors file (nothing where it would
be empty). In the JSON None, bools, ints of 64 bits, finite floats and short texts stand for
themselves; everything else is a list that begins with a letter::

    ["l", ...] list      ["t", ...] tuple     ["d", key, value, ...] dict    ["z", ...] frozenset
    ["i", "-ff"] int     ["f", "7ff0..."] float, its eight bytes             ["c", re, im] complex
    ["s", n] text        ["b", n] bytes       ["o", text] Opaque
    ["n", "<f4", shape, order] numpy array    ["p", "float32", shape, order] torch tensor

Texts and bytes marked with a length follow each other in the safetensors entry "text"; the k-th
array is the entry "k". Entries are the arrays' bytes as U8, because safetensors has no names for a
part of the dtypes (complex, three of the float8, big-endian numpy). `order` lists the dimensions
from the largest stride to the smallest where that is not 0, 1, 2, ...: a transposed input arrives
transposed in memory too.
"""

from __future__ import annotations

import struct

MAX_BYTES = 256 << 20
MAX_DEPTH = 32
MAX_ITEMS = 250_000  # above the limit of values.plain(), so that each of its results can travel
MAX_ARRAYS = 10_000
MAX_ENTRY = 120  # bytes of one entry in the header of the safetensors file
MAX_DIMENSIONS = 64  # numpy's own limit
MAX_MARKS = 3_000_000  # commas and brackets: they bound the memory that the JSON text can ask for
MAX_SAME_HASH = 64  # keys made to collide would take quadratic time
SHORT = 200  # letters of a text that stands in the JSON
MARKS = frozenset(",[{")
SMALL = 2**63
ENTRIES = struct.Struct("<Q")  # length of the header of a safetensors file
HEADER = struct.Struct(">I")
DOUBLE = struct.Struct(">d")
TORCH_DTYPES = (
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    *("float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128"),
)
