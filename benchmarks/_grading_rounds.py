"""Timing of the graders in turns, what memory they take, and whether their scores are right."""

from __future__ import annotations

import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks._grading_class import Handed
from benchmarks._grading_process import Stopped
from benchmarks._grading_ways import Way

SAMPLE_SECONDS = 0.2
MIB = 2**20


@dataclass
class Entry:
    """A way with one prepared folder; `seconds` of each of its runs."""

    way: Way
    folder: Path
    handed: Sequence[Handed]
    seconds: list[float] = field(default_factory=list)

    def prepare(self) -> Entry:
        """Writes the folder."""
        self.way.prepare(self.folder, self.handed)
        return self

    def lap(self) -> None:
        """One timed run."""
        start = time.perf_counter()
        self.way.run(self.folder)
        self.seconds.append(time.perf_counter() - start)

    def wrong(self) -> list[str]:
        """Students whose passes are not those that are right, after a run."""
        scores = self.way.scores(self.folder)
        return [one.name for one in self.handed if scores.get(one.name) != one.passes]


def race(entries: Sequence[Entry], rounds: int) -> None:
    """Every entry once a round, each round in the other direction."""
    for number in range(rounds):
        for entry in entries if number % 2 == 0 else entries[::-1]:
            entry.lap()


def seconds_for(count: int, small: Entry, large: Entry) -> list[float]:
    """What `count` submissions take, from two sizes: the start once, then the cost of each.

    A round in which the large class took no longer than the small one counts each at the large
    class's average.
    """
    found = []
    for few, many in zip(small.seconds, large.seconds, strict=True):
        more = len(large.handed) - len(small.handed)
        each = (many - few) / more if more and many > few else many / len(large.handed)
        found.append(many + (count - len(large.handed)) * each)
    return found


def rate(count: int, seconds: Sequence[float]) -> dict[str, Any]:
    """Submissions a minute: median, lowest, highest."""
    rates = sorted(60 * count / one for one in seconds)
    return {
        "median": round(statistics.median(rates), 2),
        "low": round(rates[0], 2),
        "high": round(rates[-1], 2),
        "n": len(rates),
    }


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """How many times as fast ours is: ratio of the medians, range of the pairs of a round."""
    pairs = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {
        "ratio": round(statistics.median(theirs) / statistics.median(ours), 2),
        "low": round(min(pairs), 2),
        "high": round(max(pairs), 2),
        "n": len(pairs),
    }


def peak_mb(action: Callable[[], object]) -> float:
    """The most that all processes below this one held together during the call, in MiB.

    Shared pages count once (PSS) where the kernel tells it, else once a process (RSS). Memory that
    comes and goes within SAMPLE_SECONDS is not seen.
    """
    peak = 0.0
    ended = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not ended.wait(SAMPLE_SECONDS):
            children = psutil.Process().children(recursive=True)
            peak = max(peak, sum(map(_held_mb, children)))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        action()
    finally:
        ended.set()
        thread.join()
    return round(peak, 1)


def _held_mb(process: psutil.Process) -> float:
    try:
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        line = next(line for line in text.splitlines() if line.startswith("Pss:"))
        return int(line.split()[1]) / 1024
    except (OSError, StopIteration):
        try:
            return float(process.memory_info().rss) / MIB
        except psutil.Error:
            return 0.0


def judge_hostile(entry: Entry, seconds: float) -> dict[str, str]:
    """{attack: "right", "wrong" or what stopped it}, one submission at a time."""
    found = {}
    for one in entry.handed:
        attack = one.name.partition("_")[2]
        try:
            entry.way.run(entry.folder, seconds, only=one.name)
        except (Stopped, RuntimeError, subprocess.SubprocessError) as error:
            found[attack] = str(error).split(":")[0]
            continue
        scores = entry.way.scores(entry.folder).get(one.name)
        if scores is None:
            found[attack] = "no score"
        else:
            found[attack] = "right" if scores == one.passes else "wrong"
    return found
