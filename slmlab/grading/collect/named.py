"""Which exercises cells name, found without running them.

This is for flags and for choosing among notebooks. It is no proof: a comment or a text may name an
exercise too, and code can define one in other ways. What counts is what ran in the sandbox.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence

from slmlab.checking.spec import ID_PATTERN
from slmlab.grading.records import Cell, Submission

# On one line and not behind a "#": @exercise("topic.name"), slmlab.exercise('topic.name')
_NAMED = re.compile(
    r"^[^#\n]*?\bexercise[ \t]*\([ \t]*(?:id[ \t]*=[ \t]*)?"
    r"(?:[rRuUbB]?\"([^\"\n]{1,200})\"|[rRuUbB]?'([^'\n]{1,200})')",
    re.MULTILINE,
)


def ids_named(cells: Iterable[Cell]) -> list[str]:
    """Exercise ids in the order in which `cells` name them, again where one is named again."""
    return [name for cell in cells for name in ids_in(cell.source)]


def ids_in(source: str) -> list[str]:
    """The same for the text of one cell."""
    if "exercise" not in source:
        return []
    found = [match[1] or match[2] for match in _NAMED.finditer(source)]
    return [name for name in found if ID_PATTERN.fullmatch(name)]


def flags_of(submission: Submission, wanted_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Wanted id -> its flags, for each id that has one; none of them is trusted.

    "missing"      no cell names it
    "duplicated"   it is named more than once
    "moved"        it stands elsewhere than the order of `wanted_ids` says; of two that changed
                   places only one is flagged

    wanted_ids are in the order of the handout. Raises TypeError for one text instead of a sequence.
    """
    if isinstance(wanted_ids, str):
        raise TypeError("wanted_ids must be a sequence of exercise ids: write [id] for one.")
    places = {name: place for place, name in enumerate(wanted_ids)}
    named = [name for name in ids_named(submission.cells) if name in places]
    count = Counter(named)
    order = [places[name] for name in dict.fromkeys(named)]
    kept = set(_longest_rise(order))
    flags = {}
    for name, place in places.items():
        found = []
        if not count[name]:
            found.append("missing")
        elif place not in kept:
            found.append("moved")
        if count[name] > 1:
            found.append("duplicated")
        if found:
            flags[name] = tuple(found)
    return flags


def _longest_rise(values: Sequence[int]) -> list[int]:
    """A longest increasing subsequence: what stayed in order (patience sorting)."""
    ends: list[int] = []  # smallest last value of a rise of each length
    at: list[int] = []  # its place in values
    before: list[int] = []
    for place, value in enumerate(values):
        length = bisect_left(ends, value)
        before.append(at[length - 1] if length else -1)
        ends[length : length + 1] = [value]
        at[length : length + 1] = [place]
    rise = []
    place = at[-1] if at else -1
    while place >= 0:
        rise.append(values[place])
        place = before[place]
    return rise[::-1]
