"""The audit finds nothing in a sound spec, and every kind of flaw in a broken one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from slmlab.checking import Case, Close, Exercise, Mistake, audit
from tests.checking.fake_topic import (
    EXERCISES,
    absmax_int8,
    matrices,
    one_scale,
    per_column,
    truncated,
)

INT8 = EXERCISES[0]


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_the_fake_topic_is_sound(exercise: Exercise) -> None:
    assert audit(exercise) == []


def with_mistake(function: Callable[..., Any]) -> Exercise:
    extra = Mistake("extra", "This is one more mistake to see.", function)
    return replace(INT8, mistakes=(*INT8.mistakes, extra))


def with_variant(function: Callable[..., Any]) -> Exercise:
    *others, last = INT8.mistakes
    return replace(INT8, mistakes=(*others, replace(last, variants=(function,))))


def edits(w: torch.Tensor) -> torch.Tensor:
    codes = absmax_int8(w)
    w.zero_()
    return codes


def restless(seed: int) -> list[Case]:
    return [Case({"w": torch.rand(2, 2) + seed})]


def not_written(w: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError


def per_column_sometimes(w: torch.Tensor) -> torch.Tensor:
    return per_column(w) if float(w.flatten()[-1]) > 0 and len(w) == 5 else absmax_int8(w)


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (replace(INT8, points=11), "points is 11"),
        (replace(INT8, minutes=40), "minutes is 40"),
        (replace(INT8, hints=("a", "a", "b")), "two hints are the same"),
        (
            replace(INT8, mistakes=(*INT8.mistakes[1:], Mistake("x", "Too short.", one_scale))),
            "too short to teach",
        ),
        (replace(INT8, cases=restless), "cases differ from one call"),
        (replace(INT8, cases=lambda seed: matrices(seed)[::-1]), "not the smallest"),
        (replace(INT8, reference=edits), "edits ['w'] in place"),
        (replace(INT8, alternatives=(absmax_int8,)), "is the reference itself"),
        (replace(INT8, alternatives=(truncated,)), "alternative 'truncated' does not pass"),
        (with_mistake(lambda w: absmax_int8(w)), "does not fail: it reports passed"),
        (with_mistake(per_column_sometimes), "does not fail: it reports passed"),
        (with_mistake(not_written), "it reports unattempted"),
        (with_mistake(lambda w: one_scale(w)), "match ['one scale', 'extra']"),
        (with_variant(absmax_int8), "'truncated', variant 1, does not fail"),
        (with_variant(one_scale), "'truncated', variant 1, cannot be told apart"),
        (replace(INT8, compare=Close(rtol=0.5)), "'truncated' does not fail"),
    ],
)
def test_every_flaw_is_found(spec: Exercise, complaint: str) -> None:
    found = audit(spec)
    assert any(complaint in line for line in found), found


def test_a_comparison_that_accepts_anything_is_found() -> None:
    found = audit(replace(INT8, compare=Close(rtol=0.0, atol=1e9)))
    assert sum("does not fail" in line for line in found) == len(INT8.mistakes) * 4


def test_a_spec_without_cases_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        audit(replace(INT8, cases=lambda seed: []))
