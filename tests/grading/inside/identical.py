"""Whether two plain values are the same to the last bit, in type, dtype, shape and memory order."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

import numpy as np
import torch


def identical(one: Any, other: Any) -> bool:
    """Written without the codec and without slmlab's comparisons: the oracle of the round trips."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack(">d", one) == struct.pack(">d", other)
    if isinstance(one, complex):
        return identical([one.real, one.imag], [other.real, other.imag])
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(identical, one, other))
    if isinstance(one, dict):
        return identical(list(one.items()), list(other.items()))
    if isinstance(one, frozenset):
        return len(one) == len(other) and all(
            any(identical(item, there) for there in other) for item in one
        )
    if isinstance(one, np.ndarray):
        layout = one.dtype.str, one.shape, one.flags.c_contiguous, one.flags.f_contiguous
        there = other.dtype.str, other.shape, other.flags.c_contiguous, other.flags.f_contiguous
        return layout == there and one.tobytes() == other.tobytes()
    if isinstance(one, torch.Tensor):
        if (one.dtype, one.shape, one.is_contiguous()) != (
            other.dtype,
            other.shape,
            other.is_contiguous(),
        ):
            return False
        return _bytes(one) == _bytes(other)
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return all(identical(getattr(one, name), getattr(other, name)) for name in names)
    return bool(one == other)


def _bytes(tensor: torch.Tensor) -> bytes:
    if not tensor.numel():
        return b""
    whole = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)
    return whole.reshape(-1).view(torch.uint8).numpy().tobytes()
