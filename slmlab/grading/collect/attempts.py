"""A student handed in twice: which files count.

The latest wins, by the order of the place that it was downloaded from (layout.py), else by the time
of the file. Where times cannot tell, everything is read, and the best answer to an exercise counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slmlab.grading.collect.layout import Item
from slmlab.grading.collect.notebook import Notebook

SAME_TIME = 2.0  # seconds: what the clock of a zip can tell apart, and what a git clone takes


@dataclass(frozen=True)
class Reading:
    """A notebook that was read, the order of what it came in, the graded ids that it names."""

    notebook: Notebook
    order: tuple[float, ...]
    ids: frozenset[str]

    def replaces(self, other: Reading) -> bool:
        """It is later, and has a cell for all that the other has one for."""
        if not other.ids or not other.ids <= self.ids:
            return False
        if _later(self.order, other.order) or _later(other.order, self.order):
            return _later(self.order, other.order)
        return self.notebook.entry.time > other.notebook.entry.time + SAME_TIME


def latest(items: Sequence[Item]) -> tuple[list[Item], list[str]]:
    """Of one student's folders and files the newest of each, and what to flag.

    One without a notebook or a zip counts only where there is no other.
    """
    with_work = [item for item in items if item.may_hold_work] or list(items)
    groups: dict[str, list[Item]] = {}
    for item in sorted(with_work, key=lambda item: item.top):
        groups.setdefault(item.file, []).append(item)
    chosen: list[Item] = []
    flags: list[str] = []
    for group in groups.values():
        newest = max(item.order for item in group)
        kept = [item for item in group if not _later(newest, item.order)]
        chosen += kept
        if len(group) > len(kept):
            flags.append(f"{len(group)} submissions, latest taken")
        elif len(kept) > 1:
            flags.append(f"{len(kept)} submissions of the same time, all read")
    if any(item.late for item in chosen):
        flags.append("late")
    return chosen, flags


def choose(readings: Sequence[Reading]) -> tuple[list[Reading], list[str]]:
    """Of one student's notebooks those that count, and what to flag."""
    flags: list[str] = []
    relevant = [reading for reading in readings if reading.ids] or list(readings)
    if (count := len(readings) - len(relevant)) > 0:
        flags.append(f"{count} notebook{'s' * (count > 1)} without these exercises left out")
    own = _without_published(relevant)
    if len(own) < len(relevant):
        flags.append("solutions/ left out")
    distinct: dict[str, Reading] = {}
    for reading in own:
        held = distinct.setdefault(reading.notebook.sha256, reading)
        if reading.notebook.entry.time > held.notebook.entry.time:
            distinct[reading.notebook.sha256] = reading
    left = list(distinct.values())
    kept = [one for one in left if not any(other.replaces(one) for other in left)]
    if len(kept) < len(left):
        flags.append(f"{len(left) - len(kept) + 1} submissions, latest taken")
    return kept, flags


def _without_published(readings: Sequence[Reading]) -> list[Reading]:
    """A clone of the workbook brings its solutions along, and those are not the student's answer.

    A student's own folder of that name counts where no other file answers the same exercises.
    """

    def published(reading: Reading) -> bool:
        return "solutions" in reading.notebook.entry.parts[1:-1]

    covered: frozenset[str] = frozenset()
    for reading in readings:
        if not published(reading):
            covered |= reading.ids
    return [one for one in readings if not published(one) or not one.ids <= covered]


def _later(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    if len(one) == len(other) == 1:
        return one[0] > other[0] + SAME_TIME
    return one > other
