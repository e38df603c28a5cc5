"""Merging is commutative, associative and idempotent, and nothing ever gets worse."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmlab.checking.logbook import (
    ExerciseRecord,
    Guess,
    Logbook,
    NewerSchema,
    PredictionRecord,
    from_json,
    now,
)
from slmlab.checking.runner import OUTCOMES

START = datetime(2026, 1, 1, tzinfo=UTC)
times = st.integers(0, 20).map(
    lambda s: (START + timedelta(seconds=s)).isoformat(timespec="microseconds")
)
positive = st.floats(1e-6, 1e6)
records = st.builds(
    ExerciseRecord,
    outcome=st.sampled_from(OUTCOMES),
    credit=st.floats(0, 1),
    attempts=st.integers(0, 50),
    hint_rung=st.integers(0, 3),
    passed_at=st.none() | times,
)
guesses = st.lists(st.builds(Guess, times, positive, st.sampled_from(["", "B"])), max_size=4).map(
    lambda items: tuple(sorted(set(items)))
)
measurements = st.tuples(times, times, positive).map(lambda t: (min(t[:2]), max(t[:2]), t[2]))
predictions = st.builds(
    lambda made, done: PredictionRecord(made, *done),
    guesses,
    st.just((None, None, None)) | measurements,
)
logbooks = st.builds(
    Logbook,
    st.dictionaries(st.sampled_from(["a.b", "a.c", "gone.topic"]), records),
    st.dictionaries(st.text(max_size=3), predictions),
)


@given(logbooks, logbooks, logbooks)
def test_merge_laws(one: Logbook, two: Logbook, three: Logbook) -> None:
    assert one.merged(two) == two.merged(one)
    assert one.merged(two).merged(three) == one.merged(two.merged(three))
    assert one.merged(one) == one
    assert one.merged(two).merged(two) == one.merged(two)
    assert one.merged(Logbook()) == one


@given(logbooks, logbooks)
def test_a_merge_never_throws_away_better_progress(mine: Logbook, other: Logbook) -> None:
    both = mine.merged(other)
    for side in (mine, other):
        for key, record in side.exercises.items():
            merged = both.exercises[key]
            assert OUTCOMES.index(merged.outcome) >= OUTCOMES.index(record.outcome)
            assert merged.credit >= record.credit
            assert merged.attempts >= record.attempts
            assert merged.hint_rung >= record.hint_rung
            if record.passed_at is not None:
                assert merged.passed_at is not None and merged.passed_at <= record.passed_at
        for key, prediction in side.predictions.items():
            assert set(prediction.guesses) <= set(both.predictions[key].guesses)
            assert (both.predictions[key].measured is None) <= (prediction.measured is None)


@given(logbooks)
def test_json_round_trip(logbook: Logbook) -> None:
    assert from_json(json.loads(json.dumps(logbook.to_json(), allow_nan=False))) == logbook


def sound() -> dict[str, Any]:
    record = PredictionRecord((Guess(now(), 3.0, "B"),), now(), now(), 4.0)
    return Logbook({"a.b": ExerciseRecord()}, {"p": record}).to_json()


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["schema"], "1", "schema"),
        (["schema"], True, "schema"),
        (["schema"], 0, "schema"),
        (["exercises"], [], "exercises"),
        (["surprise"], 1, "unknown key 'surprise'"),
        (["exercises", "a.b"], None, r"exercises\['a.b'\]"),
        (["exercises", "a.b", "outcome"], "great", "outcome"),
        (["exercises", "a.b", "outcome"], ["passed"], "outcome"),
        (["exercises", "a.b", "credit"], 1.5, "credit"),
        (["exercises", "a.b", "credit"], float("nan"), "credit"),
        (["exercises", "a.b", "attempts"], -1, "attempts"),
        (["exercises", "a.b", "attempts"], True, "attempts"),
        (["exercises", "a.b", "attempts"], 10**400, "attempts"),
        (["exercises", "a.b", "hint_rung"], 4, "hint_rung"),
        (["exercises", "a.b", "passed_at"], "yesterday", "passed_at"),
        (["exercises", "a.b", "extra"], 1, "extra"),
        (["predictions", "p", "guesses"], {}, "guesses"),
        (["predictions", "p", "guesses"], [1], "guesses"),
        (["predictions", "p", "measured"], -1, "measured"),
        (["predictions", "p", "measured"], 10**400, "measured"),
        (["predictions", "p", "measured"], None, "measurement"),
        (["predictions", "p", "guesses", 0, "value"], -3, "value"),
        (["predictions", "p", "guesses", 0, "unit"], None, "unit"),
        (["predictions", "p", "guesses", 0, "at"], "2026-01-01", "at"),
    ],
)
def test_every_bad_field_is_named(path: list[Any], value: Any, words: str) -> None:
    data = json.loads(json.dumps(sound()))
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ValueError, match=words):
        from_json(data)


@pytest.mark.parametrize("field", ["outcome", "credit", "attempts", "hint_rung", "passed_at"])
def test_a_missing_field_is_named(field: str) -> None:
    data = json.loads(json.dumps(sound()))
    del data["exercises"]["a.b"][field]
    with pytest.raises(ValueError, match=f"lacks '{field}'"):
        from_json(data)


def test_a_newer_schema_is_told_apart_from_damage() -> None:
    with pytest.raises(NewerSchema, match="99"):
        from_json({"schema": 99, "anything": []})
