"""What lesson 04 times of a growing cache: one token more, at several lengths."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from slmlab.measure.timing import time_once


def append_to_all(cache: Any, layers: int, new: Tensor) -> None:
    """One pass without a model: ``new`` (batch, kv_heads, T, head_dim) as keys and as values."""
    for layer in range(layers):
        cache.append(layer, new, new)


def append_milliseconds(
    cache: Any, layers: int, row: Tensor, lengths: Sequence[int], repeats: int = 5
) -> list[float]:
    """Milliseconds of one token more at each of ``lengths``: the fastest of ``repeats``.

    row: (batch, kv_heads, 1, head_dim). The cache is filled up to each length first, and holds the
    last of them after. lengths: rising, the first not below the cache's own.
    """
    found = []
    for length in lengths:
        if length > cache.length:
            append_to_all(cache, layers, row.expand(-1, -1, length - cache.length, -1))
        seconds = []
        for _ in range(repeats):
            seconds.append(time_once(partial(append_to_all, cache, layers, row))[0])
            cache.truncate(length)
        found.append(1000 * min(seconds))
    return found
