"""Which exercises a run grades: named by id or topic, by an assignment file, or by the submissions."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from slmlab.checking import Exercise, registry
from slmlab.grading.collect.named import ids_named
from slmlab.grading.records import Submission


def specs(ids: Iterable[str]) -> tuple[Exercise, ...]:
    """The registered exercises with these ids; ValueError, with close matches, for another.

    A topic that is loaded is asked directly: registry.get() reads the metadata of every installed
    package each time.
    """
    found = []
    for name in ids:
        topic = name.split(".", 1)[0]
        try:
            found.append(next(item for item in registry.exercises(topic) if item.id == name))
        except (StopIteration, ValueError):
            found.append(registry.get(name))
    return tuple(found)


def named_exercises(given: Iterable[str]) -> tuple[str, ...]:
    """Ids from ids and topics, separated by commas or spaces too, in the order given.

    Raises ValueError, with close matches, for one that is not registered.
    """
    found: list[str] = []
    topics = registry.topics()
    for word in (word for text in given for word in re.split(r"[,\s]+", text) if word):
        if word in topics:
            found += [item.id for item in registry.exercises(word)]
        else:
            found.append(specs([word])[0].id)
    return tuple(dict.fromkeys(found))


def assigned_exercises(path: Path) -> tuple[str, ...]:
    """The ids of an assignment file, which `slmlab release` writes.

    Raises ValueError where it cannot be read, names none, or names one that is not registered.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        listed = content["exercises"]
        ids = [item if isinstance(item, str) else item["id"] for item in listed]
    except FileNotFoundError:
        raise ValueError(f"--assignment {path}: there is no such file.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"--assignment {path} is no assignment file ({type(error).__name__}: {error}): pass "
            "the assignment.json that `slmlab release` wrote."
        ) from None
    if not ids:
        raise ValueError(f"--assignment {path} names no exercises.")
    return tuple(dict.fromkeys(item.id for item in specs(ids)))


def common_exercises(
    submissions: Sequence[Submission],
) -> tuple[tuple[str, ...], dict[str, int]]:
    """(ids to grade, ids left out -> how many submissions name them), found in the submissions.

    An id counts where it is registered and at least a third of the readable submissions name it (of
    three or more: at least two), so that one stranger's cell adds no column for everybody.
    Raises ValueError where none is left.
    """
    readable = [item for item in submissions if item.problem is None]
    counts: Counter[str] = Counter()
    for submission in readable:
        counts.update(set(ids_named(submission.cells)))
    known = _registered(counts)
    needed = max(-(-len(readable) // 3), 2 if len(readable) >= 3 else 1)
    chosen = tuple(name for name in known if counts[name] >= needed)
    if not chosen:
        raise ValueError(
            "The submissions name no exercise that is registered here: name the exercises with "
            "--exercises, and install the pack that they come from."
        )
    return chosen, {name: counts[name] for name in known if name not in chosen}


def _registered(names: Iterable[str]) -> list[str]:
    """Those of the ids that are registered, in the order of the lessons."""
    wanted = set(names)
    topics = {name.split(".", 1)[0] for name in wanted}
    return [
        item.id
        for topic in registry.topics()
        if topic in topics
        for item in registry.exercises(topic)
        if item.id in wanted
    ]
