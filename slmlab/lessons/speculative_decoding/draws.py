"""Distributions for the cases: tenths or twentieths, so that a counterexample reads on paper."""

from __future__ import annotations

import itertools
import random

import torch
from torch import Tensor


def distribution(draw: random.Random, size: int, parts: int = 20) -> Tensor:
    """(size,) float32 that sums to 1 in steps of 1 / parts, no entry 0; even and uneven ones."""
    cuts = sorted(draw.sample(range(1, parts), size - 1))
    counts = [high - low for low, high in itertools.pairwise((0, *cuts, parts))]
    return torch.tensor(counts, dtype=torch.float32) / parts


def pair(draw: random.Random, size: int, apart: float = 0.15) -> tuple[Tensor, Tensor]:
    """Two distributions that differ by at least ``apart`` in total variation, and not only by it."""
    while True:
        p, q = distribution(draw, size), distribution(draw, size)
        if float((p - q).clamp(min=0.0).sum()) >= apart:
            return p, q


def tokens(draw: random.Random, draft_probs: Tensor) -> list[int]:
    """One id a row, drawn from it."""
    return [draw.choices(range(row.shape[0]), weights=row.tolist())[0] for row in draft_probs]
