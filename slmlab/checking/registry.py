"""Finds exercises by id: entry points in the group "slmlab.exercises", one per topic.

Only the topic that is asked for is imported, so checking never imports a higher floor by itself,
and a pack of another distribution is found the same way.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from slmlab.checking.spec import ID_PATTERN, Exercise

GROUP = "slmlab.exercises"

_registered: dict[str, tuple[Exercise, ...]] = {}
_loaded: dict[str, tuple[Exercise, ...]] = {}


# Entry points carry no order. Other people's topics follow the workbook's, by name.
LESSON_ORDER = (
    "start",
    "anatomy",
    "quantization",
    "calibration",
    "kv",
    "paging",
    "speculative",
    "distillation",
)


def topics() -> tuple[str, ...]:
    """Names of all topics in the order of the lessons; imports none of them."""
    names = {*_registered, *(point.name for point in entry_points(group=GROUP))}
    ours = [name for name in LESSON_ORDER if name in names]
    return (*ours, *sorted(names - set(ours)))


def exercises(topic: str) -> tuple[Exercise, ...]:
    """All exercises of one topic, in the author's order.

    Raises ValueError for an unknown topic, for one offered by two packages, and for one whose
    module cannot be imported or breaks the rules of a spec.
    """
    if not isinstance(topic, str):
        raise TypeError(f"topic must be text, not {type(topic).__name__}.")
    if topic in _registered:
        return _registered[topic]
    if topic not in _loaded:
        points = [point for point in entry_points(group=GROUP) if point.name == topic]
        if not points:
            raise ValueError(f"There is no topic {topic!r}.{_close(topic, topics())}")
        _loaded[topic] = _load(topic, points)
    return _loaded[topic]


def get(exercise_id: str) -> Exercise:
    """The exercise with this id.

    Raises ValueError listing close matches where there is none, and all ids of a topic that
    stands alone.
    """
    if not isinstance(exercise_id, str):
        raise TypeError(
            f"exercise id must be text such as 'topic.name', not {type(exercise_id).__name__}."
        )
    if exercise_id in topics():
        ids = ", ".join(item.id for item in exercises(exercise_id))
        raise ValueError(
            f"{exercise_id!r} is a topic and not an exercise. "
            + (f"Its exercises: {ids}." if ids else "It has no exercises.")
        )
    if not ID_PATTERN.fullmatch(exercise_id):
        raise ValueError(
            f"{exercise_id!r} is not an exercise id: write 'topic.name'."
            f"{_close(exercise_id, topics())}"
        )
    topic = exercise_id.split(".", 1)[0]
    if topic not in topics():
        raise ValueError(
            f"There is no exercise {exercise_id!r}, because there is no topic {topic!r}."
            f"{_close(topic, topics())}"
        )
    found = {item.id: item for item in exercises(topic)}
    if exercise_id not in found:
        raise ValueError(f"There is no exercise {exercise_id!r}.{_close(exercise_id, found)}")
    return found[exercise_id]


def all_exercises() -> tuple[Exercise, ...]:
    """Every exercise of every topic: imports all the topics."""
    return tuple(item for topic in topics() for item in exercises(topic))


def register(topic: str, items: Iterable[Exercise]) -> None:
    """Registers a topic in this process only; it hides an installed topic of the same name."""
    _registered[topic] = _checked(topic, tuple(items))


def unregister(topic: str) -> None:
    """Undoes register()."""
    _registered.pop(topic, None)


@contextmanager
def registered(topic: str, items: Iterable[Exercise]) -> Iterator[tuple[Exercise, ...]]:
    """register() for the length of a with block; what was registered before comes back."""
    before = _registered.get(topic)
    register(topic, items)
    try:
        yield _registered[topic]
    finally:
        unregister(topic)
        if before is not None:
            _registered[topic] = before


def _load(topic: str, points: list[EntryPoint]) -> tuple[Exercise, ...]:
    if len({point.value for point in points}) > 1:
        offers = ", ".join(sorted(point.value for point in points))
        raise ValueError(f"Topic {topic!r} is offered twice ({offers}): uninstall one of them.")
    try:
        items: Any = points[0].load()
    except Exception as error:
        raise ValueError(
            f"Topic {topic!r} ({points[0].value}) could not be loaded: "
            f"{type(error).__name__}: {error}. Mend or reinstall the package that offers it."
        ) from error
    return _checked(topic, items)


def _checked(topic: str, items: Any) -> tuple[Exercise, ...]:
    if not isinstance(items, tuple) or not all(isinstance(item, Exercise) for item in items):
        raise TypeError(f"Topic {topic!r}: EXERCISES must be a tuple of Exercise.")
    ids = [item.id for item in items]
    strays = [name for name in ids if not name.startswith(f"{topic}.")]
    if strays:
        raise ValueError(f"Topic {topic!r}: the id {strays[0]!r} must begin with '{topic}.'.")
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise ValueError(f"Topic {topic!r}: the id {twice[0]!r} is used twice.")
    return items


def _close(word: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    if near:
        return f" Did you mean {' or '.join(repr(name) for name in near)}?"
    return f" Known: {', '.join(names)}." if names else " No topic is installed."
