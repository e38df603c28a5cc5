"""Where a model's numbers live and in which format: checked before any file is read."""

from __future__ import annotations

from typing import Any

import torch

FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def check_dtype(dtype: Any) -> torch.dtype:
    """``dtype``, if the decoder can compute in it.

    Raises:
        TypeError: no torch.dtype, such as the string "float16".
        ValueError: an integer, complex or 8-bit dtype.
    """
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype must be a torch.dtype such as torch.float16, not {dtype!r}")
    if dtype not in FLOAT_DTYPES:
        raise ValueError(
            f"dtype={dtype} is not one the decoder computes in: use torch.float32, torch.float16 "
            "or torch.bfloat16"
        )
    return dtype


def check_device(device: Any) -> torch.device:
    """The device of that name, if this machine and this build of torch have it.

    Raises:
        TypeError: neither a str nor a torch.device.
        ValueError: an unknown name, or a device that is not here.
    """
    if not isinstance(device, str | torch.device):
        raise TypeError(f"device must be a str or a torch.device, not {device!r}")
    try:
        return torch.empty(0, device=device).device
    except Exception as error:  # every backend has its own way to say that it is missing
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ValueError(
            f"device={str(device)!r} cannot be used here ({reason}): use 'cpu'"
        ) from None
