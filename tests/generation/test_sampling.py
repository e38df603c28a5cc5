"""Filters against transformers' logits processors, and the invariants that any filter keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from slmlab.generation import next_token_probabilities, sample, top_k_filter, top_p_filter

SEEDS = st.integers(0, 2**31)


def logits_of(seed: int, rows: int = 3, width: int = 40) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * 3


@settings(max_examples=60, deadline=None)
@given(
    seed=SEEDS,
    temperature=st.floats(0.2, 3.0),
    k=st.none() | st.integers(1, 60),
    p=st.none() | st.floats(0.01, 0.999),
)
def test_equals_transformers(seed: int, temperature: float, k: int | None, p: float | None) -> None:
    logits = logits_of(seed)
    processors = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if k is not None:
        processors.append(TopKLogitsWarper(k))
    if p is not None:
        processors.append(TopPLogitsWarper(p))
    unused: Any = torch.zeros(3, 1, dtype=torch.long)
    scores: Any = logits.clone()
    wanted = processors(unused, scores).softmax(dim=-1)
    got = next_token_probabilities(logits, temperature, k, p)
    # The cumulative sum is taken from the other end: only a token on the boundary may differ.
    differing = ((got > 0) != (wanted > 0)).sum(dim=-1)
    if differing.any():
        assert p is not None and differing.max() <= 1
        boundary = wanted.masked_fill(wanted == 0, 2).min(dim=-1).values
        assert (boundary < 1e-4).any() or abs(p - round(p, 3)) < 1e-6
    else:
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, p=st.floats(0.01, 1.0))
def test_nucleus_is_the_smallest_that_reaches_p(seed: int, p: float) -> None:
    logits = logits_of(seed, rows=1)[0]
    kept = top_p_filter(logits, p).isfinite()
    probabilities = logits.softmax(dim=-1).double()
    mass = probabilities[kept].sum()
    assert kept.any() and mass >= p - 1e-6
    if kept.sum() > 1:
        assert mass - probabilities[kept].min() < p + 1e-6
    if not kept.all():
        assert logits[kept].min() >= logits[~kept].max()


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, k=st.integers(1, 50))
def test_top_k_keeps_k(seed: int, k: int) -> None:
    kept = top_k_filter(logits_of(seed), k).isfinite().sum(dim=-1)
    assert (kept == min(k, 40)).all()


def test_temperature_zero_is_the_first_maximum() -> None:
    logits = torch.tensor([[1.0, 5.0, 5.0, 2.0]])
    assert next_token_probabilities(logits, 0.0).tolist() == [[0.0, 1.0, 0.0, 0.0]]


def test_sample_follows_the_distribution() -> None:
    probabilities = torch.tensor([[0.5, 0.0, 0.2, 0.3]]).expand(20_000, -1)
    drawn = sample(probabilities, torch.Generator().manual_seed(0))
    share = drawn.bincount(minlength=4) / len(drawn)
    # Five standard errors of a share of 0.5 over 20,000 draws.
    assert (share - probabilities[0]).abs().max() < 5 * (0.25 / 20_000) ** 0.5
    assert share[1] == 0


@pytest.mark.parametrize(
    ("settings_", "kind", "message"),
    [
        ({"temperature": -0.1}, ValueError, "temperature=-0.1 must be 0"),
        ({"temperature": float("nan")}, ValueError, "temperature=nan"),
        ({"temperature": "hot"}, TypeError, "temperature must be a number"),
        ({"top_k": 0}, ValueError, "top_k=0 must be at least 1"),
        ({"top_k": 2.5}, TypeError, "top_k must be an int"),
        ({"top_p": 0.0}, ValueError, r"top_p=0.0 must lie in \(0, 1\]"),
        ({"top_p": 1.1}, ValueError, "top_p=1.1"),
        ({"top_p": "0.9"}, TypeError, "top_p must be a number, not '0.9'"),
        ({"top_p": True}, TypeError, "top_p must be a number"),
        ({"top_p": float("nan")}, ValueError, "top_p=nan"),
        ({"temperature": 10**400}, ValueError, "temperature=10000"),
    ],
)
def test_bad_settings(settings_: dict[str, object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        next_token_probabilities(torch.zeros(1, 4), **settings_)  # type: ignore[arg-type]


@pytest.mark.parametrize("p", [1e-300, 1e-46, 5e-324])
def test_the_most_likely_token_always_stays(p: float) -> None:
    logits = logits_of(3)
    kept = top_p_filter(logits, p).isfinite()
    assert torch.equal(kept.nonzero()[:, 1], logits.argmax(dim=-1))
    assert torch.equal(next_token_probabilities(logits, 1.0, None, p).argmax(-1), logits.argmax(-1))


@pytest.mark.parametrize("temperature", [5e-324, 1e-50, 1e-40, 1e-10])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    logits = logits_of(4)
    logits[:, 7] = float("-inf")
    wanted = next_token_probabilities(logits, 0.0)
    assert torch.equal(next_token_probabilities(logits, temperature), wanted)
    assert torch.equal(next_token_probabilities(logits, temperature, 5, 0.9), wanted)


def test_a_huge_temperature_is_uniform_over_what_is_allowed() -> None:
    logits = torch.tensor([[1.0, float("-inf"), -30.0, 4.0]])
    for temperature in (1e37, 1e300):
        got = next_token_probabilities(logits, temperature)
        torch.testing.assert_close(got, torch.tensor([[1 / 3, 0.0, 1 / 3, 1 / 3]]))
