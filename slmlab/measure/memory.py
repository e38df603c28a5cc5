"""Resident memory of this process: now, and the peak while a callable runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import psutil

Result = TypeVar("Result")

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_SAMPLE_SECONDS = 0.002


@dataclass(frozen=True)
class PeakMemory(Generic[Result]):
    """What a callable cost in resident memory of this process.

    value: what the callable returned. before_bytes: resident just before the call.
    peak_bytes: highest resident size of the WHOLE process during the call: interpreter,
    libraries and everything loaded earlier included. method: "kernel" (exact to some pages,
    Linux) or "sampled" every 2 ms (a shorter peak can be missed: a lower bound).
    """

    value: Result
    before_bytes: int
    peak_bytes: int
    method: str

    @property
    def added_bytes(self) -> int:
        """Peak minus the resident size before.

        Memory that an allocator kept from earlier work and reuses here is not counted, so a
        second call of the same function can show less than the first.
        """
        return max(0, self.peak_bytes - self.before_bytes)


def current_rss() -> int:
    """Resident set size of this process now, in bytes (shared library pages included)."""
    return int(psutil.Process().memory_info().rss)


def _kernel_peak_bytes() -> int | None:
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def _reset_kernel_peak() -> bool:
    # proc(5): writing 5 sets the peak resident size ("high water mark") to the current one.
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return _kernel_peak_bytes() is not None


def peak_memory(function: Callable[[], Result], *, method: str = "auto") -> PeakMemory[Result]:
    """Run ``function()`` here and report the peak resident memory of this process meanwhile.

    In-process, on purpose: nothing is copied to a child and the result stays usable. It is
    resident memory (RAM in use), not virtual size, not swap, not accelerator memory. Other
    threads of this process count too. method: "auto" takes the kernel's own peak where Linux
    offers it and samples elsewhere; "kernel" and "sampled" insist. Raises TypeError where
    function cannot be called, ValueError for an unknown or unavailable method.
    """
    if not callable(function):
        raise TypeError(f"function must be callable, got {type(function).__name__}: use a lambda")
    if method not in ("auto", "kernel", "sampled"):
        raise ValueError(f'method must be "auto", "kernel" or "sampled", got {method!r}')
    if method != "sampled" and _reset_kernel_peak():
        before = current_rss()
        value = function()
        peak = _kernel_peak_bytes() or 0
        return PeakMemory(value, before, max(peak, before, current_rss()), "kernel")
    if method == "kernel":
        raise ValueError('method "kernel" needs Linux with a writable /proc: use "sampled"')
    return _sampled(function)


def _sampled(function: Callable[[], Result]) -> PeakMemory[Result]:
    process = psutil.Process()
    before = int(process.memory_info().rss)
    highest = before
    stop = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not stop.wait(_SAMPLE_SECONDS):
            highest = max(highest, int(process.memory_info().rss))

    watcher = threading.Thread(target=watch, name="slmlab-memory", daemon=True)
    watcher.start()
    try:
        value = function()
    finally:
        stop.set()
        watcher.join()
    return PeakMemory(value, before, max(highest, int(process.memory_info().rss)), "sampled")
