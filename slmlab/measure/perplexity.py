"""Perplexity and bits per byte by sliding window, with every token accounted for.

A text of T tokens has T - 1 predictions: the first token has no context and is not scored.
Texts longer than the window are read in overlapping windows; each token is scored in one of
them only. Source of the method: the strided evaluation in the transformers documentation
("Perplexity of fixed-length models"), with a window counted in tokens that are read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from slmlab.measure.forward import (
    Ids,
    as_ids,
    device_of,
    evaluating,
    logits_of,
    unwrap,
    vocabulary_size,
)
from slmlab.measure.windows import Window, resolve, sliding_windows

# float64 copies of logits are made this many elements at a time: 8 MiB, at any vocabulary.
CHUNK_ELEMENTS = 2**20


@dataclass(frozen=True)
class Score:
    """What a model's guesses cost on one text.

    nll_nats: negative log-likelihood of all scored tokens together, in nats (summed in float64).
    tokens: how many tokens were scored: all but the first.
    windows: forward passes made. window, stride: in tokens.
    minimum_context: the fewest tokens that any scored token after the first window has seen;
    1 where one window held the text (its second token has seen one).
    """

    nll_nats: float
    tokens: int
    windows: int
    window: int
    stride: int
    minimum_context: int

    @property
    def nats_per_token(self) -> float:
        """Mean negative log-likelihood, nats a token."""
        return self.nll_nats / self.tokens

    @property
    def bits_per_token(self) -> float:
        """Mean negative log-likelihood, bits a token."""
        return self.nats_per_token / math.log(2)

    @property
    def perplexity(self) -> float:
        """exp(nats a token): the size of the uniform choice that would cost as much."""
        return math.exp(self.nats_per_token) if self.nats_per_token < 700 else math.inf

    def bits_per_byte(self, text_bytes: int) -> float:
        """Bits a byte, where the scored tokens spell ``text_bytes`` bytes of UTF-8."""
        if text_bytes < 1:
            raise ValueError(f"text_bytes must be at least 1, got {text_bytes}")
        return self.nll_nats / math.log(2) / text_bytes


def token_nll_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of each target, nats, float64.

    logits (N, V) of any float dtype, targets (N,) int64 -> (N,). The float64 copy is made a
    few rows at a time. Raises ValueError where a logit is NaN.
    """
    rows = max(1, CHUNK_ELEMENTS // logits.shape[-1])
    parts = []
    for start in range(0, logits.shape[0], rows):
        chunk = logits[start : start + rows].double()
        wanted = chunk.gather(1, targets[start : start + rows, None])[:, 0]
        parts.append(torch.logsumexp(chunk, dim=-1) - wanted)
    nll = torch.cat(parts)
    if bool(nll.isnan().any()):
        raise ValueError("model returned NaN logits: its weights or its dtype are broken")
    return nll


def score(model: Any, ids: Ids, *, window: int | None = None, stride: int | None = None) -> Score:
    """Score every token of ``ids`` but the first, each exactly once.

    model: Decoder, transformers causal LM, or LanguageModel. ids: (T,), (1, T) or a list, T >= 2.
    window: tokens read in one forward pass (default: the model's positions, at most 1024).
    stride: tokens that a window moves on (default half the window); after the first window
    every scored token has seen at least window - stride + 1 tokens.
    Raises ValueError for fewer than 2 ids, ids outside the vocabulary, window < 2,
    stride < 1 or > window; TypeError for wrong types.
    """
    model = unwrap(model)
    row = as_ids(ids, vocab_size=vocabulary_size(model), minimum=2)
    row = row.to(device_of(model))
    predictions = row.numel() - 1
    window, stride = resolve(model, predictions, window, stride)
    total, scored, passes, least = 0.0, 0, 0, predictions
    with evaluating(model):
        for piece in sliding_windows(predictions, window, stride):
            nll = _window_nll_nats(model, row, piece)
            total += float(nll.sum())
            scored += nll.numel()
            if passes > 0 or piece.end == predictions:
                least = min(least, piece.fresh + 1 - piece.begin)
            passes += 1
    return Score(
        nll_nats=total,
        tokens=scored,
        windows=passes,
        window=window,
        stride=stride,
        minimum_context=least,
    )


def _window_nll_nats(model: Any, row: Tensor, piece: Window) -> Tensor:
    # A function of its own: its logits are freed before the next window makes new ones.
    logits = logits_of(model, row[None, piece.begin : piece.end])[0]  # (t, V)
    targets = row[piece.fresh + 1 : piece.end + 1]
    if int(targets.max()) >= logits.shape[-1]:
        raise ValueError(
            f"ids holds {int(targets.max())}, the model has {logits.shape[-1]} logits: "
            "encode the text with this model's own tokenizer"
        )
    return token_nll_nats(logits[piece.fresh - piece.begin :], targets)


def perplexity(
    model: Any, ids: Ids, *, window: int | None = None, stride: int | None = None
) -> float:
    """exp of the mean negative log-likelihood over every token of ``ids`` but the first.

    No unit: 1 is certainty, the vocabulary size is ignorance. Arguments and errors as `score`.
    """
    return score(model, ids, window=window, stride=stride).perplexity
