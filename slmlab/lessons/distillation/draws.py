"""Logits for the cases: steps of 0.1, so that a counterexample can be followed with a calculator."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from slmlab.checking import Case
from slmlab.distill import distillation_loss


def logits(draw: random.Random, positions: int, size: int, most: float = 2.0) -> Tensor:
    """(positions, size) float32 between -most and most."""
    steps = round(most * 10)
    return torch.tensor(
        [[draw.randint(-steps, steps) / 10 for _ in range(size)] for _ in range(positions)]
    )


def pair(
    draw: random.Random, positions: int, size: int, temperature: float = 1.0, most: float = 2.0
) -> tuple[Tensor, Tensor]:
    """Student's and teacher's logits whose divergences differ clearly between the directions."""
    while True:
        student, teacher = (logits(draw, positions, size, most) for _ in range(2))
        forward, reverse = (
            float(distillation_loss(student, teacher, temperature, name))
            for name in ("forward_kl", "reverse_kl")
        )
        if forward > 0.05 and abs(reverse / forward - 1) > 0.05:
            return student, teacher


def loss_cases(seed: int) -> list[Case]:
    """One position at temperature 1; above; below; several positions; a larger vocabulary."""
    draw = random.Random(seed)

    def case(positions: int, size: int, temperature: float) -> Case:
        student, teacher = pair(draw, positions, size, temperature)
        return Case(
            {"student_logits": student, "teacher_logits": teacher, "temperature": temperature}
        )

    return [
        case(1, 2, 1.0),
        case(1, 2, 2.0),
        case(1, 3, 0.5),
        case(2, 3, 1.0),
        case(3, 2, 3.0),
        case(5, 8, draw.choice((1.5, 2.0, 4.0))),
    ]
