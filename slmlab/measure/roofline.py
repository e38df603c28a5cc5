"""The two ceilings of this machine, measured on one thread: bytes read and products a second.

Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from slmlab.measure.timing import threads

_MIB = 2**20
_SMALLEST_BUFFER_BYTES = 128 * _MIB
_LARGEST_BUFFER_BYTES = 512 * _MIB
_UNKNOWN_CACHE_BYTES = 32 * _MIB
_GEMM_SIZE = 1024
_GEMV_COLUMNS = 4096
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def last_level_cache_bytes() -> int | None:
    """Size of the largest cache of the first processor, bytes; None where it is not told."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        try:
            text = path.read_text().strip()
            sizes.append(int(text.rstrip("KMG")) * {"K": 2**10, "M": 2**20, "G": 2**30}[text[-1]])
        except (OSError, ValueError, KeyError):
            continue
    if not sizes and "SC_LEVEL3_CACHE_SIZE" in getattr(os, "sysconf_names", {}):
        sizes.append(os.sysconf("SC_LEVEL3_CACHE_SIZE"))
    return max(sizes) if sizes and max(sizes) > 0 else None


@dataclass(frozen=True)
class Roofline:
    """What one thread of this machine reaches. GB are 10**9 bytes, GFLOP 10**9 operations.

    bandwidth_gb_s: fastest read of a buffer several times larger than the last-level cache
    (each byte is counted once); bandwidth_median_gb_s and bandwidth_min_gb_s: median and
    slowest of bandwidth_n reads of the same kind, bandwidth_method ("sum", "dot", ...).
    gemv_gb_s: fastest matrix-vector product, fp32: the read that decoding makes.
    gemm_gflop_s: fastest product of two 1024 x 1024 matrices of dtype (a multiply-add is two);
    gemm_median_gflop_s, gemm_min_gflop_s: median and slowest of gemm_n. process_share:
    processor seconds over wall seconds; well below 1, another program held the core.
    The fastest is the roof: disturbances only slow a run down.
    """

    bandwidth_gb_s: float
    bandwidth_median_gb_s: float
    bandwidth_min_gb_s: float
    bandwidth_n: int
    bandwidth_method: str
    gemv_gb_s: float
    gemm_gflop_s: float
    gemm_median_gflop_s: float
    gemm_min_gflop_s: float
    gemm_n: int
    dtype: str
    buffer_bytes: int
    seconds: float
    process_share: float

    @property
    def ridge_flop_per_byte(self) -> float:
        """FLOP a byte at which reading and computing take equally long."""
        return self.gemm_gflop_s / self.bandwidth_gb_s

    def attainable(self, intensity: float) -> float:
        """GFLOP a second at an arithmetic intensity in FLOP a byte: min(peak, intensity x bandwidth).

        Raises ValueError for an intensity below 0 or not finite.
        """
        if not (math.isfinite(intensity) and intensity >= 0):
            raise ValueError(f"intensity must be a FLOP/byte figure >= 0, got {intensity}")
        return min(self.gemm_gflop_s, intensity * self.bandwidth_gb_s)

    @classmethod
    def measure(cls, seconds: float = 2.0, dtype: torch.dtype = torch.float32) -> Roofline:
        """Measure both ceilings on ONE thread, in about ``seconds`` of wall time (0.2 .. 60).

        dtype: of the matrix product: torch.float32, bfloat16 or float16. Takes a buffer of
        128 to 512 MiB while it runs. Each kind of run happens at least twice, so a slow
        machine may take longer. Raises ValueError for another dtype or seconds out of range.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError(f"seconds must be a number, got {type(seconds).__name__}")
        if not 0.2 <= seconds <= 60:
            raise ValueError(f"seconds must lie in 0.2 .. 60, got {seconds}")
        if dtype not in _DTYPES:
            raise ValueError(f"dtype must be float32, bfloat16 or float16 of torch, got {dtype}")
        wall, process = time.perf_counter(), time.process_time()
        with threads(1), torch.inference_mode():
            buffer = _buffer()
            reads = _readers(buffer)
            left = seconds - (time.perf_counter() - wall)
            timed = _rounds(reads, 0.6 * left, discard=1)
            gemm = _rounds({"gemm": _gemm(dtype)}, seconds - (time.perf_counter() - wall), 1)[
                "gemm"
            ]
        method = min(timed, key=lambda name: min(timed[name]))
        best = timed[method]
        size, work = buffer.nbytes, 2 * _GEMM_SIZE**3
        spent = time.perf_counter() - wall
        return cls(
            bandwidth_gb_s=size / min(best) / 1e9,
            bandwidth_median_gb_s=size / statistics.median(best) / 1e9,
            bandwidth_min_gb_s=size / max(best) / 1e9,
            bandwidth_n=len(best),
            bandwidth_method=method,
            gemv_gb_s=size / min(timed["gemv"]) / 1e9,
            gemm_gflop_s=work / min(gemm) / 1e9,
            gemm_median_gflop_s=work / statistics.median(gemm) / 1e9,
            gemm_min_gflop_s=work / max(gemm) / 1e9,
            gemm_n=len(gemm),
            dtype=str(dtype).removeprefix("torch."),
            buffer_bytes=size,
            seconds=spent,
            process_share=(time.process_time() - process) / spent,
        )


def _buffer() -> Tensor:
    cache_bytes = last_level_cache_bytes() or _UNKNOWN_CACHE_BYTES
    size = min(max(4 * cache_bytes, _SMALLEST_BUFFER_BYTES), _LARGEST_BUFFER_BYTES)
    rows = size // (4 * _GEMV_COLUMNS)
    # Ones, not zeros: untouched zero pages all map to one page, which would sit in the cache.
    return torch.ones(rows, _GEMV_COLUMNS)


def _readers(buffer: Tensor) -> dict[str, Callable[[], object]]:
    """Ways to read the whole buffer once. None is the fastest on every machine."""
    flat = buffer.view(-1)
    whole = flat.view(torch.int64)
    vector = torch.ones(_GEMV_COLUMNS)
    out = torch.empty(buffer.shape[0])
    return {
        "sum": flat.sum,
        "integer sum": whole.sum,
        "dot": lambda: torch.dot(flat, flat),
        "gemv": lambda: torch.mv(buffer, vector, out=out),
    }


def _gemm(dtype: torch.dtype) -> Callable[[], object]:
    a = torch.ones(_GEMM_SIZE, _GEMM_SIZE, dtype=dtype)
    b = torch.ones(_GEMM_SIZE, _GEMM_SIZE, dtype=dtype)
    out = torch.empty(_GEMM_SIZE, _GEMM_SIZE, dtype=dtype)
    return lambda: torch.mm(a, b, out=out)


def _rounds(
    runs: dict[str, Callable[[], object]], budget_seconds: float, discard: int
) -> dict[str, list[float]]:
    """Wall seconds of every run, in turns until the budget is spent; at least two each."""
    timed: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    done = 0
    while done < 2 + discard or time.perf_counter() - start < budget_seconds:
        for name, run in runs.items():
            before = time.perf_counter()
            run()
            taken = time.perf_counter() - before
            if done >= discard:
                timed[name].append(taken)
        done += 1
    return timed
