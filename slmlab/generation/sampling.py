"""From logits to the distribution that a sampler draws from.

The order is transformers': temperature, then top-k, then top-p. Every function returns
probabilities or logits, never a token, so that each step can be checked exactly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from slmlab.models.fields import check_whole

_FLOAT32 = torch.finfo(torch.float32)


def top_k_filter(logits: Tensor, k: int) -> Tensor:
    """Keep the ``k`` largest logits, set the others to -inf; ties with the k-th are kept.

    Args:
        logits: (..., V).
        k: 1 or more; more than V keeps all.
    """
    _check_top_k(k)
    kth = logits.topk(min(k, logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < kth, float("-inf"))


def top_p_filter(logits: Tensor, p: float) -> Tensor:
    """Nucleus filter (Holtzman et al. 2020, arXiv:1904.09751, section 3.1).

    Keeps the smallest set of most likely tokens whose probabilities sum to at least ``p``: a
    token stays while the mass *before* it is below ``p``, so the first always stays.

    Args:
        logits: (..., V).
        p: in (0, 1]; 1 keeps all.
    """
    _check_top_p(p)
    if p == 1.0:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(dim=-1)
    mass_before = probabilities.cumsum(dim=-1) - probabilities
    late = mass_before >= p
    late[..., 0] = False  # a p below float32's smallest number reads as 0
    dropped = late.scatter(-1, order, late)
    return logits.masked_fill(dropped, float("-inf"))


def next_token_probabilities(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """The distribution to sample from: (..., V) float32, summing to 1.

    Temperature 0 puts all mass on the largest logit, the first one on a tie.

    Raises:
        ValueError: a negative temperature, top_k below 1, top_p outside (0, 1].
        TypeError: a setting of the wrong type.
    """
    check_sampling(temperature, top_k, top_p)
    logits = logits.float()
    if temperature == 0.0:
        best = logits.argmax(dim=-1, keepdim=True)
        return torch.zeros_like(logits).scatter_(-1, best, 1.0)
    # With the maximum at 0 no quotient grows to infinity. A temperature that float32 cannot hold
    # would turn 0 / t, or -inf / t of a masked token, into NaN.
    divisor = min(max(float(temperature), _FLOAT32.tiny), _FLOAT32.max)
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / divisor
    if top_k is not None:
        logits = top_k_filter(logits, top_k)
    if top_p is not None:
        logits = top_p_filter(logits, top_p)
    return logits.softmax(dim=-1)


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raise ValueError or TypeError for settings no sampler accepts, before any work."""
    if isinstance(temperature, bool) or not isinstance(temperature, int | float):
        raise TypeError(f"temperature must be a number, not {temperature!r}")
    try:
        finite = 0.0 <= float(temperature) < float("inf")
    except OverflowError:
        finite = False
    if not finite:
        raise ValueError(f"temperature={temperature!r:.40} must be 0 (greedy) or a positive number")
    if top_k is not None:
        _check_top_k(top_k)
    if top_p is not None:
        _check_top_p(top_p)


def check_seed(seed: Any) -> None:
    """Raise TypeError or ValueError for a seed that torch's generators do not take."""
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be an int or None, not {seed!r}")
    if not -(2**63) <= seed < 2**64:
        raise ValueError("seed must fit into 64 bits: take one between 0 and 2**64 - 1")


def _check_top_k(k: Any) -> None:
    try:
        check_whole("top_k", k)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error}; leave it None to keep all tokens") from None


def _check_top_p(p: Any) -> None:
    if isinstance(p, bool) or not isinstance(p, int | float):
        raise TypeError(f"top_p must be a number, not {p!r}; leave it None to keep all tokens")
    if not 0.0 < p <= 1.0:
        raise ValueError(f"top_p={p} must lie in (0, 1]; leave it None to keep all tokens")


def sample(probabilities: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw one token a row: (B, V) -> (B,) int64."""
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]
