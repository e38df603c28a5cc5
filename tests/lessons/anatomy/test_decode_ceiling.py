"""anatomy.decode_ceiling against predict_decode on the published shape, and its tolerance."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from slmlab.checking import check
from slmlab.lessons.anatomy.decode_ceiling import DECODE_CEILING
from slmlab.measure import predict_decode


def test_reference_against_the_lessons_predictor() -> None:
    # Llama-3.2-1B has 1.236e9 parameters, the datasheet says 1.24e9.
    config = SimpleNamespace(
        vocab_size=128256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        tie_word_embeddings=True,
    )
    wanted = predict_decode(config, "int4-g32", (50, None), context=8192, head_scheme="int4-g32")
    assert DECODE_CEILING.reference() == pytest.approx(wanted.tokens_per_second, rel=0.005)
    assert DECODE_CEILING.reference() == pytest.approx(51.8, abs=0.05)


@pytest.mark.parametrize(
    ("factor", "outcome"), [(1.0, "passed"), (0.971, "passed"), (1.029, "passed"), (1.031, "wrong")]
)
def test_three_percent(factor: float, outcome: str) -> None:
    report = check(DECODE_CEILING, lambda: factor * DECODE_CEILING.reference())
    assert report.outcome == outcome


@pytest.mark.parametrize(
    "answer", [0, -51.8, math.nan, math.inf, "51.8", True, [51.8], None, torch.tensor(51.8)]
)
def test_no_number_never_passes(answer: Any) -> None:
    report = check(DECODE_CEILING, lambda: answer)
    assert report.outcome == "wrong"
    assert report.diagnosis is not None and len(report.diagnosis.sentence) > 20


def test_a_wrong_answer_is_not_told_the_right_one() -> None:
    for answer in (40.0, *(mistake.implementation() for mistake in DECODE_CEILING.mistakes)):
        report = check(DECODE_CEILING, lambda answer=answer: answer)
        assert report.diagnosis is not None and report.diagnosis.counterexample is not None
        told = report.diagnosis.sentence + report.diagnosis.counterexample.sentence
        assert "51.7" not in told and "51.8" not in told and "wanted" not in told


def test_the_worked_examples() -> None:
    cache = 2 * 10 * 4 * 64 * 2 * 1000 / 1e9
    assert f"{cache:.5f} GB" in DECODE_CEILING.hints[1]
    assert f"{20 / (0.5 + cache):.1f} tokens" in DECODE_CEILING.hints[1]
