"""Every registered exercise keeps the rules of a spec; the fake topic shows that the rules bite."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from slmlab.checking import Exercise, proof, registered, registry, topics
from tests.checking.fake_topic import EXERCISES as FAKE

SEEDS = (0, 1, 2, 3)


class Found(NamedTuple):
    """What collection could load, and why the rest could not be."""

    exercises: tuple[Exercise, ...]
    broken: dict[str, str]


def found() -> Found:
    """All exercises of all topics, with the fake one; a broken topic must not hide the others."""
    exercises: list[Exercise] = []
    broken: dict[str, str] = {}
    with registered("fake", FAKE):
        for topic in topics():
            try:
                exercises += registry.exercises(topic)
            except Exception as error:
                broken[topic] = str(error)
    return Found(tuple(exercises), broken)


FOUND = found()
each_exercise = pytest.mark.parametrize("exercise", FOUND.exercises, ids=lambda item: item.id)


@pytest.fixture(autouse=True)
def fake_topic() -> Iterator[None]:
    with registered("fake", FAKE):
        yield


def test_every_topic_loads() -> None:
    assert FOUND.broken == {}


def test_ids_are_unique_and_begin_with_their_topic() -> None:
    ids = [exercise.id for exercise in FOUND.exercises]
    assert len(ids) == len(set(ids))
    for topic in set(topics()) - set(FOUND.broken):
        assert registry.exercises(topic), f"topic {topic} has no exercise"
        for exercise in registry.exercises(topic):
            assert exercise.id.split(".") == [topic, exercise.id.removeprefix(f"{topic}.")]
            assert registry.get(exercise.id) is exercise


def test_something_was_collected() -> None:
    assert {exercise.id for exercise in FAKE} <= {exercise.id for exercise in FOUND.exercises}


@each_exercise
def test_fields_are_in_range(exercise: Exercise) -> None:
    assert 1 <= exercise.points <= 10
    assert 3 <= exercise.minutes <= 15
    assert exercise.difficulty in (1, 2, 3)
    assert 3 <= len(exercise.mistakes) <= 6
    assert len(exercise.hints) == 3
    assert proof.fields(exercise) == []


@each_exercise
def test_cases_are_steady_and_the_smallest_comes_first(exercise: Exercise) -> None:
    assert proof.cases(exercise, SEEDS) == []


@each_exercise
def test_a_blank_is_unattempted(exercise: Exercise) -> None:
    assert proof.blank(exercise, SEEDS) == []


@each_exercise
def test_right_answers_pass(exercise: Exercise) -> None:
    assert proof.right_answers(exercise, SEEDS) == []


@each_exercise
def test_every_mistake_fails_with_its_own_sentence(exercise: Exercise) -> None:
    assert proof.mistakes(exercise, SEEDS) == []
