"""Timing in turns, prompt by prompt, and ratios with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._speculative_domains import Domain
from benchmarks._speculative_ways import Answer, Way
from slmlab.measure.timing import time_once

RESAMPLES = 2000
CONFIDENCE = 0.95
Clock = Callable[[Callable[[], Any]], tuple[float, float]]


@dataclass
class Laps:
    """One way's seconds and answers, in the order of the prompts."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    def add(self, clock: Clock, run: Callable[[], Answer]) -> None:
        """One more timed answer."""
        wall, cpu = clock(lambda: self.answers.append(run()))
        self.wall.append(wall)
        self.cpu.append(cpu)

    @property
    def processor_share(self) -> float:
        """Processor seconds over the clock's: below 1 where others used the core."""
        return sum(self.cpu) / sum(self.wall)


def race(ways: Sequence[Way], domain: Domain, clock: Clock = time_once) -> dict[str, Laps]:
    """{name: laps}: all ways answer one prompt before the next comes.

    Every second prompt goes backwards, so that none always follows the same way. An answer to the
    first prompt goes before and is not counted. clock: (wall, processor) seconds of a call.
    """
    laps = {way.name: Laps() for way in ways}
    for way in ways:
        way.run(domain.asked[0], domain.temperature, 0)
    for seed, asked in enumerate(domain.asked):
        for way in ways[::-1] if seed % 2 else ways:
            laps[way.name].add(clock, partial(way.run, asked, domain.temperature, seed))
    return laps


def speedup(rival: Laps, ours: Laps) -> dict[str, Any]:
    """How many times as fast ours is, by the clock and by processor time: seconds for all prompts
    over seconds for all prompts, and the interval that another choice of prompts would give."""
    return {
        "wall": _ratio(np.array(rival.wall), np.array(ours.wall)),
        "cpu": _ratio(np.array(rival.cpu), np.array(ours.cpu)),
        "n": len(ours.wall),
    }


def _ratio(rival: NDArray[np.float64], ours: NDArray[np.float64]) -> dict[str, float]:
    """Percentile bootstrap over the prompts (Efron 1979): pairs stay together."""
    picks = np.random.default_rng(0).integers(len(ours), size=(RESAMPLES, len(ours)))
    ratios = rival[picks].sum(1) / ours[picks].sum(1)
    edge = (1 - CONFIDENCE) / 2
    low, high = np.quantile(ratios, (edge, 1 - edge)).tolist()
    return {
        "ratio": round(float(rival.sum() / ours.sum()), 3),
        "low": round(low, 3),
        "high": round(high, 3),
    }


def rates(laps: Laps, tokens: int) -> dict[str, Any]:
    """Tokens a second over all prompts."""
    return {
        "tokens_per_second": round(tokens / sum(laps.wall), 1),
        "tokens_per_cpu_second": round(tokens / sum(laps.cpu), 1),
    }
