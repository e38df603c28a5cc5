from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmlab.widgets.units import bytes_text, count_text, digits, seconds_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.03125, "0.0312"),
        (5.05, "5.05"),
        (32.74, "32.7"),
        (2600, "2,600"),
        (989_000, "989,000"),
        (1.0, "1"),
        (100, "100"),
        (0.00012, "0.00012"),
    ],
)
def test_digits(value, text):
    assert digits(value) == text


@given(st.floats(1e-6, 1e12))
def test_digits_lose_less_than_half_a_percent_and_use_no_exponent(value):
    text = digits(value)
    assert re.fullmatch(r"[\d,]+(\.\d+)?", text)
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.005)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (640, "640 B"),
        (999_999, "1 MB"),
        (6_900_000, "6.9 MB"),
        (1_072_828_416, "1.07 GB"),
    ],
)
def test_bytes(count, text):
    assert bytes_text(count) == text


def test_counts_and_seconds():
    assert [count_text(n) for n in (576, 134_515_008, 1_235_814_400)] == ["576", "135 M", "1.24 B"]
    assert [seconds_text(s) for s in (1.5, 0.071, 9e-5)] == ["1.5 s", "71 ms", "90 µs"]
    assert seconds_text(0.9999) == "1 s"


@given(st.integers(0, 10**14))
def test_bytes_keep_three_digits(count):
    number, unit = bytes_text(count).split(" ")
    size = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert math.isclose(float(number.replace(",", "")) * size, count, rel_tol=0.005)
