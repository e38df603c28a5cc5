"""anatomy.apply_rope: turn each pair of a head by an angle that grows with the position."""

from __future__ import annotations

import torch
from torch import Tensor

from slmlab.checking import Case, Close, Exercise, Mistake
from slmlab.models.config import RopeConfig
from slmlab.models.rope import apply_rope, rope_inverse_frequencies, rope_tables


def cases(seed: int) -> list[Case]:
    """One pair at position 0 and at another, two pairs, two tokens, a later start, two heads."""
    random = torch.Generator().manual_seed(seed)

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=random))

    def values(*shape: int) -> Tensor:
        # Away from zero and all different, so that every value tells where it went.
        steps = torch.randperm(shape[0] * shape[1] * shape[2], generator=random)
        return (0.5 + 0.2 * steps.float()).round(decimals=1).reshape(shape)

    def case(x: Tensor, positions: list[int], theta: float) -> Case:
        return Case({"x": x, "positions": torch.tensor(positions), "theta": theta})

    theta = (100.0, 1000.0, 10000.0)[whole(0, 2)]
    pair, start = values(1, 1, 2), whole(4, 9)
    late = whole(11, 40)
    return [
        case(pair, [0], theta),
        case(pair, [whole(1, 2)], theta),
        case(values(1, 1, 4), [whole(1, 2)], theta),
        case(values(1, 2, 2), [0, 1], theta),
        case(values(1, 2, 2), [start, start + 1], theta),
        case(torch.randn(2, 3, 8, generator=random), [late, late + 1, late + 2], 10 * theta),
    ]


def reference(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """The package's three steps: frequencies, tables, rotation."""
    frequencies = rope_inverse_frequencies(x.shape[-1], RopeConfig(theta=theta))
    return apply_rope(x, *rope_tables(positions, frequencies))


def _angles(positions: Tensor, head_dim: int, theta: float, exponent_step: int = 2) -> Tensor:
    steps = exponent_step * torch.arange(head_dim // 2) / head_dim
    return positions[:, None].float() * theta**-steps


def _turn(x: Tensor, angles: Tensor) -> Tensor:
    first, second = x.tensor_split(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


def _interleaved(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    angles = _angles(positions, x.shape[-1], theta)
    first, second = x[..., 0::2], x[..., 1::2]
    cos, sin = angles.cos(), angles.sin()
    pairs = (first * cos - second * sin, first * sin + second * cos)
    return torch.stack(pairs, dim=-1).flatten(-2)


def _backwards(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    return _turn(x, -_angles(positions, x.shape[-1], theta))


def _half_exponent(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    return _turn(x, _angles(positions, x.shape[-1], theta, exponent_step=1))


def _no_minus(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    angles = _angles(positions, x.shape[-1], theta)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos + second * sin, first * sin + second * cos), dim=-1)


def _overwritten(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    angles = _angles(positions, x.shape[-1], theta)
    cos, sin = angles.cos(), angles.sin()
    first = first * cos - second * sin
    return torch.cat((first, first * sin + second * cos), dim=-1)


def _positions_ignored(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    return _turn(x, _angles(torch.arange(x.shape[-2]), x.shape[-1], theta))


def _as_complex_numbers(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    angles = _angles(positions, x.shape[-1], theta)
    turned = torch.complex(first, second) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((turned.real, turned.imag), dim=-1)


def _rotate_half(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    half = x.shape[-1] // 2
    angles = _angles(positions, x.shape[-1], theta).repeat(1, 2)
    turned_by_a_quarter = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * angles.cos() + turned_by_a_quarter * angles.sin()


APPLY_ROPE = Exercise(
    id="anatomy.apply_rope",
    title="Rotary position embedding by hand",
    points=4,
    minutes=12,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "pairs interleaved",
            "Right for head_dim 2, off for larger ones: you pair neighbours (0, 1), (2, 3). The "
            "half-split convention pairs value i with value i + head_dim/2. Which values turn "
            "together?",
            _interleaved,
        ),
        Mistake(
            "rotated backwards",
            "The lengths are right and the rotation runs backwards: the sines have the wrong sign. "
            "Where does [1, 0] go when you turn it by a small positive angle?",
            _backwards,
        ),
        Mistake(
            "minus missing",
            "Your second halves are right and the first ones are not, and lengths change: a "
            "rotation has one minus, a*cos - b*sin. Which half do you negate before you swap them?",
            _no_minus,
        ),
        Mistake(
            "first half overwritten",
            "Your first halves are right and the second ones are not: they are computed from the "
            "new first half. Which values do a and b stand for in the second line?",
            _overwritten,
        ),
        Mistake(
            "exponent i / head_dim",
            "The first pair is right, the later ones turn too fast: pair i has the frequency theta "
            "to the power -2i/head_dim. What is the exponent of the last of head_dim/2 pairs?",
            _half_exponent,
        ),
        Mistake(
            "given positions ignored",
            "Right where the positions are 0, 1, ..., off for a later start: you count tokens in "
            "place of reading `positions`. With a cache, at which position does the next token "
            "stand?",
            _positions_ignored,
        ),
    ),
    hints=(
        "A rotation keeps the length of every pair, and position 0 changes nothing. Does your "
        "result keep the length of (x[i], x[i + head_dim/2])?",
        "head_dim 4, theta 100, x = [1.0, 2.0, 0.0, 0.0]: frequencies [1, 0.1], pairs (1, 0) and "
        "(2, 0). Three positions: 0 gives [1, 2, 0, 0]; 1 gives [0.5403, 1.9900, 0.8415, 0.1997]; "
        "2 gives [-0.4161, 1.9601, 0.9093, 0.3973].",
        "for pair i: frequency = theta ** (-2i / head_dim); angle = position * frequency\n"
        "a, b = x[i], x[i + head_dim/2]\n"
        "out[i] = a*cos - b*sin\n"
        "out[i + head_dim/2] = a*sin + b*cos",
    ),
    compare=Close(rtol=1e-4, atol=1e-4),
    alternatives=(_as_complex_numbers, _rotate_half),
)
