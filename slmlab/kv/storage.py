"""The memory of keys and values, taken in one piece."""

from __future__ import annotations

import math

import torch
from torch import Tensor


@torch.inference_mode(False)  # made inside inference mode it could not be written outside of it
def allocate_pair(
    sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device, name: str
) -> tuple[Tensor, Tensor]:
    """Keys and values of these sizes, zeros.

    Raises:
        ValueError: more than the machine gives; ``name`` is the argument to make smaller.
    """
    try:
        return (
            torch.zeros(sizes, dtype=dtype, device=device),
            torch.zeros(sizes, dtype=dtype, device=device),
        )
    except (RuntimeError, TypeError):  # the allocator's error, or a size beyond 64 bits
        wanted = 2 * math.prod(sizes) * dtype.itemsize
        raise ValueError(
            f"{name} asks for {wanted:.3g} bytes of keys and values, which this machine does not "
            "give: make it smaller"
        ) from None
