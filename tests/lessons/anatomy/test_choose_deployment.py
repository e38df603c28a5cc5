"""anatomy.choose_deployment against exact fractions over every scheme."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from slmlab.checking import check, make_cases
from slmlab.lessons.anatomy.choose_deployment import (
    CHOOSE_DEPLOYMENT,
    best_that_fits,
    fixed_cases,
)

models = st.fixed_dictionaries(
    {
        "parameters": st.integers(10**8, 5 * 10**9),
        "num_hidden_layers": st.integers(1, 40),
        "num_key_value_heads": st.integers(1, 16),
        "head_dim": st.sampled_from((32, 64, 128)),
    }
)
tables = st.dictionaries(
    st.sampled_from("abcdef"),
    st.tuples(st.sampled_from((2.5, 3.5, 4.5, 8.5, 16.0)), st.floats(0.0, 1.0)),
    min_size=1,
    max_size=5,
)
problems = st.fixed_dictionaries(
    {
        "device": st.fixed_dictionaries(
            {"memory_gb": st.floats(0.1, 10.0), "bandwidth_gb_s": st.floats(5.0, 200.0)}
        ),
        "model": models,
        "schemes": tables,
        "context": st.integers(0, 20_000),
        "tokens_per_second": st.floats(1.0, 200.0),
    }
)


def _margins(problem: dict[str, Any]) -> dict[str, Fraction]:
    """Scheme -> budget over need, the tighter of the two budgets: at least 1 where it fits."""
    model, device = problem["model"], problem["device"]
    cache = Fraction(4 * model["num_hidden_layers"] * problem["context"])
    cache *= model["num_key_value_heads"] * model["head_dim"]
    budget = min(
        Fraction(device["memory_gb"]),
        Fraction(device["bandwidth_gb_s"]) / Fraction(problem["tokens_per_second"]),
    )
    return {
        name: 10**9 * budget / (model["parameters"] * Fraction(bits) / 8 + cache)
        for name, (bits, _) in problem["schemes"].items()
    }


@given(problem=problems)
def test_reference_and_alternative_against_fractions(problem: dict[str, Any]) -> None:
    margins = _margins(problem)
    assume(all(abs(margin - 1) > Fraction(1, 10**9) for margin in margins.values()))
    losses = {name: problem["schemes"][name][1] for name in margins if margins[name] >= 1}
    for choose in (CHOOSE_DEPLOYMENT.reference, *CHOOSE_DEPLOYMENT.alternatives):
        found = choose(**problem)
        assert (found is None) == (not losses)
        assert found is None or losses[found] == min(losses.values())


@given(problem=problems)
def test_the_invariant_accepts_the_best_and_nothing_else(problem: dict[str, Any]) -> None:
    margins = _margins(problem)
    assume(all(abs(margin - 1) > Fraction(1, 10**9) for margin in margins.values()))
    losses = {name: problem["schemes"][name][1] for name in margins if margins[name] >= 1}
    for name in (*problem["schemes"], None):
        right = losses.get(name, 2.0) == min(losses.values(), default=None)
        if name is None:
            right = not losses
        assert (best_that_fits(problem, name) is None) == right
    assert best_that_fits(problem, "no such scheme") is not None


def test_no_case_hangs_on_rounding() -> None:
    for seed in range(30):
        for case in make_cases(CHOOSE_DEPLOYMENT, seed):
            margins = _margins(case.arguments)
            assert all(abs(margin - 1) > Fraction(1, 200) for margin in margins.values())


def _first_that_fits(
    gigabyte: float,
    cache_in_speed: bool,
    device: dict[str, float],
    model: dict[str, float],
    schemes: dict[str, tuple[float, float]],
    context: int,
    tokens_per_second: float,
) -> str | None:
    cache = 4 * model["num_hidden_layers"] * model["num_key_value_heads"] * model["head_dim"]
    for name, (bits, _) in sorted(schemes.items(), key=lambda item: item[1][1]):
        weights = model["parameters"] * bits / 8
        read = weights + (cache * context if cache_in_speed else 0)
        fits = weights + cache * context <= device["memory_gb"] * gigabyte
        if fits and device["bandwidth_gb_s"] * gigabyte / read >= tokens_per_second:
            return name
    return None


@pytest.mark.parametrize(
    ("gigabyte", "cache_in_speed", "name"),
    [
        (1e9, True, None),
        (1e9, False, "KV cache missing from the speed"),
        (2.0**30, True, "GiB for GB"),
    ],
)
def test_half_right_budgets_are_named(
    gigabyte: float, cache_in_speed: bool, name: str | None
) -> None:
    choose = partial(_first_that_fits, gigabyte, cache_in_speed)
    for seed in range(20):
        report = check(CHOOSE_DEPLOYMENT, lambda **arguments: choose(**arguments), seed)
        assert report.outcome == ("passed" if name is None else "wrong")
        mistake = report.diagnosis.mistake if report.diagnosis else None
        assert (mistake.name if mistake else None) == name


def test_the_fixed_cases_have_these_answers() -> None:
    found = [CHOOSE_DEPLOYMENT.reference(**case.arguments) for case in fixed_cases()]
    assert found == [None, "int4", "int4"]


def test_a_wrong_choice_is_told_the_numbers_that_break_it() -> None:
    report = check(CHOOSE_DEPLOYMENT, lambda schemes, **rest: next(iter(schemes)))
    assert report.outcome == "wrong" and report.diagnosis is not None
    # The smallest failing case is the one in which nothing fits.
    assert "needs" in report.diagnosis.sentence and "GB" in report.diagnosis.sentence
    first = make_cases(CHOOSE_DEPLOYMENT, 0)[0].arguments
    told = best_that_fits(first, "int2")
    assert told == "'int2' meets both budgets, and 'int4' does too and loses less quality."
    too_large = {
        "device": {"memory_gb": 0.5, "bandwidth_gb_s": 50.0},
        "model": {
            "parameters": 10**9,
            "num_hidden_layers": 16,
            "num_key_value_heads": 8,
            "head_dim": 64,
        },
        "schemes": {"int8": (8.5, 0.01)},
        "context": 0,
        "tokens_per_second": 10.0,
    }
    told = best_that_fits(too_large, "int8")
    assert told == "'int8' needs 1.062 GB with its KV cache and the device has 0.5."


def test_the_worked_example() -> None:
    problem = {
        "device": {"memory_gb": 0.6, "bandwidth_gb_s": 50.0},
        "model": {
            "parameters": 8 * 10**8,
            "num_hidden_layers": 12,
            "num_key_value_heads": 4,
            "head_dim": 128,
        },
        "schemes": {"int8": (8.5, 0.01), "int4": (4.5, 0.05), "int2": (2.5, 0.9)},
        "context": 1000,
        "tokens_per_second": 80.0,
    }
    assert CHOOSE_DEPLOYMENT.reference(**problem) == "int4"
    sizes = {name: 0.6 / float(margin) for name, margin in _margins(problem).items()}
    assert f"{sizes['int8']:.4f} GB, too large" in CHOOSE_DEPLOYMENT.hints[1]
    assert f"{sizes['int4']:.4f} GB, {50 / sizes['int4']:.1f} tokens" in CHOOSE_DEPLOYMENT.hints[1]
    assert f"{sizes['int2']:.4f} GB, fits" in CHOOSE_DEPLOYMENT.hints[1]
