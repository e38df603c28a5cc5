"""Products of few rows with a quantised weight on a CUDA device. We have not run them on a GPU.

Each was written from its library's layout and checked as far as a CPU goes. So it is taken only
where it proves itself: on each device, one small product is compared with `reference` first, and
where it fails or differs there is only `reference`.

- int4, int3, int2, int8-gN in groups that 256, 128, 64 or 32 divide: torch's tensor-core int4
  product, on devices from compute capability 8.0. It wants rows in eights and columns in 128s.
- nf4, fp4: bitsandbytes' ``matmul_4bit``, on its own layout.

Both hold a second copy of the codes. Precision: as in ``kernels.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from slmlab.quant.codebooks import levels
from slmlab.quant.kernels import Kernel, int4_group, int4_kernel, int4_operands, reference
from slmlab.quant.tensor import QuantizedTensor, quantize_tensor

INNER_K_TILES = 8  # tiles of 16 columns that lie together in torch's layout
_BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)  # group sizes that bitsandbytes knows
_TOLERANCE = 0.05  # of the largest output; rounding stays far below, a wrong layout far above


def choose_cuda_kernel(weight: QuantizedTensor) -> Kernel | None:
    """The product for few rows with a weight on a CUDA device; None: only `reference`."""
    rows, columns = weight.shape
    if weight.scheme.kind == "codebook":
        size = weight.scheme.group_size
        fits = size in _BLOCKS and columns % size == 0
        make, sample = bitsandbytes_kernel, f"{weight.scheme.codebook}-g64"
    else:
        fits = bool(int4_group(weight)) and rows % 8 == 0 and columns % (16 * INNER_K_TILES) == 0
        make, sample = int4pack_kernel, "int4-g32-asym"
    return make(weight) if fits and works(make, sample, weight.packed.device) else None


@cache
def works(make: Callable[[QuantizedTensor], Kernel], scheme: str, device: torch.device) -> bool:
    """Whether the kernel runs on that device and gives what `reference` gives."""
    random = torch.Generator().manual_seed(0)
    w, x = (torch.randn(rows, 256, generator=random).to(device) for rows in (64, 4))
    weight = quantize_tensor(w, scheme)
    exact = reference(x, weight)
    try:
        product = make(weight).multiply(x.bfloat16()).float()
    except Exception:  # no such operator, an older device, a missing library: each in its way
        return False
    return bool((product - exact).abs().max() <= _TOLERANCE * exact.abs().max())


def int4pack_kernel(weight: QuantizedTensor) -> Kernel:
    """torch's int4 product on tensor cores."""
    group = int4_group(weight)
    assert group is not None
    codes, scales_and_zeros = int4_operands(weight, group)
    return int4_kernel(
        "aten._weight_int4pack_mm",
        torch.ops.aten._weight_int4pack_mm,
        torch.ops.aten._convert_weight_to_int4pack(high_nibble_first(codes), INNER_K_TILES),
        group,
        scales_and_zeros,
        weight,
    )


def bitsandbytes_kernel(weight: QuantizedTensor) -> Kernel:
    """bitsandbytes' product of any number of rows."""
    from bitsandbytes import matmul_4bit

    packed, state = bitsandbytes_layout(weight)
    copied = (packed,) if weight.absmax_blocks is None else (packed, state.absmax)
    return Kernel("bitsandbytes.matmul_4bit", lambda x: matmul_4bit(x, packed, state), copied)


def bitsandbytes_layout(weight: QuantizedTensor) -> tuple[Tensor, Any]:
    """A weight whose groups divide its rows as bitsandbytes keeps it: bytes (out * in / 2, 1), and
    their ``QuantState`` with the fp32 absmax of each group (those of "-dq" as they are read back).
    """
    from bitsandbytes.functional import QuantState

    book = weight.scheme.codebook
    assert book is not None
    state = QuantState(
        absmax=weight.scales.flatten(),
        shape=torch.Size(weight.shape),
        code=levels(book).to(weight.packed.device),
        blocksize=weight.scheme.group_size,
        quant_type=book,
        dtype=torch.float32,
    )
    return high_nibble_first(weight.codes).view(-1, 1), state


def high_nibble_first(codes: Tensor) -> Tensor:
    """Codes 0 .. 15, (out, in), two a byte with the even column in the high nibble: uint8."""
    even, odd = codes.to(torch.uint8).unflatten(1, (-1, 2)).unbind(-1)
    return even << 4 | odd
