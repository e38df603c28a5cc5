"""The arithmetic between weights and codes, group by group; calibrated methods use it too.

    codes = round(w / scale) + zero_point        (integers: Jacob et al. 2018, arXiv:1712.05877)
    codes = nearest level to w / absmax          (nf4, fp4: Dettmers et al. 2023, 2305.14314)

Scales are float32 here, and codes are computed with them; storing rounds them to fp16 (or to 8
bits with "-dq"). So a weight comes back within half a step plus that rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from slmlab.quant import codebooks
from slmlab.quant.scheme import VALID_FORMS, Scheme, parse_scheme

FP16_LARGEST = 65504.0
_FP16_STEP_BELOW = 2.0**-24  # distance of fp16 numbers below the smallest normal one
SMALLEST_ABSMAX = 1e-38  # its inverse is still finite in float32


def scales_and_zero_points(w: Tensor, scheme: str | Scheme) -> tuple[Tensor, Tensor | None]:
    """What turns the weights of each group into codes, before it is rounded for storage.

    Args:
        w: (out, columns) float; the groups start at column 0.

    Returns:
        (out, groups) float32: scales, or absmax for nf4 and fp4; all finite, none negative.
        (out, groups) int8: the code that stands for 0; None without "-asym". The range of such
        a group is widened to hold 0, so that 0 stays exact and the zero point fits the codes.

    Raises:
        ValueError: a scale above fp16's largest number, 65504.
    """
    scheme = quantising(scheme)
    grouped = _grouped(w.float(), scheme)  # (out, groups, group)
    if scheme.kind == "codebook":
        return grouped.abs().amax(-1), None
    low_code, high_code = scheme.code_range
    if scheme.symmetric:
        scales = _fp16_range(grouped.abs().amax(-1) / high_code)
        return scales, None
    low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
    scales = _fp16_range((high - low) / (high_code - low_code))
    return scales, (low_code - torch.round(low / scales)).to(torch.int8)


def to_codes(w: Tensor, scales: Tensor, zero_points: Tensor | None, scheme: str | Scheme) -> Tensor:
    """Nearest code of each weight, clamped to the scheme's range.

    Args:
        w: (out, columns) float.
        scales, zero_points: (out, groups), as `scales_and_zero_points` gives them.

    Returns:
        (out, columns) int8.
    """
    scheme = quantising(scheme)
    grouped = _grouped(w.float(), scheme)  # (out, groups, group)
    scales = scales.float()[..., None]
    if scheme.codebook:
        inverse = 1 / scales.clamp(min=SMALLEST_ABSMAX)
        codes = codebooks.nearest_codes(grouped * inverse, scheme.codebook)
    else:
        steps = (grouped / scales).round_()
        if zero_points is not None:
            steps += zero_points[..., None]
        codes = steps.clamp_(*scheme.code_range).to(torch.int8)
    return codes.flatten(1)[:, : w.shape[1]]


def from_codes(
    codes: Tensor, scales: Tensor, zero_points: Tensor | None, scheme: str | Scheme
) -> Tensor:
    """The weights that codes stand for: (out, columns) float32. Arguments as in `to_codes`."""
    scheme = quantising(scheme)
    grouped = _grouped(codes, scheme)  # (out, groups, group)
    scales = scales.float()[..., None]
    if scheme.codebook:
        levels = codebooks.levels(scheme.codebook).to(codes.device)
        weights = levels.index_select(0, grouped.flatten().int()).view(grouped.shape) * scales
    elif zero_points is not None:
        weights = (grouped.float() - zero_points[..., None]).mul_(scales)
    else:
        weights = grouped.float().mul_(scales)
    return weights.flatten(1)[:, : codes.shape[1]]


def _grouped(x: Tensor, scheme: Scheme) -> Tensor:
    """(out, columns) as (out, groups, group); a short last group is filled up with zeros."""
    size = scheme.group_size or x.shape[1]
    if size > x.shape[1]:
        return x[:, None]
    if x.shape[1] % size:
        x = functional.pad(x, (0, -x.shape[1] % size))
    return x.unflatten(1, (-1, size))


def _fp16_range(scales: Tensor) -> Tensor:
    """Scales that fp16 can hold, and 1 for groups of zeros.

    Below its normal range fp16 numbers lie 2**-24 apart. While a scale is 128 such distances or
    more, rounding it later moves the largest code by half a step at most. A smaller one becomes
    the next larger fp16 number now, before codes are computed: rounding would change it by a
    factor, or to zero.
    """
    if (largest := scales.max().item()) > FP16_LARGEST:
        raise ValueError(
            f"w needs a scale of {largest:.3g}, above fp16's largest, {FP16_LARGEST:g}: "
            "divide the weights by a constant first"
        )
    coarse = (scales / _FP16_STEP_BELOW).ceil_() * _FP16_STEP_BELOW
    scales = torch.where(scales < 128 * _FP16_STEP_BELOW, coarse, scales)
    return torch.where(scales == 0, 1.0, scales)


def quantising(scheme: str | Scheme) -> Scheme:
    """The scheme of that name. ValueError where it is a float format: it has no codes."""
    parsed = scheme if isinstance(scheme, Scheme) else parse_scheme(scheme)
    if parsed.is_float:
        raise ValueError(
            f"scheme {parsed.name!r} does not quantise: use w.to(torch.{parsed.name}), or one of "
            f"{VALID_FORMS}"
        )
    return parsed
