"""What every cache refuses, in the same words."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from slmlab.kv.shape import CacheShape


def check_append(
    layer: int, k: Tensor, v: Tensor, shape: CacheShape, batch: int, dtype: torch.dtype
) -> int:
    """The number of tokens appended, if ``k`` and ``v`` are this cache's keys and values.

    Raises:
        TypeError: no tensors.
        ValueError: another model's layers, shape or dtype.
    """
    for name, tensor in (("k", k), ("v", v)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, not {type(tensor).__name__}")
    if (
        k.dim() != 4
        or k.shape != (batch, shape.kv_heads, k.shape[-2], shape.head_dim)
        or k.shape != v.shape
        or not 0 <= layer < shape.layers
    ):
        raise ValueError(
            f"layer {layer} appends keys {tuple(k.shape)} and values {tuple(v.shape)}, this "
            f"cache takes layers 0 to {shape.layers - 1} and (batch, kv_heads, T, head_dim) = "
            f"({batch}, {shape.kv_heads}, T, {shape.head_dim}): make it with this model's config "
            "and batch"
        )
    if k.dtype != dtype or v.dtype != dtype:
        raise ValueError(
            f"layer {layer} appends {k.dtype} to a cache of {dtype}: make it with dtype=model.dtype"
        )
    return k.shape[2]


def check_truncate(n: Any, length: int) -> None:
    """Raise TypeError or ValueError unless a cache of ``length`` tokens can keep the first ``n``."""
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n must be an int, not {n!r}")
    if not 0 <= n <= length:
        raise ValueError(f"n={n} must lie between 0 and the cache's length {length}")
