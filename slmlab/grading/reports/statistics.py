"""Figures of a class: how the totals are spread, which exercises are hard, which mistakes common."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass

from slmlab.grading.overrides import points_of
from slmlab.grading.records import Grade
from slmlab.grading.reports.results import Results

BINS = 10


@dataclass(frozen=True)
class Bin:
    """One bar: shares from `low` to `high` (the last one with its end), and how many students."""

    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Hardness:
    """One exercise: the mean share of its points, and how many students had which outcome."""

    exercise_id: str
    title: str
    mean_share: float
    outcomes: dict[str, int]


@dataclass(frozen=True)
class CommonMistake:
    """A named mistake, its sentence as the first student got it, and how many made it."""

    exercise_id: str
    name: str
    sentence: str
    count: int


def counted(results: Results) -> list[Grade]:
    """The submissions that ran; the others say nothing about an exercise."""
    return [g for g in results.grades if g.status in ("graded", "stopped") and g.max_total]


def shares(results: Results) -> list[float]:
    """Total over maximum of every submission that ran."""
    return [results.total(grade) / grade.max_total for grade in counted(results)]


def distribution(values: list[float]) -> list[Bin]:
    """Ten bars of equal width over 0 to 1."""
    places = Counter(min(int(value * BINS + 1e-9), BINS - 1) for value in values)
    return [Bin(i / BINS, (i + 1) / BINS, places[i]) for i in range(BINS)]


def middle(values: list[float]) -> tuple[float, float]:
    """Mean and median; 0 of nothing."""
    if not values:
        return 0.0, 0.0
    return statistics.fmean(values), statistics.median(values)


def hardest(results: Results) -> list[Hardness]:
    """All exercises, the hardest first."""
    rows = []
    grades = counted(results)
    for name in results.plan.exercises:
        items = [(g, e) for g in grades for e in g.exercises if e.exercise_id == name]
        if not items:
            continue
        mean = statistics.fmean(points_of(g, e, results.overrides) / e.max_points for g, e in items)
        outcomes = Counter(str(e.outcome) for _, e in items)
        rows.append(Hardness(name, items[0][1].title, mean, dict(sorted(outcomes.items()))))
    return sorted(rows, key=lambda row: row.mean_share)


def mistakes(results: Results, most: int = 15) -> list[CommonMistake]:
    """The named mistakes, the commonest first."""
    count: Counter[tuple[str, str]] = Counter()
    sentences: dict[tuple[str, str], str] = {}
    for grade in results.grades:
        for item in grade.exercises:
            if item.mistake:
                key = (item.exercise_id, item.mistake)
                count[key] += 1
                sentences.setdefault(key, item.sentence)
    ordered = sorted(count.items(), key=lambda pair: (-pair[1], pair[0]))
    return [CommonMistake(*key, sentences[key], number) for key, number in ordered[:most]]
