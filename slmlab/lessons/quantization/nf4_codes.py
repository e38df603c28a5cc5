"""quantization.nf4_codes: the nearest level of a code book, one absmax a group."""

from __future__ import annotations

import torch
from torch import Tensor

from slmlab.checking import Case, Close, Exercise, Mistake
from slmlab.quant.codebooks import nf4_levels
from slmlab.quant.grid import scales_and_zero_points, to_codes

Answer = tuple[Tensor, Tensor]


def cases(seed: int) -> list[Case]:
    """One group, one whose largest weight is negative, two groups, zeros, then matrices."""
    random = torch.Generator().manual_seed(seed)
    levels = nf4_levels()

    def between(low: float, high: float) -> float:
        return round(low + (high - low) * torch.rand(1, generator=random).item(), 1)

    while True:
        large = between(2.0, 4.0)
        a, b, c = between(0.3, 1.7), between(0.3, 1.7), between(0.2, 0.9)
        drawn = [
            (torch.tensor([[large, -a]]), 2),
            (torch.tensor([[-large, b]]), 2),
            (torch.tensor([[large, -a, c, b / 10]]), 2),
            (torch.tensor([[0.0, 0.0, -large, b]]), 2),
            (torch.randn(3, 16, generator=random), 8),
            (0.1 * torch.randn(2, 64, generator=random), 32),
        ]
        if all(_far_from_ties(w, size, levels) for w, size in drawn):
            break
    return [Case({"w": w, "levels": levels.clone(), "group_size": size}) for w, size in drawn]


def _far_from_ties(w: Tensor, group_size: int, levels: Tensor) -> bool:
    """No weight lies halfway between two levels, or on one but for rounding."""
    x, _ = _normalised(w, group_size)
    middles = (levels[1:] + levels[:-1]) / 2
    distances = (x[..., None] - torch.cat((middles, levels[1:-1]))).abs()
    # Zeros lie on a level on purpose, and there every reading of "nearest" agrees.
    return bool(((distances > 2e-4) | (x == 0)[..., None]).all())


def reference(w: Tensor, levels: Tensor, group_size: int) -> Answer:
    """The package's nf4, whose own table is the `levels` that every case passes."""
    scheme = f"nf4-g{group_size}"
    absmax, zero_points = scales_and_zero_points(w, scheme)
    return to_codes(w, absmax, zero_points, scheme), absmax


def _grouped(w: Tensor, group_size: int) -> Tensor:
    return w.unflatten(1, (-1, group_size))  # (out, groups, group)


def _normalised(w: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    grouped = _grouped(w, group_size)
    absmax = grouped.abs().amax(dim=-1)
    return grouped / absmax.clamp(min=1e-30)[..., None], absmax


def _nearest(x: Tensor, levels: Tensor) -> Tensor:
    return (x[..., None] - levels).abs().argmin(dim=-1).to(torch.int8).flatten(1)


def _a_row(w: Tensor, levels: Tensor, group_size: int) -> Answer:
    x, absmax = _normalised(w, w.shape[1])
    return _nearest(x, levels), absmax.expand(-1, w.shape[1] // group_size).clone()


def _level_below(w: Tensor, levels: Tensor, group_size: int) -> Answer:
    x, absmax = _normalised(w, group_size)
    below = torch.searchsorted(levels, x.contiguous(), right=True) - 1
    return below.clamp(0, 15).to(torch.int8).flatten(1), absmax


def _without_abs(w: Tensor, levels: Tensor, group_size: int) -> Answer:
    grouped = _grouped(w, group_size)
    largest = grouped.amax(dim=-1)
    x = torch.where(largest[..., None] == 0, 0.0, grouped / largest[..., None])
    return _nearest(x, levels), largest


def _not_divided(w: Tensor, levels: Tensor, group_size: int) -> Answer:
    _, absmax = _normalised(w, group_size)
    return _nearest(_grouped(w, group_size), levels), absmax


def _zero_by_zero(w: Tensor, levels: Tensor, group_size: int) -> Answer:
    grouped = _grouped(w, group_size)
    absmax = grouped.abs().amax(dim=-1)
    return _nearest(grouped / absmax[..., None], levels), absmax


def _strided(w: Tensor, levels: Tensor, group_size: int) -> Answer:
    grouped = w.unflatten(1, (group_size, -1))  # (out, group, groups)
    absmax = grouped.abs().amax(dim=1)
    return _nearest(grouped / absmax.clamp(min=1e-30)[:, None], levels), absmax


def _by_midpoints(w: Tensor, levels: Tensor, group_size: int) -> Answer:
    codes = torch.empty(w.shape, dtype=torch.int8)
    largest = []
    middles = (levels[1:] + levels[:-1]) / 2
    for start in range(0, w.shape[1], group_size):
        group = w[:, start : start + group_size].contiguous()
        amax = torch.maximum(group.amax(dim=1), -group.amin(dim=1))
        # Compare w with scaled midpoints: a group of zeros never divides.
        above = group[:, :, None] > middles * amax[:, None, None]
        above |= (group == 0)[:, :, None] & (middles < 0)
        codes[:, start : start + group_size] = above.sum(dim=-1).to(torch.int8)
        largest.append(amax)
    return codes, torch.stack(largest, dim=1)


NF4_CODES = Exercise(
    id="quantization.nf4_codes",
    title="Quantise to a code book",
    points=3,
    minutes=10,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "one absmax a row",
            "Rows of one group are right, longer ones are not: you take one absmax for the whole "
            "row. How many has a row of 4 weights in groups of 2?",
            _a_row,
        ),
        Mistake(
            "level below instead of nearest",
            "Your codes are never too large and often one too small: you take the level below each "
            "weight. Between which two levels does it lie, and which is nearer?",
            _level_below,
        ),
        Mistake(
            "largest without its size",
            "Groups whose largest weight is negative are off: absmax is the maximum of the "
            "magnitudes. What is it for [-2.0, 0.7]?",
            _without_abs,
        ),
        Mistake(
            "not divided by absmax",
            "You compare the weights themselves with levels that reach from -1 to 1: large ones all "
            "get the outermost level. What brings a group into that range?",
            _not_divided,
        ),
        Mistake(
            "zeros divided by zero",
            "A group of zeros gets the code 0, which is the level -1: 0/0 is not a number and no "
            "level is nearest to that. It comes back as 0 only because absmax is 0. Which code "
            "stands for 0?",
            _zero_by_zero,
        ),
        Mistake(
            "groups with a stride",
            "Rows of one group are right, longer ones are not: weights of one group stand far apart "
            "in yours, such as columns 0, 2, 4. Groups are neighbours. Which columns share the first "
            "absmax?",
            _strided,
        ),
    ),
    hints=(
        "No other level times absmax lies nearer to a weight than the one you chose. Look at one "
        "weight where that fails.",
        "Levels [-1.0, 0.0, 0.4, 1.0], group [2.0, -0.9, 0.3]: absmax 2.0; divided [1.0, -0.45, "
        "0.15]; nearest levels 1.0, 0.0, 0.0, so codes [3, 1, 1].",
        "group the columns: (out, groups, group_size)\n"
        "absmax = largest magnitude of each group\n"
        "x = w / absmax, or 0 where absmax is 0\n"
        "code = place of the level with the smallest |x - level|, as int8 in w's shape",
    ),
    compare=Close(rtol=1e-6, atol=0.0),
    alternatives=(_by_midpoints,),
)
