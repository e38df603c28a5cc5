"""quantization.affine_int8: a scale and a zero point a row, codes from -128 to 127.

Jacob et al. 2018, arXiv:1712.05877, section 2.1: a weight is scale * (code - zero_point).
"""

from __future__ import annotations

import torch
from torch import Tensor

from slmlab.checking import Case, Close, Exercise, Mistake
from slmlab.quant.grid import scales_and_zero_points, to_codes

Answer = tuple[Tensor, Tensor, Tensor]


def cases(seed: int) -> list[Case]:
    """A lopsided row, a positive one, one that needs the clamp, zeros, two rows, a matrix."""
    random = torch.Generator().manual_seed(seed)

    def between(low: float, high: float) -> float:
        return round(low + (high - low) * torch.rand(1, generator=random).item(), 1)

    # Whole multiples of this scale are exact in float32, so the tie below is one.
    power = (0.25, 0.5, 1.0, 2.0)[int(torch.randint(4, (1,), generator=random))]
    while True:
        high, low = between(2.0, 4.0), between(0.4, 1.2)
        matrices = [
            torch.tensor([[-low, high]]),
            torch.tensor([[low, high]]),
            torch.tensor([[-low, between(0.1, 1.5), high]]),
            torch.tensor([[0.0, 0.0], [-low, high]]),
            torch.randn(3, 12, generator=random) + torch.tensor([[1.5], [-0.4], [-4.0]]),
        ]
        if all(_far_from_ties(w) for w in matrices) and _rounding_once_shows(matrices[2]):
            break
    # Both ends round outwards: 256 steps for 255 codes, and the last one does not exist.
    matrices.insert(2, torch.tensor([[-127.5 * power, 127.5 * power]]))
    return [Case({"w": w}) for w in matrices]


def _far_from_ties(w: Tensor) -> bool:
    """No weight and no zero point lies halfway between two codes."""
    steps = w / _scales(*_ends(w))
    return bool(((steps - steps.floor() - 0.5).abs() > 0.01).all())


def _rounding_once_shows(w: Tensor) -> bool:
    """Three weights are enough to see that `round((w - low) / scale)` is another grid."""
    return not torch.equal(_rounded_once(w)[0], reference(w)[0])


def reference(w: Tensor) -> Answer:
    """The package's "int8-asym", with the scales before they are rounded to fp16 for storage."""
    scales, zero_points = scales_and_zero_points(w, "int8-asym")
    assert zero_points is not None
    return to_codes(w, scales, zero_points, "int8-asym"), scales[:, 0], zero_points[:, 0]


def _ends(w: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest of each row and of zero: (out, 1) each."""
    low, high = w.aminmax(dim=1, keepdim=True)
    return low.clamp(max=0), high.clamp(min=0)


def _scales(low: Tensor, high: Tensor, steps: int = 255) -> Tensor:
    scales = (high - low) / steps
    return torch.where(scales == 0, 1.0, scales)


def _answer(codes: Tensor, scales: Tensor, zero_points: Tensor, *, clamped: bool = True) -> Answer:
    if clamped:
        codes = codes.clamp(-128, 127)
    # By way of int16: what does not fit wraps around, on every machine.
    small = [t.to(torch.int16).to(torch.int8) for t in (codes, zero_points)]
    return small[0], scales[:, 0], small[1][:, 0]


def _affine(w: Tensor, low: Tensor, scales: Tensor, *, clamped: bool = True) -> Answer:
    zero_points = -128 - (low / scales).round()
    return _answer((w / scales).round() + zero_points, scales, zero_points, clamped=clamped)


def _rounded_once(w: Tensor) -> Answer:
    low, high = _ends(w)
    scales = _scales(low, high)
    zero_points = -128 - (low / scales).round()
    return _answer(((w - low) / scales).round() - 128, scales, zero_points)


def _zero_point_subtracted(w: Tensor) -> Answer:
    low, high = _ends(w)
    scales = _scales(low, high)
    zero_points = -128 - (low / scales).round()
    return _answer((w / scales).round() - zero_points, scales, zero_points)


def _zero_outside(w: Tensor) -> Answer:
    low, high = w.aminmax(dim=1, keepdim=True)
    return _affine(w, low, _scales(low, high))


def _zero_outside_clamped(w: Tensor) -> Answer:
    low, high = w.aminmax(dim=1, keepdim=True)
    scales = _scales(low, high)
    zero_points = (-128 - (low / scales).round()).clamp(-128, 127)
    return _answer((w / scales).round() + zero_points, scales, zero_points)


def _zero_outside_clamped_last(w: Tensor) -> Answer:
    low, high = w.aminmax(dim=1, keepdim=True)
    scales = _scales(low, high)
    zero_points = -128 - (low / scales).round()
    codes = (w / scales).round() + zero_points
    return _answer(codes, scales, zero_points.clamp(-128, 127))


def _zero_outside_wrapped_first(w: Tensor) -> Answer:
    low, high = w.aminmax(dim=1, keepdim=True)
    scales = _scales(low, high)
    zero_points = (-128 - (low / scales).round()).to(torch.int16).to(torch.int8)
    return _answer((w / scales).round() + zero_points, scales, zero_points)


def _steps_256(w: Tensor) -> Answer:
    low, high = _ends(w)
    return _affine(w, low, _scales(low, high, 256))


def _no_clamp(w: Tensor) -> Answer:
    low, high = _ends(w)
    return _affine(w, low, _scales(low, high), clamped=False)


def _scale_zero(w: Tensor) -> Answer:
    low, high = _ends(w)
    scales = (high - low) / 255
    zero_points = (-128 - (low / scales).round()).nan_to_num(0)
    return _answer(((w / scales).round() + zero_points).nan_to_num(0), scales, zero_points)


def _row_by_row(w: Tensor) -> Answer:
    codes, scales, zero_points = [], [], []
    for row in w.tolist():
        low, high = min(0.0, *row), max(0.0, *row)
        scale = (high - low) / 255 or 1.0
        zero_point = -128 - round(low / scale)
        codes.append([min(127, max(-128, round(v / scale) + zero_point)) for v in row])
        scales.append(scale)
        zero_points.append(zero_point)
    as_codes = torch.tensor(codes, dtype=torch.int8)
    return as_codes, torch.tensor(scales), torch.tensor(zero_points, dtype=torch.int8)


AFFINE_INT8 = Exercise(
    id="quantization.affine_int8",
    title="Affine INT8, with a zero point",
    points=4,
    minutes=12,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "rounded once",
            "You round once, over w - low: your steps are counted from low, which need not lie on "
            "the grid through 0, so a weight can come back off by more than half a step. Which two "
            "quotients are rounded each for itself?",
            _rounded_once,
        ),
        Mistake(
            "zero point subtracted",
            "Scales and zero points are right and the codes are not: the zero point is added when "
            "you quantise and subtracted when you go back. Which code must the weight 0 get?",
            _zero_point_subtracted,
        ),
        Mistake(
            "range without zero",
            "Rows with both signs are right, rows of one sign are not: your range leaves 0 out, and "
            "then no code in -128 .. 127 stands for it. What do you do to low and high first?",
            _zero_outside,
            (_zero_outside_clamped, _zero_outside_clamped_last, _zero_outside_wrapped_first),
        ),
        Mistake(
            "256 steps",
            "Your scales are slightly too small: 256 codes have 255 steps between them. How many "
            "steps lead from -128 to 127?",
            _steps_256,
        ),
        Mistake(
            "no clamp",
            "One code wrapped around: where both ends of a row round outwards, the largest weight "
            "gets 128, and int8 turns that into -128. What keeps a code in its range?",
            _no_clamp,
        ),
        Mistake(
            "scale zero for a row of zeros",
            "A row of zeros has a range of 0, and you divide by it: any scale would do there. Which "
            "one makes 0 / scale safe?",
            _scale_zero,
        ),
    ),
    hints=(
        "low gets the code -128, 0 gets the zero point exactly, and no other weight is off by more "
        "than a step after it comes back. Which of the three does your result break?",
        "Row [-0.5, 0.0, 2.0]: range 2.5, scale 2.5/255 = 0.0098039; low / scale = -51, zero point "
        "-128 + 51 = -77; round(w / scale) = [-51, 0, 204], codes [-128, -77, 127].",
        "low, high = smallest and largest of each row and of 0\n"
        "scale = (high - low) / 255; 1 where that is 0\n"
        "zero_point = -128 - round(low / scale)\n"
        "codes = round(w / scale) + zero_point, clamped to -128 .. 127",
    ),
    compare=Close(rtol=1e-5, atol=1e-7),
    alternatives=(_row_by_row,),
)
