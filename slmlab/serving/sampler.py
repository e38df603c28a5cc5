"""The next token of every request in a batch, each by its own settings and generator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slmlab.generation import next_token_probabilities, sample
from slmlab.serving.request import Request, TokenLogprob


def sample_batch(logits: Tensor, requests: Sequence[Request]) -> list[int | None]:
    """One token a request; None where its logits are NaN or infinite.

    Args:
        logits: (requests, V).
    """
    best, choice = logits.max(dim=-1)  # (requests,) each; NaN counts as the largest
    tokens: list[int | None] = choice.tolist()
    for i, finite in enumerate(best.isfinite().tolist()):
        params = requests[i].params
        if not finite:
            tokens[i] = None
        elif params.temperature != 0.0:
            probabilities = next_token_probabilities(
                logits[i : i + 1], params.temperature, params.top_k, params.top_p
            )
            tokens[i] = int(sample(probabilities, requests[i].generator))
    return tokens


def token_logprob(logits: Tensor, token: int, count: int) -> TokenLogprob:
    """log-softmax of ``logits`` (V,) at ``token`` and at the ``count`` most likely ids."""
    logprobs = logits.float().log_softmax(-1)
    best = torch.topk(logprobs, min(count, len(logprobs)))
    top = tuple(zip(best.indices.tolist(), best.values.tolist()))
    return TokenLogprob(token, float(logprobs[token]), top)
