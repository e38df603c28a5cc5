"""The product x @ weight.T with a quantised weight, and the one place that chooses how.

`reference` unpacks the weight a few rows at a time and multiplies in x's dtype: exact, any device,
any scheme, and the better way for a long prompt. For few rows the time is that of reading the
weight, and a kernel that reads the codes themselves wins several times over. On a CPU:

- int8, int8-asym: torch's int8 product, on the codes as they are stored.
- other integers: torch's int4 product. int8-gN becomes two 4-bit halves, 16 * high + low. The
  codes are laid out anew, which holds a second copy: 4 bits a weight (8 for int8-gN).
- nf4, fp4: bitsandbytes' product, where the processor has bfloat16 instructions. A second copy too.

``cuda_kernels.py`` has those of a GPU.

They take activations in bfloat16 and most keep scales in it. A result is off by at most
``PRECISION`` times the sum of the magnitudes of its terms: |x| * scale * (|code| + |zero point|),
or |x| * scale * (|code| + 16) where codes are halved, or |x| * |weight| for nf4 and fp4.
``benchmarks/quant_products.py`` measures what each of them gains.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from slmlab.quant.codebooks import levels
from slmlab.quant.grid import from_codes
from slmlab.quant.packing import unpack_codes
from slmlab.quant.tensor import QuantizedTensor, quantize_tensor

# Three roundings to bfloat16 (activation, scale, result) of 2**-9 each, and those that an operator
# makes inside: over many shapes and schemes 1.26 * 2**-7 was the most.
PRECISION = 1.5 * 2.0**-7
MOST_ROWS = 32  # beyond, unpacking once and a full matrix product is as fast, and exact
_INT4_GROUPS = (256, 128, 64, 32)  # what torch's int4 product knows
_BLOCK = 1 << 18  # weights that `reference` unpacks at a time


@dataclass(frozen=True, eq=False)
class Kernel:
    """A product prepared for one weight.

    name: the library's operator. multiply: (rows, in) bfloat16 -> (rows, out) bfloat16 or
    float32. copied: tensors made from the weight that the product needs beside those stored.
    """

    name: str
    multiply: Callable[[Tensor], Tensor]
    copied: tuple[Tensor, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes held beside the stored weight."""
        return sum(tensor.nbytes for tensor in self.copied)


def choose_kernel(weight: QuantizedTensor) -> Kernel | None:
    """The fastest product for few rows with this weight; None where there is only `reference`."""
    if weight.packed.device.type == "cuda":
        from slmlab.quant.cuda_kernels import choose_cuda_kernel  # it builds on this module

        return choose_cuda_kernel(weight)
    if weight.packed.device.type != "cpu":
        return None
    rows, columns = weight.shape
    scheme = weight.scheme
    if scheme.kind == "codebook":
        size = scheme.group_size or columns
        fits_it = rows % 32 == 0 and size % 16 == 0 and columns % size == 0
        return _bitsandbytes(weight) if fits_it and _bitsandbytes_works() else None
    if scheme.code_bits == 8 and scheme.group_size is None:
        # torch 2.13's operator reads past the end of a row that is no multiple of its vectors.
        return _int8pack(weight) if columns % 32 == 0 else None
    group = int4_group(weight)
    return _int4pack(weight, group) if group and rows % 16 == 0 else None


def reference(x: Tensor, weight: QuantizedTensor) -> Tensor:
    """Dequantise and multiply: x (rows, in) -> (rows, out), in x's dtype.

    A block of rows is unpacked at a time, so the float weight never exists as a whole.
    """
    rows, columns = weight.shape
    step = max(1, _BLOCK // columns)
    packed, scales, zero_points = weight.packed, weight.scales, weight.zero_points
    scheme, signed = weight.scheme, weight.scheme.kind == "int"
    parts = []
    for start in range(0, rows, step):
        block = slice(start, start + step)
        codes = unpack_codes(packed[block], scheme.code_bits, columns, signed=signed)
        zeros = None if zero_points is None else zero_points[block]
        values = from_codes(codes, scales[block], zeros, scheme)
        parts.append(functional.linear(x, values.to(x.dtype)))
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def _int8pack(weight: QuantizedTensor) -> Kernel:
    codes = weight.packed.view(torch.int8)  # (out, in)
    scales = weight.scales.float().flatten()
    # The operator's scales are bfloat16: it gets ones, and the exact ones are applied after it.
    ones = torch.ones_like(scales, dtype=torch.bfloat16)
    zero_points = weight.zero_points
    if zero_points is None:
        return Kernel(
            "aten._weight_int8pack_mm",
            lambda x: torch.ops.aten._weight_int8pack_mm(x, codes, ones) * scales,
            (ones, scales),
        )
    zeros = zero_points.float().flatten()

    def with_zero_points(x: Tensor) -> Tensor:
        product = torch.ops.aten._weight_int8pack_mm(x, codes, ones)
        return (product - x.float().sum(-1, keepdim=True) * zeros) * scales

    return Kernel("aten._weight_int8pack_mm", with_zero_points, (ones, scales, zeros))


def int4_group(weight: QuantizedTensor) -> int | None:
    """Largest group size of torch's int4 products that divides this weight's; None: none does, or
    the weight is of 8 bits with one scale a row, whose halves would cost more than they save."""
    if weight.scheme.code_bits == 8 and weight.scheme.group_size is None:
        return None
    columns = weight.shape[1]
    size = weight.scheme.group_size or columns
    return next((g for g in _INT4_GROUPS if size % g == 0 and columns % g == 0), None)


def int4_operands(weight: QuantizedTensor, group: int) -> tuple[Tensor, Tensor]:
    """What torch's int4 products compute with: (code - 8) * scale + zero.

    Returns codes 0 .. 15, (out, in) int32, and scales and zeros, (groups, out, 2) bfloat16. Codes
    of 8 bits become two halves, with the low ones as further rows: (2 * out, in).
    """
    columns = weight.shape[1]
    scales, zero_points = weight.scales.float(), weight.zero_points
    repeats = (weight.scheme.group_size or columns) // group  # the operator's groups in one of ours
    codes = weight.codes.int()
    if weight.scheme.code_bits == 8:
        # code = 16 * high + low with high in -8 .. 7 and low in 0 .. 15
        codes = torch.cat(((codes >> 4) + 8, codes & 15))
        zeros = torch.cat((torch.zeros_like(scales), 8 * scales))
        scales = torch.cat((16 * scales, scales))
    else:
        codes = codes + 8
        zeros = torch.zeros_like(scales) if zero_points is None else -zero_points * scales
    scales_and_zeros = torch.stack((scales, zeros), -1).repeat_interleave(repeats, 1)
    # A last short group repeats less often.
    scales_and_zeros = scales_and_zeros[:, : columns // group].transpose(0, 1).bfloat16()
    return codes, scales_and_zeros.contiguous()


def int4_kernel(
    name: str,
    product: Callable[[Tensor, Tensor, int, Tensor], Tensor],
    packed: Tensor,
    group: int,
    scales_and_zeros: Tensor,
    weight: QuantizedTensor,
) -> Kernel:
    """The kernel of an int4 product (x, packed, group, scales and zeros); halves are added up."""

    def multiply(x: Tensor) -> Tensor:
        return product(x, packed, group, scales_and_zeros)

    def halves(x: Tensor) -> Tensor:
        high, low = multiply(x).float().split(weight.shape[0], -1)
        return high + low

    both = weight.scheme.code_bits == 8
    return Kernel(name, halves if both else multiply, (packed, scales_and_zeros))


def _int4pack(weight: QuantizedTensor, group: int) -> Kernel:
    codes, scales_and_zeros = int4_operands(weight, group)
    return int4_kernel(
        "aten._weight_int4pack_mm_for_cpu",
        torch.ops.aten._weight_int4pack_mm_for_cpu,
        torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1),
        group,
        scales_and_zeros,
        weight,
    )


def _bitsandbytes(weight: QuantizedTensor) -> Kernel:
    """Blocks of 32 rows; of each, two columns at a time: rows 0 .. 15 in the low nibbles of 32
    bytes, rows 16 .. 31 in the high ones."""
    rows, columns = weight.shape
    codes = weight.codes.view(torch.uint8)
    lanes = codes.view(rows // 32, 2, 16, columns // 2, 2).movedim(3, 1)
    low, high = lanes.unbind(2)  # (rows / 32, columns / 2, 16, 2)
    packed = (low | high << 4).reshape(rows, columns // 2)
    absmax = weight.scales.t().contiguous().bfloat16()  # (groups, rows)
    book = weight.scheme.codebook
    assert book is not None and weight.scheme.group_size is not None
    arguments = (list(weight.shape), absmax, levels(book), weight.scheme.group_size)
    return Kernel(
        "bitsandbytes.gemv_4bit",
        lambda x: torch.ops.bitsandbytes.gemv_4bit(x, packed, *arguments),
        (packed, absmax),
    )


@cache
def _bitsandbytes_works() -> bool:
    """Whether its CPU product exists here and reads the layout that `_bitsandbytes` writes, which
    is not documented: one small product is compared with the reference."""
    # It warns that an optional package is missing, and does without it.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        from bitsandbytes.functional import has_avx512bf16

        if not has_avx512bf16():
            return False
        weight = quantize_tensor(torch.linspace(-1, 1, 32 * 64).view(64, 32).t(), "nf4-g16")
        x = torch.eye(64)[:4]
        product = _bitsandbytes(weight).multiply(x.bfloat16()).float()
    except Exception:  # a build without its native library, or another version, fails in its way
        return False
    return torch.allclose(product, reference(x, weight), atol=2.0**-6)
