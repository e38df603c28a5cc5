"""Speculative sampling: which proposed tokens stay, and what replaces the first that does not.

Leviathan et al. 2023 (arXiv:2211.17192, algorithm 1); Chen et al. 2023 (arXiv:2302.01318). A token
x drawn from the draft's q is kept with probability min(1, p(x) / q(x)); otherwise one is drawn from
what p has more than q, max(0, p - q) scaled to sum 1. Together that is a draw from p, whatever q:

    q(x) * min(1, p(x) / q(x)) + P(rejected) * residual(x) = min(p(x), q(x)) + max(0, p(x) - q(x))
"""

from __future__ import annotations

import torch
from torch import Tensor

PAD = -1
_SUM_TOLERANCE = 1e-3


def acceptance_probabilities(
    draft_tokens: Tensor, draft_probs: Tensor, target_probs: Tensor
) -> Tensor:
    """min(1, p(x) / q(x)) of each proposed token.

    Args:
        draft_tokens: (..., K) int64, drawn from ``draft_probs``.
        draft_probs, target_probs: (..., K, V).

    Returns:
        (..., K), the dtype of the probabilities.
    """
    at = draft_tokens.unsqueeze(-1)
    p, q = target_probs.gather(-1, at).squeeze(-1), draft_probs.gather(-1, at).squeeze(-1)
    return (p / q).clamp(max=1.0)


def residual_distribution(draft_probs: Tensor, target_probs: Tensor) -> Tensor:
    """max(0, p - q) / sum: (..., V) each -> (..., V).

    Where p and q are equal nothing can be rejected; rounding may still ask, and p is the answer.
    """
    excess = (target_probs - draft_probs).clamp(min=0.0)
    total = excess.sum(-1, keepdim=True)
    return torch.where(total > 0, excess / total, target_probs)


def rejection_sample(
    draft_tokens: Tensor,
    draft_probs: Tensor,
    target_probs: Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The accepted tokens of one round and one more: from the residual at the first rejection, or
    from the target's last distribution where all were accepted.

    Args:
        draft_tokens: (K,) int64, K at least 1; token i drawn from ``draft_probs[i]``.
        draft_probs: (K, V).
        target_probs: (K + 1, V). Row i is the target's distribution at token i's place.
        generator: of the random numbers; None takes torch's own.

    Returns:
        (1 .. K + 1,) int64.

    Raises:
        ValueError: other shapes, an id outside the vocabulary, probabilities that are negative or
            NaN or do not sum to 1, a proposed token to which the draft gave no probability.
        TypeError: no tensors, or of another dtype.
    """
    for name, tensor, dims in (
        ("draft_tokens", draft_tokens, 1),
        ("draft_probs", draft_probs, 2),
        ("target_probs", target_probs, 2),
    ):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, not {type(tensor).__name__}")
        if tensor.dim() != dims:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}; one round has (K,) tokens and (K, V) "
                "and (K + 1, V) probabilities, several go through rejection_sample_batch"
            )
    check_round(draft_tokens[None], draft_probs[None], target_probs[None])
    keep = acceptance_probabilities(draft_tokens, draft_probs, target_probs[:-1])
    draws = torch.rand(keep.shape, generator=generator, device=keep.device, dtype=torch.float64)
    kept = (draws < keep).tolist()
    accepted = kept.index(False) if False in kept else len(kept)
    last = target_probs[accepted]  # (V,)
    if accepted < len(kept):
        last = residual_distribution(draft_probs[accepted], last)
    return torch.cat((draft_tokens[:accepted], torch.multinomial(last, 1, generator=generator)))


def rejection_sample_batch(
    draft_tokens: Tensor,
    draft_probs: Tensor,
    target_probs: Tensor,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """`rejection_sample` for B rounds at once, each with K proposed tokens.

    Args:
        draft_tokens: (B, K) int64.
        draft_probs: (B, K, V).
        target_probs: (B, K + 1, V).

    Returns:
        tokens: (B, K + 1) int64, ``PAD`` behind each row's own.
        counts: (B,) int64, 1 .. K + 1.

    Raises:
        ValueError, TypeError: as `rejection_sample`.
    """
    check_round(draft_tokens, draft_probs, target_probs)
    batch, proposed = draft_tokens.shape
    device = target_probs.device
    keep = acceptance_probabilities(draft_tokens, draft_probs, target_probs[:, :-1])
    draws = torch.rand(batch, proposed, generator=generator, device=device, dtype=torch.float64)
    # cumprod: a token counts only while all before it were accepted.
    accepted = (draws < keep).long().cumprod(-1).sum(-1)  # (B,)
    rows = torch.arange(batch, device=device)
    last = target_probs[rows, accepted]  # (B, V)
    rejected = accepted < proposed
    at = accepted.clamp(max=proposed - 1)
    residual = residual_distribution(draft_probs[rows, at], last)
    extra = torch.multinomial(
        torch.where(rejected[:, None], residual, last), 1, generator=generator
    )  # (B, 1)
    places = torch.arange(proposed + 1, device=device)
    tokens = torch.cat((draft_tokens, torch.full_like(extra, PAD)), dim=1)
    tokens = torch.where(places < accepted[:, None], tokens, PAD)
    return tokens.scatter(1, accepted[:, None], extra), accepted + 1


def check_round(draft_tokens: Tensor, draft_probs: Tensor, target_probs: Tensor) -> None:
    """Raise ValueError or TypeError for what is no round of proposals, as `rejection_sample`."""
    named = {
        "draft_tokens": draft_tokens,
        "draft_probs": draft_probs,
        "target_probs": target_probs,
    }
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, not {type(tensor).__name__}")
    if draft_tokens.dtype != torch.int64:
        raise TypeError(f"draft_tokens must be int64, not {draft_tokens.dtype}")
    if not (draft_probs.is_floating_point() and target_probs.is_floating_point()):
        raise TypeError("draft_probs and target_probs must be floating point")
    shape = tuple(draft_tokens.shape)
    if len(shape) != 2 or shape[1] == 0:
        raise ValueError(f"draft_tokens has shape {shape}: propose at least one token a round")
    batch, proposed = shape
    size = draft_probs.shape[-1] if draft_probs.dim() else 0
    wanted = ((batch, proposed, size), (batch, proposed + 1, size))
    if (tuple(draft_probs.shape), tuple(target_probs.shape)) != wanted:
        raise ValueError(
            f"{proposed} draft tokens need draft_probs (.., {proposed}, V) and target_probs "
            f"(.., {proposed + 1}, V) over one vocabulary, not {tuple(draft_probs.shape)} and "
            f"{tuple(target_probs.shape)}"
        )
    if not bool(((draft_tokens >= 0) & (draft_tokens < size)).all()):
        raise ValueError(f"draft_tokens holds an id outside the vocabulary of {size}")
    for name, probs in (("draft_probs", draft_probs), ("target_probs", target_probs)):
        # Written so that NaN fails both comparisons.
        sums = probs.sum(-1)
        if not bool(probs.amin() >= 0) or not bool(((sums - 1).abs() <= _SUM_TOLERANCE).all()):
            raise ValueError(
                f"{name} holds a row that is no distribution (negative, NaN, or a sum that is not "
                "1): pass softmax outputs, not logits"
            )
    if not bool((draft_probs.gather(-1, draft_tokens.unsqueeze(-1)) > 0).all()):
        raise ValueError(
            "draft_probs gives a proposed token probability 0: it cannot have been drawn from it. "
            "Pass the distribution after temperature, top-k and top-p"
        )
