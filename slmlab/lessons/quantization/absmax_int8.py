"""quantization.absmax_int8: one scale a row, codes from -127 to 127."""

from __future__ import annotations

import torch
from torch import Tensor

from slmlab.checking import Case, Close, Exercise, Mistake
from slmlab.quant.grid import scales_and_zero_points, to_codes

Answer = tuple[Tensor, Tensor]


def cases(seed: int) -> list[Case]:
    """The largest weight negative, a longer row, two sizes of row, a row of zeros, a matrix."""
    random = torch.Generator().manual_seed(seed)

    def between(low: float, high: float) -> float:
        return round(low + (high - low) * torch.rand(1, generator=random).item(), 1)

    large = between(2.0, 4.0)
    while True:
        small = [-between(0.3, 1.8), between(0.3, 1.8), between(0.4, 1.5)]
        matrices = [
            torch.tensor([[-large, small[1]]]),
            torch.tensor([[large, small[0], small[2]]]),
            torch.tensor([[large, small[1]], [10 * large, 7 * small[0]]]),
            torch.tensor([[0.0, 0.0], [small[0], large]]),
            torch.randn(4, 12, generator=random) * torch.tensor([[0.05], [1.0], [0.3], [2.0]]),
        ]
        if all(_far_from_ties(w) for w in matrices) and _cutting_shows(matrices[0]):
            return [Case({"w": w}) for w in matrices]


def _far_from_ties(w: Tensor) -> bool:
    """No weight lies halfway between two codes: rounding modes must not decide."""
    steps = 127 * w / w.abs().amax(dim=1, keepdim=True).clamp(min=1e-9)
    return bool(((steps - steps.floor() - 0.5).abs() > 0.01).all())


def _cutting_shows(w: Tensor) -> bool:
    """Codes that are cut instead of rounded differ: two weights are enough to see it on paper."""
    return not torch.equal(_truncated(w)[0], reference(w)[0])


def reference(w: Tensor) -> Answer:
    """The package's "int8", with the scales before they are rounded to fp16 for storage."""
    scales, zero_points = scales_and_zero_points(w, "int8")
    return to_codes(w, scales, zero_points, "int8"), scales[:, 0]


def _rounded(w: Tensor, scales: Tensor) -> Tensor:
    return (w / scales).round().clamp(-127, 127).to(torch.int8)


def _safe(scales: Tensor) -> Tensor:
    return torch.where(scales == 0, 1.0, scales)


def _row_scales(w: Tensor, top: int = 127) -> Tensor:
    return _safe(w.abs().amax(dim=1, keepdim=True) / top)


def _one_scale(w: Tensor) -> Answer:
    scale = w.abs().amax() / 127
    return _rounded(w, scale), scale.expand(len(w)).clone()


def _by_column(w: Tensor) -> Answer:
    scales = _safe(w.abs().amax(dim=0) / 127)
    return _rounded(w, scales), scales


def _without_abs(w: Tensor) -> Answer:
    scales = _safe(w.amax(dim=1, keepdim=True) / 127)
    return _rounded(w, scales), scales[:, 0]


def _minus_128(w: Tensor) -> Answer:
    scales = _row_scales(w, 128)
    return (w / scales).round().clamp(-128, 127).to(torch.int8), scales[:, 0]


def _truncated(w: Tensor) -> Answer:
    scales = _row_scales(w)
    return (w / scales).clamp(-127, 127).to(torch.int8), scales[:, 0]


def _scale_zero(w: Tensor) -> Answer:
    scales = w.abs().amax(dim=1, keepdim=True) / 127
    return _rounded(w, scales), scales[:, 0]


def _row_by_row(w: Tensor) -> Answer:
    codes, scales = [], []
    for row in w.tolist():
        scale = max(abs(value) for value in row) / 127 or 1.0
        scales.append(scale)
        codes.append([round(value / scale) for value in row])
    return torch.tensor(codes, dtype=torch.int8), torch.tensor(scales)


def _by_inverse(w: Tensor) -> Answer:
    largest = torch.maximum(w.amax(dim=-1), -w.amin(dim=-1))
    largest = torch.where(largest > 0, largest, torch.full_like(largest, 127.0))
    steps = torch.einsum("oi,o->oi", w, 127 / largest)
    return torch.round(steps).to(torch.int8), largest / 127


ABSMAX_INT8 = Exercise(
    id="quantization.absmax_int8",
    title="Absmax INT8, one scale a row",
    points=3,
    minutes=8,
    difficulty=1,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "one scale for the matrix",
            "Rows with the largest weight are right and the others use few codes: one scale was "
            "taken for the whole matrix. Each row has its own amax. Over which axis is it taken?",
            _one_scale,
        ),
        Mistake(
            "scale over the wrong axis",
            "Your scales belong to columns: a row is one output and shares one scale, its inputs "
            "run along dim 1. How many scales does a matrix of 3 rows and 5 columns have?",
            _by_column,
        ),
        Mistake(
            "largest without its size",
            "Rows whose largest weight is negative are off: you take the maximum of w, not that of "
            "its magnitude. What is the amax of [-2.0, 0.7]?",
            _without_abs,
        ),
        Mistake(
            "codes at -128",
            "You divide by 128, so a row may hold the code -128 and its mirror image 128 does not "
            "exist: the scheme is symmetric, -127 to 127. Which number of steps lies between 0 and "
            "amax?",
            _minus_128,
        ),
        Mistake(
            "cut instead of rounded",
            "Your codes are too near to zero: converting to int8 cuts the fraction off, and the "
            "error grows from half a step to a whole one. What must happen before the conversion?",
            _truncated,
        ),
        Mistake(
            "scale zero for a row of zeros",
            "A row of zeros gets the scale 0, and 0/0 is not a number: any scale would do there. "
            "Which one makes 0 / scale safe?",
            _scale_zero,
        ),
    ),
    hints=(
        "After dequantising, no weight may be off by more than half its row's scale. Which step of "
        "yours can break that?",
        "Row [2.0, -1.0, 0.5]: amax 2.0, scale 2/127 = 0.015748, w / scale = [127, -63.5, 31.75], "
        "codes [127, -64, 32]. Back: -64 * 0.015748 = -1.0079, off by half a step.",
        "scales = amax of |w| over dim 1, axis kept, / 127; 1 where that is 0\n"
        "codes = round(w / scales), clamped to -127 .. 127, as int8\n"
        "return codes, scales without the kept axis",
    ),
    compare=Close(rtol=1e-5, atol=1e-7),
    alternatives=(_row_by_row, _by_inverse),
)
