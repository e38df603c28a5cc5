"""What an engine has done so far, in the terms of a serving benchmark."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from slmlab.kv import BlockPool
from slmlab.serving.request import Request

KEPT = 1000  # of each kind of time: the newest, so that a server's memory does not grow


def _times() -> deque[float]:
    return deque(maxlen=KEPT)


@dataclass
class Counters:
    """Counts since the engine was made, and the newest times."""

    submitted: int = 0
    finished: int = 0
    cancelled: int = 0
    preemptions: int = 0
    steps: int = 0
    computed_tokens: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    generated_tokens: int = 0
    allocated_slots: int = 0
    unused_slots: int = 0
    ttft: deque[float] = field(default_factory=_times)
    queue_time: deque[float] = field(default_factory=_times)
    time_per_output_token: deque[float] = field(default_factory=_times)

    def count_memory(self, running: list[Request]) -> None:
        """Add this step's reserved slots to the sums behind ``waste``."""
        for request in running:
            size = request.cache.pool.block_size
            self.allocated_slots += len(request.cache.block_table) * size
            self.unused_slots += request.cache.unused_slots

    def as_dict(self, pool: BlockPool, running: int, waiting: int) -> dict[str, Any]:
        """Everything ``Engine.stats`` shows; its docstring gives the units."""
        return {
            "submitted": self.submitted,
            "finished": self.finished,
            "cancelled": self.cancelled,
            "running": running,
            "waiting": waiting,
            "preemptions": self.preemptions,
            "steps": self.steps,
            "computed_tokens": self.computed_tokens,
            "prompt_tokens": self.prompt_tokens,
            "generated_tokens": self.generated_tokens,
            "prefix_hit_rate": _share(self.cached_prompt_tokens, self.prompt_tokens),
            "blocks_total": pool.num_blocks,
            "blocks_used": pool.num_used,
            "blocks_cached": pool.num_cached,
            "block_occupancy": pool.num_used / pool.num_blocks,
            "waste": _share(self.unused_slots, self.allocated_slots),
            "ttft": _percentiles(self.ttft),
            "queue_time": _percentiles(self.queue_time),
            "time_per_output_token": _percentiles(self.time_per_output_token),
        }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _percentiles(times: deque[float]) -> dict[str, float] | None:
    if not times:
        return None
    p50, p99 = np.percentile(times, (50, 99)).tolist()
    return {"p50": p50, "p99": p99, "n": len(times)}
