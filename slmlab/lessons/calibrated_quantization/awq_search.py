"""calibration.awq_search: how far to scale salient channels up before rounding."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from slmlab.checking import Case, Close, Exercise, Mistake
from slmlab.quant.awq import awq_scales
from slmlab.quant.calibration import LayerStatistics, output_error
from slmlab.quant.grid import from_codes, scales_and_zero_points, to_codes


def cases(seed: int) -> list[Case]:
    """Two channels and one exponent, then a grid, two rows, a matrix; the best stands clear."""
    random = torch.Generator().manual_seed(seed)

    def draw(tokens: int, rows: int, channels: int) -> tuple[Tensor, Tensor]:
        loud = torch.rand(channels, generator=random) * 0.5 + 0.5
        loud[torch.randint(channels, (1,), generator=random)] *= 6
        x = (torch.randn(tokens, channels, generator=random) * loud).round(decimals=1)
        w = (torch.randn(rows, channels, generator=random)).round(decimals=2)
        return x, w

    def case(tokens: int, rows: int, channels: int, alphas: list[float], bits: int) -> Case:
        while True:
            x, w = draw(tokens, rows, channels)
            if bool((x.abs().mean(dim=0) < 0.1).any()) or bool((w.abs() < 0.05).any()):
                continue
            arguments = {"x": x, "w": w, "alphas": alphas, "bits": bits}
            if _stands_clear(arguments) and _inverse_is_worse(arguments):
                return Case(arguments)

    return [
        case(1, 1, 2, [0.5], 3),
        case(1, 1, 2, [0.0, 0.5], 3),
        case(2, 1, 2, [0.0, 0.5, 1.0], 4),
        case(1, 2, 2, [0.0, 0.5], 3),
        case(16, 6, 12, [0.0, 0.25, 0.5, 0.75, 1.0], 3),
    ]


def _stands_clear(arguments: dict[str, Any]) -> bool:
    """No rounding lies on an edge, and the best exponent is better by more than arithmetic."""
    x, w, alphas = arguments["x"], arguments["w"], arguments["alphas"]
    for alpha in alphas:
        scaled = w * x.abs().mean(dim=0) ** alpha
        steps = scaled / _step(scaled, arguments["bits"])
        if bool(((steps - steps.floor() - 0.5).abs() < 1e-3).any()):
            return False
    errors = sorted(float(e) for e in _on_the_input(**arguments)["errors"])
    return errors[0] > 1e-6 and (len(errors) < 2 or errors[1] > 1.02 * errors[0])


def _inverse_is_worse(arguments: dict[str, Any]) -> bool:
    """Shrinking the loud channels does more damage: no case may speak for that mistake."""
    right, wrong = (_search(**arguments, swapped=swapped)["errors"] for swapped in (False, True))
    scaled = torch.tensor(arguments["alphas"]) > 0
    return bool((wrong[scaled] > 1.5 * right[scaled]).all())


def _step(w: Tensor, bits: int) -> Tensor:
    return w.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)


def _rounded(w: Tensor, bits: int, step: Tensor | None = None) -> Tensor:
    step = _step(w, bits) if step is None else step
    return (w / step).round() * step


def _answer(alphas: list[float], errors: list[Tensor]) -> dict[str, Any]:
    stacked = torch.stack(errors)
    return {"alpha": alphas[int(stacked.argmin())], "errors": stacked}


def reference(x: Tensor, w: Tensor, alphas: list[float], bits: int) -> dict[str, Any]:
    """The package's scales, grid and error; its scales are centred, which a row's step undoes."""
    statistics = LayerStatistics.empty(x.shape[1])
    statistics.add(x)
    scheme, errors = f"int{bits}-row", []
    for alpha in alphas:
        scale = awq_scales(statistics.mean_magnitude, alpha)
        steps, _ = scales_and_zero_points(w * scale, scheme)
        rounded = from_codes(to_codes(w * scale, steps, None, scheme), steps, None, scheme)
        errors.append(output_error(rounded / scale - w, statistics.second_moment).mean())
    return _answer(alphas, errors)


def _search(
    x: Tensor,
    w: Tensor,
    alphas: list[float],
    bits: int,
    *,
    from_weights: bool = False,
    undone: bool = True,
    swapped: bool = False,
    of_weights: bool = False,
    one_step: bool = False,
    summed: bool = False,
) -> dict[str, Any]:
    errors = []
    importance = (w if from_weights else x).abs().mean(dim=0)
    for alpha in alphas:
        scale = importance ** (-alpha if swapped else alpha)
        step = _step(w * scale, bits)
        rounded = _rounded(w * scale, bits, step.amax() if one_step else step)
        delta = (rounded / scale if undone else rounded) - w
        squares = (delta if of_weights else x @ delta.T).square()
        errors.append(squares.sum() if summed else squares.mean())
    return _answer(alphas, errors)


def _on_the_input(x: Tensor, w: Tensor, alphas: list[float], bits: int) -> dict[str, Any]:
    """The scale is left in the weight and taken out of the input instead."""
    wanted, importance = x @ w.T, x.abs().mean(dim=0)
    errors = []
    for alpha in alphas:
        scale = importance.pow(alpha)
        outputs = (x / scale) @ _rounded(w * scale, bits).T
        errors.append(torch.nn.functional.mse_loss(outputs, wanted))
    return _answer(alphas, errors)


AWQ_SEARCH = Exercise(
    id="calibration.awq_search",
    title="Search the AWQ exponent",
    points=3,
    minutes=10,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "importance from the weights",
            "Your scales follow the weights. AWQ means activation-aware: a channel matters as much "
            "as its inputs are large. Whose mean magnitude do you raise to alpha?",
            partial(_search, from_weights=True),
        ),
        Mistake(
            "scale applied on one side only",
            "Right at alpha 0, far off elsewhere: the weights are scaled up and nothing takes the "
            "scale away again, so the layer computes something else. Where does 1/s go?",
            partial(_search, undone=False),
        ),
        Mistake(
            "inverse swapped",
            "You divide the weights of the loud channels: they get a coarser grid, where the "
            "harm is largest. Is the weight of an important channel multiplied by s or divided?",
            partial(_search, swapped=True),
        ),
        Mistake(
            "error of the weights",
            "You measure how far the weights move. A channel that carries 6 times the input does "
            "6 times the harm with the same shift. Whose error should be smallest?",
            partial(_search, of_weights=True),
        ),
        Mistake(
            "one step for the matrix",
            "Right with one output, off with more: all rows share the step of the largest weight, "
            "and the small rows get a grid that is too coarse. Over which axis does amax run?",
            partial(_search, one_step=True),
        ),
        Mistake(
            "sum instead of mean",
            "All errors of a case are too large by one factor, tokens times outputs: a sum where a "
            "mean is asked. The best alpha is the same. By what do you divide the sum?",
            partial(_search, summed=True),
        ),
    ),
    hints=(
        "Without rounding every alpha gives the same outputs: what multiplies a weight divides its "
        "input. Leave the rounding out: are all your errors 0?",
        "x = [[3, 1, 1]], w = [[0.4, 1.0, -0.7]], 3 bits, alpha 1: s = [3, 1, 1], scaled "
        "[1.2, 1.0, -0.7], step 1.2/3 = 0.4, rounded [1.2, 0.8, -0.8], over s [0.4, 0.8, -0.8]. "
        "Output 1.2 instead of 1.5: error 0.09.",
        "importance = mean over tokens of |x|\n"
        "for alpha: s = importance ** alpha; scaled = w * s\n"
        "    step of each row = its largest |scaled| / (2**(bits-1) - 1)\n"
        "    q = round(scaled / step) * step / s\n"
        "    error = mean of the squares of x @ (q - w).T",
    ),
    compare=Close(rtol=1e-3, atol=1e-6),
    alternatives=(_on_the_input, _search),
)
