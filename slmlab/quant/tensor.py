"""A quantised weight matrix: packed codes and the metadata that gives them back their size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from slmlab.quant.double_quant import dequantize_absmax, quantize_absmax
from slmlab.quant.grid import (
    FP16_LARGEST,
    from_codes,
    quantising,
    scales_and_zero_points,
    to_codes,
)
from slmlab.quant.packing import pack_codes, packed_columns, unpack_codes
from slmlab.quant.scheme import DOUBLE_QUANT_BLOCK, Scheme

_CHUNK = 1 << 18  # weights quantised at a time: their temporaries stay small and in the cache


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """A weight (out, in) as codes and metadata, exactly as it is stored.

    packed: uint8 (out, ceil(in * bits / 8)). stored_scales: (out, groups), fp16 for integer
    schemes, fp32 absmax for nf4 and fp4, uint8 with "-dq". stored_zero_points: uint8, those of
    all groups packed as one row; None where the scheme has none. absmax_blocks: fp32, the
    largest absmax of each 256, with "-dq" only. Make one with `quantize_tensor` or `from_codes`.
    """

    scheme: Scheme
    shape: tuple[int, int]
    packed: Tensor
    stored_scales: Tensor
    absmax_blocks: Tensor | None = None
    stored_zero_points: Tensor | None = None

    @classmethod
    def from_codes(
        cls, codes: Tensor, scales: Tensor, zero_points: Tensor | None, scheme: str | Scheme
    ) -> QuantizedTensor:
        """Pack codes that another method chose, and round the scales as the scheme stores them.

        Args:
            codes: (out, in) int8 within ``scheme.code_range``.
            scales: (out, groups) float, none negative.
            zero_points: (out, groups) int8 within ``scheme.code_range`` for "-asym", else None.

        Raises:
            ValueError: shapes that do not match, codes or zero points out of range, scales that
                are not finite, too large for fp16, or so small that they would be stored as 0.
            TypeError: codes or zero points that are no int8 tensor, scales that are no float one.
        """
        scheme = quantising(scheme)
        _check_codes(codes, scheme)
        _check_metadata(scales, zero_points, (len(codes), scheme.groups(codes.shape[1])), scheme)
        packed = pack_codes(codes, scheme.code_bits)
        return _stored(packed, (codes.shape[0], codes.shape[1]), scales, zero_points, scheme)

    @classmethod
    def from_stored(
        cls, parts: Mapping[str, Tensor], shape: tuple[int, int], scheme: str | Scheme
    ) -> QuantizedTensor:
        """What `stored` gave, checked: the way back from a checkpoint.

        Raises:
            ValueError: parts that are missing, left over, or not of the dtype and shape that the
                scheme stores for a weight of ``shape``; scales that are negative or not finite.
        """
        scheme = quantising(scheme)
        expected = _layout(shape, scheme)
        if set(parts) != set(expected):
            raise ValueError(
                f"{scheme.name} stores {', '.join(expected)}, found {', '.join(parts) or 'nothing'}"
            )
        for name, (dtype, size) in expected.items():
            part = parts[name]
            if part.dtype != dtype or tuple(part.shape) != size:
                raise ValueError(
                    f"{scheme.name} stores {name} of a weight {shape} as {dtype} {size}, found "
                    f"{part.dtype} {tuple(part.shape)}: scheme and tensors belong to different weights"
                )
            if part.is_floating_point() and not ((part >= 0) & part.isfinite()).all():
                raise ValueError(f"{name} holds negative numbers, NaN or infinity")
        return cls(
            scheme,
            shape,
            parts["packed"],
            parts["scales"],
            parts.get("absmax_blocks"),
            parts.get("zero_points"),
        )

    @property
    def codes(self) -> Tensor:
        """(out, in) int8, unpacked anew at each call."""
        signed = self.scheme.kind == "int"
        return unpack_codes(self.packed, self.scheme.code_bits, self.shape[1], signed=signed)

    @property
    def scales(self) -> Tensor:
        """(out, groups): fp16 scales, or the fp32 absmax of nf4 and fp4 as it is read back."""
        if self.absmax_blocks is None:
            return self.stored_scales
        return dequantize_absmax(self.stored_scales, self.absmax_blocks)

    @property
    def zero_points(self) -> Tensor | None:
        """(out, groups) int8, unpacked; None for schemes without."""
        if self.stored_zero_points is None:
            return None
        rows, groups = self.stored_scales.shape
        packed = self.stored_zero_points[None]
        return unpack_codes(packed, self.scheme.zero_point_bits, rows * groups).view(rows, groups)

    def dequantize(self) -> Tensor:
        """(out, in) float32."""
        return from_codes(self.codes, self.scales, self.zero_points, self.scheme)

    def stored(self) -> dict[str, Tensor]:
        """The tensors a checkpoint holds, by name."""
        parts = {
            "packed": self.packed,
            "scales": self.stored_scales,
            "zero_points": self.stored_zero_points,
            "absmax_blocks": self.absmax_blocks,
        }
        return {name: tensor for name, tensor in parts.items() if tensor is not None}

    @property
    def nbytes(self) -> int:
        """Bytes of codes and metadata as stored, padding included."""
        return sum(tensor.nbytes for tensor in self.stored().values())

    @property
    def bits_per_weight(self) -> float:
        """8 * nbytes / number of weights."""
        return 8 * self.nbytes / math.prod(self.shape)


def quantize_tensor(w: Tensor, scheme: str | Scheme) -> QuantizedTensor:
    """Round each weight to the nearest level of its group (round to nearest, "RTN").

    A group of zeros comes back as zeros exactly (scale 1, absmax 0). A group so small that its
    scale lies below fp16's normal range gets the next larger fp16 number as its scale, down to
    2**-24: it is rounded on a coarser grid, never scaled by a wrong one. The last group of a row
    may be short.

    Args:
        w: (out, in) float32, float16, bfloat16 or float64.
        scheme: such as "int4-g32"; DESIGN's grammar without the float formats.

    Raises:
        ValueError: NaN or infinity (how many, and where the first is), a shape that is not
            (out, in) or is empty, an unknown scheme, weights whose scale exceeds fp16's 65504.
        TypeError: no floating-point tensor; a QuantizedTensor, which is quantised already.
    """
    scheme = quantising(scheme)
    _check_weight(w)
    pieces = []
    for rows in w.detach().split(max(1, _CHUNK // w.shape[1])):
        scales, zero_points = scales_and_zero_points(rows, scheme)
        codes = to_codes(rows, scales, zero_points, scheme)
        pieces.append((pack_codes(codes, scheme.code_bits), scales, zero_points))
    packed, all_scales, all_zero_points = zip(*pieces, strict=True)
    return _stored(
        torch.cat(packed),
        (w.shape[0], w.shape[1]),
        torch.cat(all_scales),
        torch.cat(all_zero_points) if scheme.zero_point_bits else None,
        scheme,
    )


def _layout(
    shape: tuple[int, int], scheme: Scheme
) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """dtype and shape of each tensor that a weight of ``shape`` is stored as."""
    rows, columns = shape
    groups = scheme.groups(columns)
    scales = {"int": torch.float16, "codebook": torch.float32}[scheme.kind]
    layout: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
        "packed": (torch.uint8, (rows, packed_columns(columns, scheme.code_bits))),
        "scales": (torch.uint8 if scheme.double_quantized else scales, (rows, groups)),
    }
    if scheme.zero_point_bits:
        size = packed_columns(rows * groups, scheme.zero_point_bits)
        layout["zero_points"] = (torch.uint8, (size,))
    if scheme.double_quantized:
        layout["absmax_blocks"] = (torch.float32, (-(-rows * groups // DOUBLE_QUANT_BLOCK),))
    return layout


def _stored(
    packed: Tensor,
    shape: tuple[int, int],
    scales: Tensor,
    zero_points: Tensor | None,
    scheme: Scheme,
) -> QuantizedTensor:
    """Round the scales and pack the zero points, as the scheme stores them."""
    scales = scales.detach()
    if scheme.double_quantized:
        return QuantizedTensor(scheme, shape, packed, *quantize_absmax(scales.float()))
    stored_scales = scales.to(torch.float16 if scheme.kind == "int" else torch.float32)
    if bool(((stored_scales == 0) & (scales > 0)).any()):
        raise ValueError(
            f"scales go down to {float(scales[scales > 0].min()):.3g}, which {scheme.name} would "
            "store as 0: multiply scales and weights by a constant first"
        )
    if zero_points is None:
        return QuantizedTensor(scheme, shape, packed, stored_scales)
    one_row = pack_codes(zero_points.reshape(1, -1), scheme.zero_point_bits)
    return QuantizedTensor(scheme, shape, packed, stored_scales, None, one_row.flatten())


def _check_weight(w: Tensor) -> None:
    if isinstance(w, QuantizedTensor):
        raise TypeError(
            f"w is quantised already ({w.scheme.name}): quantise the float weight, or "
            "w.dequantize() if that is gone"
        )
    if not isinstance(w, Tensor) or not w.is_floating_point():
        kind = getattr(w, "dtype", type(w).__name__)
        raise TypeError(f"w must be a floating-point tensor, not {kind}")
    if w.dim() != 2 or w.numel() == 0:
        raise ValueError(
            f"w must have shape (out, in) with at least one weight, not {tuple(w.shape)}"
        )
    if w.is_meta or w.layout != torch.strided:
        raise ValueError(
            f"w must be dense and hold its numbers, not {w.layout} on {w.device}: load it, or use "
            "w.to_dense(), first"
        )
    # One pass that can overflow only where w is not finite, or too large to be summed.
    if not w.float().sum().isfinite() and not (finite := w.float().isfinite()).all():
        row, column = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"w has {int((~finite).sum())} values that are NaN or infinite in float32, the first "
            f"at row {row}, column {column} ({w[row, column].item()}): mend the checkpoint"
        )


def _check_codes(codes: Tensor, scheme: Scheme, name: str = "codes") -> None:
    if not isinstance(codes, Tensor) or codes.dtype != torch.int8:
        kind = getattr(codes, "dtype", type(codes).__name__)
        raise TypeError(f"{name} must be an int8 tensor, not {kind}")
    if codes.dim() != 2 or codes.numel() == 0:
        raise ValueError(
            f"{name} must be a matrix of at least one, not of shape {tuple(codes.shape)}"
        )
    low, high = (int(end) for end in codes.aminmax())
    smallest, largest = scheme.code_range
    if low < smallest or high > largest:
        raise ValueError(
            f"{name} run from {low} to {high}, {scheme.name} has {smallest} to {largest}: clamp them"
        )


def _check_metadata(
    scales: Tensor, zero_points: Tensor | None, shape: tuple[int, int], scheme: Scheme
) -> None:
    if not isinstance(scales, Tensor) or not scales.is_floating_point():
        kind = getattr(scales, "dtype", type(scales).__name__)
        raise TypeError(f"scales must be a floating-point tensor, not {kind}")
    if tuple(scales.shape) != shape:
        raise ValueError(
            f"scales must have shape (out, groups) = {shape}, not {tuple(scales.shape)}"
        )
    largest = FP16_LARGEST if scheme.kind == "int" else torch.finfo(torch.float32).max
    if not bool(((scales >= 0) & (scales <= largest)).all()):  # NaN fails both
        raise ValueError(f"scales must lie in 0 .. {largest:.6g} to be stored under {scheme.name}")
    if (zero_points is None) != (scheme.zero_point_bits == 0):
        wanted = "None" if scheme.zero_point_bits == 0 else f"int8 of shape {shape}"
        raise ValueError(f"zero_points must be {wanted} under {scheme.name}")
    if zero_points is not None:
        _check_codes(zero_points, scheme, "zero_points")
        if tuple(zero_points.shape) != shape:
            raise ValueError(f"zero_points must have shape {shape}, not {tuple(zero_points.shape)}")
