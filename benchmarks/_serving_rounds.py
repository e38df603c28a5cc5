"""Timing of many ways in turns, their ratios, and whether they say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks._identity import NEAR_TIE, first_difference
from benchmarks._serving_engines import Run, Way
from benchmarks._serving_trace import Asked
from slmlab.measure import Interleaved, Times
from slmlab.measure.timing import time_once
from slmlab.models import Decoder


@dataclass
class Laps:
    """Seconds of one way, a round at a time, and what its runs gave."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    def add(self, way: Way, trace: Sequence[Asked]) -> None:
        """One more timed run."""
        with way.ready(trace):
            wall, cpu = time_once(lambda: self.runs.append(way.run(trace)))
        self.wall.append(wall)
        self.cpu.append(cpu)

    def times(self, processor: bool) -> Times:
        """With ``processor`` its seconds stand for the clock's: ratios are then of those."""
        cpu = tuple(self.cpu)
        return Times(wall=cpu if processor else tuple(self.wall), process=cpu)


Standings = dict[tuple[str, int], Laps]


def race(ways: Sequence[Way], trace: Sequence[Asked], rounds: int) -> Standings:
    """{(name, at once): laps}. Every second round goes backwards, so that none always follows
    the same way; a short run of each goes before and is not counted."""
    short = [Asked(asked.prompt, 2) for asked in trace[:2]]
    laps: Standings = {(way.name, way.at_once): Laps() for way in ways}
    for way in ways:
        with way.ready(short):
            way.run(short)
    for number in range(rounds):
        for way in ways[::-1] if number % 2 else ways:
            laps[way.name, way.at_once].add(way, trace)
    return laps


def ratio(rival: Laps, ours: Laps) -> dict[str, Any]:
    """How many times as fast ours is: median, low and high of the rounds, by the clock and by
    processor time."""
    result: dict[str, Any] = {}
    for name, processor in (("wall", False), ("cpu", True)):
        timed = Interleaved(rival.times(processor), ours.times(processor))
        result[name] = {
            "ratio": round(timed.ratio, 2),
            "low": round(timed.ratio_low, 2),
            "high": round(timed.ratio_high, 2),
            "n": timed.n,
        }
    return result


def rates(laps: Laps, tokens: int) -> dict[str, Any]:
    """Of one way: tokens a second of its fastest round, times to first tokens of all rounds."""
    ttft = [seconds for run in laps.runs for seconds in run.ttft or ()]
    row: dict[str, Any] = {
        "tokens_per_second": round(tokens / min(laps.wall), 1),
        "tokens_per_cpu_second": round(tokens / min(laps.cpu), 1),
        "ttft_ms": percentiles(ttft),
    }
    stats = laps.runs[0].stats
    if stats:
        row |= {key: stats[key] for key in ("steps", "preemptions")}
        row["waste"] = round(stats["waste"], 4)
    return row


def percentiles(seconds: Sequence[float]) -> dict[str, float] | None:
    """Milliseconds at the 50th and 99th percentile; None without any."""
    if not seconds:
        return None
    p50, p99 = np.percentile(seconds, (50, 99)).tolist()
    return {"p50": round(1e3 * p50, 1), "p99": round(1e3 * p99, 1), "n": len(seconds)}


@dataclass(frozen=True)
class Agreement:
    """requests: compared, over all runs. equal: token for token. near_ties: differ first where
    the two largest logits are closer than NEAR_TIE. differing: all others."""

    requests: int = 0
    equal: int = 0
    near_ties: int = 0
    differing: int = 0

    def __add__(self, other: Agreement) -> Agreement:
        mine, theirs = asdict(self), asdict(other)
        return Agreement(**{name: mine[name] + theirs[name] for name in mine})


def agreement(
    model: Decoder,
    trace: Sequence[Asked],
    wanted: Sequence[Sequence[int]],
    found: Sequence[Sequence[int]],
) -> Agreement:
    """Compare the answers of one run with those of the plain loop, ``wanted``."""
    total = Agreement()
    for asked, mine, theirs in zip(trace, wanted, found, strict=True):
        at = first_difference(mine, theirs)
        if at is None and len(theirs) == len(mine):
            total += Agreement(requests=1, equal=1)
        elif at is not None and at < len(theirs) and _gap(model, asked, mine[:at]) < NEAR_TIE:
            total += Agreement(requests=1, near_ties=1)
        else:
            total += Agreement(requests=1, differing=1)
    return total


@torch.inference_mode()
def _gap(model: Decoder, asked: Asked, answer: Sequence[int]) -> float:
    logits = model(torch.tensor([[*asked.prompt, *answer]]))
    assert isinstance(logits, Tensor)
    first, second = logits[0, -1].float().topk(2).values.tolist()
    return float(first - second)
