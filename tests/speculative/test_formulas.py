"""The formulas against published values, against a simulation, and at their limits."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from slmlab.speculative import (
    AdaptiveLength,
    acceptance_interval,
    best_gamma,
    expected_speedup,
    expected_tokens,
)

TABLE = Path(
    os.environ.get(
        "SLMLAB_SPECULATIVE_TABLE",
        Path(__file__).parents[3] / "shared" / "reference" / "speculative_decoding.json",
    )
)


@pytest.mark.skipif(not TABLE.is_file(), reason="the table of published values is not present")
def test_published_values() -> None:
    published = json.loads(TABLE.read_text(encoding="utf-8"))["leviathan2023"]
    for row in published["table2"]:
        found = expected_tokens(row["alpha"], row["gamma"])
        assert found == pytest.approx(row["expected_tokens"], abs=6e-5)
        assert expected_speedup(row["alpha"], row["gamma"], 0.0) == pytest.approx(
            row["upper_bound_c0"], abs=6e-5
        )
        c = row["implied_c_if_formula_exact"]
        if c >= 0:  # rounded to four digits there
            found = expected_speedup(row["alpha"], row["gamma"], c)
            assert found == pytest.approx(row["measured_speedup"], rel=2e-3)
    for row in published["table1_from_formula"]:
        assert expected_speedup(row["alpha"], row["gamma"], 0.0) == pytest.approx(
            row["speed"], abs=6e-4
        )
    for c, row in published["optimal_gamma_from_formula"].items():
        if c != "0":
            for alpha, gamma in row.items():
                assert best_gamma(float(alpha), float(c)) == gamma
    assert expected_speedup(0.2, 3, 0.0) == pytest.approx(published["check_bigram"], abs=6e-4)


def test_theorem_values() -> None:
    """Leviathan et al. 2023, table 2: T5-small on English to German, alpha 0.75 at gamma 7."""
    assert expected_tokens(0.75, 7) == pytest.approx((1 - 0.75**8) / 0.25)
    assert expected_tokens(1.0, 4) == 5 and expected_tokens(0.0, 4) == 1
    assert expected_speedup(0.8, 4, 0.1, verify=1.3, overhead=0.2) == pytest.approx(
        expected_tokens(0.8, 4) / 1.9
    )


@given(alpha=st.floats(0, 1), gamma=st.integers(0, 12))
def test_expected_tokens_is_between_one_and_all(alpha: float, gamma: int) -> None:
    assert 1 <= expected_tokens(alpha, gamma) <= gamma + 1


def test_a_simulation() -> None:
    choose = random.Random(0)
    for alpha, gamma in ((0.3, 2), (0.8, 5)):
        total = 0
        for _ in range(20000):
            n = 0
            while n < gamma and choose.random() < alpha:
                n += 1
            total += n + 1
        assert total / 20000 == pytest.approx(expected_tokens(alpha, gamma), rel=0.02)


@given(alpha=st.floats(0, 0.99), c=st.floats(0.001, 2))
def test_best_gamma(alpha: float, c: float) -> None:
    best = best_gamma(alpha, c)
    speeds = [expected_speedup(alpha, gamma, c) for gamma in range(65)]
    assert speeds[best] == max(speeds)
    assert (best == 0) == (max(speeds[1:]) <= 1.0)
    if alpha > c + 1e-9:  # corollary 3.9
        assert speeds[best] >= (1 + alpha) / (1 + c) - 1e-12


def test_interval() -> None:
    for accepted, checked in ((0, 5), (3, 7), (50, 50), (640, 1000)):
        wanted = binomtest(accepted, checked).proportion_ci(0.95, method="wilson")
        found = acceptance_interval(accepted, checked)
        assert found == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_the_length_follows_the_text() -> None:
    length = AdaptiveLength(c=0.2, most=6)
    for _ in range(10):
        length.observe(accepted=6, checked=6)
    assert length.length == 6 and length.alpha > 0.9
    for _ in range(30):
        length.observe(accepted=0, checked=1)
    assert length.length == 1 and length.alpha < 0.5


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: expected_tokens(1.5, 2), ValueError, "alpha=1.5 must lie between 0 and 1"),
        (lambda: expected_tokens(float("nan"), 2), ValueError, "alpha=nan must lie"),
        (lambda: expected_tokens(0.5, -1), ValueError, "gamma=-1 must be at least 0"),
        (lambda: expected_tokens("a", 1), TypeError, "alpha must be a number"),  # type: ignore[arg-type]
        (lambda: expected_speedup(0.5, 1, -0.1), ValueError, "c=-0.1 must be 0 or more"),
        (lambda: expected_speedup(0.5, 1, 0.1, verify=0), ValueError, "verify=0 must be above 0"),
        (lambda: best_gamma(0.5, 0.1, most=-1), ValueError, "most=-1 must be at least 0"),
        (lambda: acceptance_interval(3, 2), ValueError, "accepted=3 must be at most checked=2"),
        (lambda: acceptance_interval(0, 0), ValueError, "checked=0 must be at least 1"),
        (lambda: acceptance_interval(1, 2, 1.0), ValueError, "strictly between 0 and 1"),
        (lambda: AdaptiveLength(0.1, most=0), ValueError, "most=0 must be at least 1"),
    ],
)
def test_refusals(call, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
