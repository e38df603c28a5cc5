from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmlab.quant import parse_scheme

# Bits a weight, from the interview questions 14 to 16 of the project's reference and from the
# storage rules of the scheme grammar, for a matrix (1024, 1024).
BITS = {
    "float32": 32.0,
    "float16": 16.0,
    "bfloat16": 16.0,
    "int4-g128-asym": 4.15625,
    "int4-g32": 4.5,
    "int8-g32": 8.5,
    "nf4-g64": 4.5,
    "nf4-g64-dq": 4 + 8 / 64 + 32 / (64 * 256),
    "fp4-g64": 4.5,
    "int8": 8 + 16 / 1024,
    "int8-asym": 8 + 24 / 1024,
    "int4-row": 4 + 16 / 1024,
    "int3-g32": 3.5,
    "int2-g32-asym": 2 + 18 / 32,
}


@pytest.mark.parametrize(("name", "bits"), BITS.items())
def test_bits_per_weight(name, bits):
    assert parse_scheme(name).bits_per_weight(1024, 1024) == pytest.approx(bits, rel=1e-12)


def test_a_last_group_that_is_not_full_still_has_a_scale():
    assert parse_scheme("int4-g32").matrix_bits(3, 40) == 3 * 40 * 4 + 3 * 2 * 16


@given(st.sampled_from(sorted(BITS)), st.integers(1, 70), st.integers(1, 300))
def test_never_below_the_codes_and_one_row_at_a_time(name, rows, columns):
    scheme = parse_scheme(name)
    bits = scheme.matrix_bits(rows, columns)
    assert bits >= rows * columns * scheme.code_bits
    if not scheme.double_quantized and not scheme.zero_point_bits:
        assert bits == rows * scheme.matrix_bits(1, columns)


def test_a_matrix_without_columns_takes_no_bits() -> None:
    assert parse_scheme("int8").matrix_bits(3, 0) == parse_scheme("int4-g32").matrix_bits(3, 0) == 0


def test_padding_counts() -> None:
    # 5 codes of 3 bits take 2 bytes a row; 3 zero points of 3 bits take 2 bytes in all.
    assert parse_scheme("int3-g8-asym").matrix_bits(3, 5) == 8 * (3 * 2 + 3 * 2 + 2)


@pytest.mark.parametrize(
    ("name", "kind", "symmetric", "code_range"),
    [
        ("int8", "int", True, (-127, 127)),
        ("int8-asym", "int", False, (-128, 127)),
        ("int4-g32", "int", True, (-7, 7)),
        ("int2-g32-asym", "int", False, (-2, 1)),
        ("nf4-g64-dq", "codebook", False, (0, 15)),
    ],
)
def test_what_a_scheme_says_of_its_codes(name, kind, symmetric, code_range) -> None:
    scheme = parse_scheme(name)
    assert (scheme.kind, scheme.symmetric, scheme.code_range) == (kind, symmetric, code_range)


def test_a_float_scheme_has_no_codes() -> None:
    assert parse_scheme("bfloat16").kind == "float"
    with pytest.raises(ValueError, match="'bfloat16' has no codes"):
        _ = parse_scheme("bfloat16").code_range


@pytest.mark.parametrize(
    "name",
    [
        "",
        "int4",
        "int4-g0",
        "int4-g032",
        "int5-g32",
        "int8-row",
        "int8-g32-asym",
        "int4-row-asym",
        "nf4",
        "nf4-row",
        "nf4-g64-asym",
        "int4-g32-dq",
        "INT8",
        "int8 ",
        "fp16",
        "int4-g-32",
        "int4-g3\u0662",
    ],
)
def test_other_names_are_refused_with_the_valid_forms(name):
    with pytest.raises(ValueError, match="valid forms: float32, float16") as caught:
        parse_scheme(name)
    assert repr(name) in str(caught.value)


def test_only_strings():
    with pytest.raises(TypeError, match="scheme must be a str"):
        parse_scheme(4)  # type: ignore[arg-type]
