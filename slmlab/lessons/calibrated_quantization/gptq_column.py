"""calibration.gptq_column: round one column, and let the later columns make up for it."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from slmlab.checking import Case, Close, Exercise, Mistake
from slmlab.quant.gptq import inverse_factor


def cases(seed: int) -> list[Case]:
    """Two columns and one row, a column in the middle, two rows, more tokens than columns."""
    random = torch.Generator().manual_seed(seed)

    def case(rows: int, columns: int, column: int, tokens: int, damping: float) -> Case:
        while True:
            # Channels that move together: without that the later columns could not help.
            shared = torch.randn(tokens, 1, generator=random)
            x = (shared + 0.7 * torch.randn(tokens, columns, generator=random)).round(decimals=1)
            w = torch.randn(rows, columns, generator=random).round(decimals=2)
            scales = (0.3 + 0.4 * torch.rand(rows, generator=random)).round(decimals=1)
            w[:, :column] = (w[:, :column] / scales[:, None]).round() * scales[:, None]
            steps = w[:, column] / scales
            off = (steps - steps.round()).abs()
            if bool((off < 0.15).any()) or bool((off > 0.45).any()):
                continue
            h = x.T @ x
            if torch.linalg.cond(h) < 200 and h.min() > 0:
                arguments = {"w": w, "x": x, "scales": scales, "column": column}
                return Case({**arguments, "damping": damping})

    return [
        case(1, 2, 0, 2, 0.25),
        case(1, 3, 1, 3, 0.25),
        case(2, 3, 0, 4, 0.1),
        case(2, 4, 3, 6, 0.1),
        case(4, 8, 3, 40, 0.01),
    ]


def _damped(x: Tensor, damping: float) -> Tensor:
    hessian = x.T @ x / len(x)  # (columns, columns); GPTQ's factor 2 cancels
    return hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian))


def reference(w: Tensor, x: Tensor, scales: Tensor, column: int, damping: float) -> Tensor:
    """The package's factor of the inverse: its row holds what equation 2 of GPTQ asks for."""
    row = inverse_factor(x.T @ x / len(x), damping)[column]
    rounded = (w[:, column] / scales).round() * scales
    updated = w - ((w[:, column] - rounded) / row[column])[:, None] * row
    updated[:, column] = rounded
    return updated


def _update(
    w: Tensor,
    x: Tensor,
    scales: Tensor,
    column: int,
    damping: float,
    *,
    damped: bool = True,
    divided: bool = True,
    inverted: bool = True,
    whole: bool = False,
    frozen: bool = True,
    sign: float = -1.0,
) -> Tensor:
    hessian = _damped(x, damping if damped else 0.0)
    start = column if not whole and frozen else 0
    matrix = hessian[start:, start:]
    if inverted:
        matrix = torch.linalg.inv(matrix)
    row = matrix[column - start]  # starts at column `start`
    updated = w.clone()
    rounded = (w[:, column] / scales).round() * scales
    error = w[:, column] - rounded
    if divided:
        error = error / row[column - start]
    first = column + 1 if frozen else 0
    updated[:, first:] += sign * error[:, None] * row[first - start :]
    updated[:, column] = rounded
    return updated


def _by_least_squares(w: Tensor, x: Tensor, scales: Tensor, column: int, damping: float) -> Tensor:
    """The later columns solve their own normal equations; no inverse is formed."""
    hessian = _damped(x, damping)
    rest = slice(column + 1, None)
    rounded = (w[:, column] / scales).round() * scales
    error = w[:, column] - rounded
    shift = torch.linalg.solve(hessian[rest, rest], hessian[rest, column])
    return torch.cat((w[:, :column], rounded[:, None], w[:, rest] + error[:, None] * shift), dim=1)


GPTQ_COLUMN = Exercise(
    id="calibration.gptq_column",
    title="One GPTQ column",
    points=4,
    minutes=15,
    difficulty=3,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "Hessian without damping",
            "Your shifts are too large: nothing was added to the Hessian's diagonal. With few "
            "tokens or a dead channel it cannot be inverted at all. What goes onto the diagonal "
            "first?",
            partial(_update, damped=False),
        ),
        Mistake(
            "error not divided by the diagonal",
            "Every shift is off by one factor, the same for all later columns: the rounding error "
            "goes in as it is. By which entry of the inverse is it divided?",
            partial(_update, divided=False),
        ),
        Mistake(
            "Hessian instead of its inverse",
            "You spread the error with the Hessian itself: a channel that moves with this one is "
            "pushed the wrong way. Which matrix says how the others make up for it?",
            partial(_update, inverted=False),
        ),
        Mistake(
            "finished columns moved",
            "The columns before this one change: they are rounded already, and now they lie off "
            "the grid. Which columns may still move?",
            partial(_update, frozen=False),
        ),
        Mistake(
            "inverse of the whole Hessian",
            "Right for column 0, off later: you invert the Hessian of all columns, as if the "
            "finished ones could still help. Which rows and columns go before you invert?",
            partial(_update, whole=True),
        ),
        Mistake(
            "sign flipped",
            "The later columns move away from the rounding error instead of against it, and the "
            "output gets worse than without any update. Is the shift added or subtracted?",
            partial(_update, sign=1.0),
        ),
    ),
    hints=(
        "Columns before `column` stay as they are, `column` lies on its grid, and the later ones "
        "make the (damped) output error as small as they can. Which of the three fails?",
        "Two channels, hessian [[2, 1], [1, 2]] with the damping already in, w = [[0.7, 0.4]], "
        "scale 0.5, column 0. Rounded 0.5, error 0.2. Inverse [[2/3, -1/3], [-1/3, 2/3]]; "
        "0.2 / (2/3) = 0.3; 0.3 * (-1/3) = -0.1; 0.4 - (-0.1) = 0.5: [[0.5, 0.5]].",
        "h = x.T @ x / tokens; h += damping * mean(diagonal of h) on the diagonal\n"
        "inverse = inv(h[column:, column:])\n"
        "q = round(w[:, column] / scales) * scales\n"
        "error = (w[:, column] - q) / inverse[0, 0]\n"
        "w[:, column:] -= outer(error, inverse[0]); w[:, column] = q",
    ),
    compare=Close(rtol=2e-3, atol=1e-4),
    alternatives=(_by_least_squares, _update),
)
