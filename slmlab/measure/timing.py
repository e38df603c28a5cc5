"""Timers that this room shares: one thread, wall and processor time, alternation."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch


@contextmanager
def threads(count: int | None) -> Iterator[int]:
    """torch's intra-op thread count inside the block; None leaves it. Put back after.

    Raises as `check_threads`.
    """
    if count is not None:
        check_threads("num_threads", count)
    before = torch.get_num_threads()
    if count is not None and count != before:
        torch.set_num_threads(count)
    try:
        yield torch.get_num_threads()
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def check_count(name: str, value: Any, least: int) -> int:
    """``value`` as a checked int: TypeError for another type, ValueError below ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return value


def check_threads(name: str, value: Any) -> int:
    """``value`` as a checked thread count: 1 .. the machine's cores, else as `check_count`.

    torch ends the process with a segmentation fault where the system refuses it a thread.
    """
    count = check_count(name, value, 1)
    cores = os.cpu_count() or 1
    if count > cores:
        raise ValueError(f"{name} is {count}, this machine has {cores} core(s): at most {cores}")
    return count


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished: its calls return before the work is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@dataclass(frozen=True)
class Times:
    """Seconds of repeated runs of one thing, in the order they ran.

    wall: seconds on the clock. process: processor seconds of this process, all threads; much
    less than wall means that something else held the core, much more means several threads.
    """

    wall: tuple[float, ...]
    process: tuple[float, ...]

    @property
    def n(self) -> int:
        """How many runs were timed."""
        return len(self.wall)

    @property
    def median_seconds(self) -> float:
        """Median wall seconds of a run."""
        return statistics.median(self.wall)

    @property
    def min_seconds(self) -> float:
        """Fastest wall seconds: the run that was disturbed least."""
        return min(self.wall)


@dataclass(frozen=True)
class Interleaved:
    """Two callables timed in alternation in one run, so that drift hits both alike.

    ratio: a's seconds over b's, median of the pairs: 2.0 means that b is twice as fast.
    ratio_of_minima: fastest a over fastest b. ratio_low, ratio_high: range of the pairs.
    """

    a: Times
    b: Times

    @property
    def ratios(self) -> tuple[float, ...]:
        """a's seconds over b's, for each pair of neighbours."""
        return tuple(x / y for x, y in zip(self.a.wall, self.b.wall, strict=True))

    @property
    def n(self) -> int:
        """Pairs timed."""
        return self.a.n

    @property
    def ratio(self) -> float:
        """Median of the pairs' ratios (a over b)."""
        return statistics.median(self.ratios)

    @property
    def ratio_of_minima(self) -> float:
        """Fastest a over fastest b."""
        return self.a.min_seconds / self.b.min_seconds

    @property
    def ratio_low(self) -> float:
        """Smallest ratio of a pair."""
        return min(self.ratios)

    @property
    def ratio_high(self) -> float:
        """Largest ratio of a pair."""
        return max(self.ratios)


def time_once(function: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    process, wall = time.process_time(), time.perf_counter()
    function()
    return time.perf_counter() - wall, time.process_time() - process


def interleaved(
    a: Callable[[], Any],
    b: Callable[[], Any],
    *,
    repeats: int = 7,
    warmup: int = 1,
    num_threads: int | None = 1,
) -> Interleaved:
    """Time ``a()`` and ``b()`` in turns: a b, b a, a b, ... so that neither always goes first.

    repeats: timed pairs. warmup: pairs run before, untimed. num_threads: torch threads while
    it runs, None leaves them. On an accelerator the callables must synchronise themselves.
    Raises TypeError where a or b cannot be called, ValueError for repeats < 1, warmup < 0 or
    num_threads outside 1 .. the machine's cores.
    """
    for name, function in (("a", a), ("b", b)):
        if not callable(function):
            raise TypeError(f"{name} must be callable, got {type(function).__name__}: use a lambda")
    check_count("repeats", repeats, 1)
    check_count("warmup", warmup, 0)
    if num_threads is not None:
        check_threads("num_threads", num_threads)
    times_a: list[tuple[float, float]] = []
    times_b: list[tuple[float, float]] = []
    with threads(num_threads):
        for _ in range(warmup):
            a()
            b()
        for turn in range(repeats):
            if turn % 2 == 0:
                times_a.append(time_once(a))
                times_b.append(time_once(b))
            else:
                times_b.append(time_once(b))
                times_a.append(time_once(a))
    return Interleaved(a=as_times(times_a), b=as_times(times_b))


def as_times(pairs: list[tuple[float, float]]) -> Times:
    """Times from (wall, process) pairs."""
    return Times(wall=tuple(w for w, _ in pairs), process=tuple(p for _, p in pairs))
