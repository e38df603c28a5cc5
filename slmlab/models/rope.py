"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864), half-split convention.

Value i of the first half and value i of the second half form a pair, turned by the angle
``position * inverse_frequency[i]``. Hugging Face checkpoints store their query and key rows
for this convention; llama.cpp's GGUF files interleave the pairs instead.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from slmlab.models.config import RopeConfig


def rope_inverse_frequencies(head_dim: int, rope: RopeConfig) -> Tensor:
    """Angle per position of each pair, in radians: (head_dim / 2,) float32.

    ``llama3`` stretches wavelengths longer than the original context by ``factor``, keeps
    those far shorter, and blends between (Llama 3.1's published rope scaling).
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    frequencies = 1.0 / (rope.theta**exponents)
    if rope.rope_type == "linear":
        return frequencies / rope.factor
    if rope.rope_type == "default":
        return frequencies
    wavelengths = 2 * math.pi / frequencies
    context = rope.original_max_position_embeddings
    blend = (context / wavelengths - rope.low_freq_factor) / (
        rope.high_freq_factor - rope.low_freq_factor
    )
    blend = blend.clamp(0.0, 1.0)
    return (1 - blend) * frequencies / rope.factor + blend * frequencies


def rope_tables(positions: Tensor, inverse_frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every pair's angle.

    Args:
        positions: (...) int64, counted from 0.
        inverse_frequencies: (head_dim / 2,) float32.

    Returns:
        cos, sin: (..., head_dim / 2) float32.
    """
    angles = positions[..., None].float() * inverse_frequencies
    return angles.cos(), angles.sin()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + D/2]) by its angle.

    Args:
        x: (..., D) queries or keys.
        cos, sin: (..., D/2), broadcastable to x's leading dimensions.

    Returns:
        (..., D). Lengths are unchanged: a rotation adds position, never scale.
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
