"""start.softmax against exact arithmetic."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slmlab.lessons.start import EXERCISES, SOFTMAX

rows = st.lists(st.floats(-2000, 2000, width=32), min_size=1, max_size=6)
temperatures = st.floats(0.1, 10.0)


@given(row=rows, temperature=temperatures)
def test_reference_against_decimals(row: list[float], temperature: float) -> None:
    # Decimal's exponent has no practical limit: nothing needs to be subtracted.
    exponentials = [(Decimal(value) / Decimal(temperature)).exp() for value in row]
    wanted = [float(value / sum(exponentials)) for value in exponentials]
    found = SOFTMAX.reference(torch.tensor([row]), temperature)[0].tolist()
    # float32 holds logit / temperature to seven digits; the exponent turns that into an error.
    error = 1e-6 + 2e-7 * max(abs(value) for value in row) / temperature
    assert found == pytest.approx(wanted, rel=min(error, 0.5), abs=1e-6)


@given(row=rows, temperature=temperatures, shift=st.integers(-500, 500))
def test_a_shift_changes_nothing(row: list[float], temperature: float, shift: int) -> None:
    # Whole numbers add exactly in float32.
    logits = torch.tensor([row]).round()
    before = SOFTMAX.reference(logits, temperature)
    after = SOFTMAX.reference(logits + shift, temperature)
    assert before.sum().item() == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(after, before, rtol=1e-2, atol=1e-4)


def test_the_worked_examples() -> None:
    found = SOFTMAX.reference(torch.tensor([[2.0, 0.0, -2.0]]), 2.0)[0].tolist()
    assert ", ".join(f"{value:.4f}" for value in found) in SOFTMAX.hints[1]
    assert f"{sum(math.exp(-k) for k in range(3)):.4f}" in SOFTMAX.hints[1]
    stated = SOFTMAX.reference(torch.tensor([[0.0, 1.0986]]), 1.0)
    torch.testing.assert_close(stated, torch.tensor([[0.25, 0.75]]), rtol=0, atol=1e-4)


def test_lesson_00_has_one_exercise_of_two_points() -> None:
    assert [(e.id, e.points) for e in EXERCISES] == [("start.softmax", 2)]
