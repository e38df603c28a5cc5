"""The numbers of a distillation run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from slmlab.generation.sampling import check_seed
from slmlab.models.fields import check_positive, check_whole


@dataclass(frozen=True)
class Settings:
    """How long, how fast, and what is minimised.

    steps: updates. batch_size: rows an update, over all processes. learning_rate: the peak; it
    rises linearly over ``warmup_steps`` and falls along a cosine to a tenth. weight_decay: of AdamW,
    on matrices alone. max_gradient_norm: longer gradients are scaled to it. hard_weight: share of
    the hard-label loss; 1 - hard_weight is the method's. temperature, divergence, beta: of
    `distillation_loss`. seed: of the order of rows, of dropout, and of sampled text.

    Raises TypeError for a field of the wrong type, ValueError for a value that cannot be used.
    """

    steps: int = 100
    batch_size: int = 8
    learning_rate: float = 1e-3
    warmup_steps: int = 10
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    hard_weight: float = 0.0
    temperature: float = 2.0
    divergence: str = "forward_kl"
    beta: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        from slmlab.distill.losses import Divergence

        check_whole("steps", self.steps)
        check_whole("batch_size", self.batch_size)
        check_whole("warmup_steps", self.warmup_steps, at_least=0)
        check_positive("learning_rate", self.learning_rate)
        check_positive("max_gradient_norm", self.max_gradient_norm)
        for name in ("weight_decay", "hard_weight"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} must be a number, not {value!r}")
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}={value} must be 0 or positive")
        if self.hard_weight > 1:
            raise ValueError(
                f"hard_weight={self.hard_weight} must lie between 0 and 1: it is the share of the "
                "hard-label loss, the rest is the method's"
            )
        Divergence(self.divergence, self.temperature, self.beta)
        check_seed(self.seed)
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative")

    def rate(self, step: int) -> float:
        """Share of the peak learning rate at a step, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        left = max(1, self.steps - self.warmup_steps)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, (step - self.warmup_steps) / left)))
