"""How far a changed model's guesses are from the reference's, position by position."""

from __future__ import annotations

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
from slmlab.measure.perplexity import CHUNK_ELEMENTS
from slmlab.measure.windows import Window, resolve, sliding_windows


@dataclass(frozen=True)
class KLResult:
    """KL(reference || model) over the positions of one text; ``float(result)`` is the mean.

    mean_kl_nats: nats a token (position). maximum_kl_nats: the worst position, nats.
    argmax_flips: positions where the two models' most likely tokens differ.
    tokens: positions compared, each counted once: all of them, the last one too (a
    distribution needs no next token to be compared).
    """

    mean_kl_nats: float
    maximum_kl_nats: float
    argmax_flips: int
    tokens: int

    @property
    def argmax_flip_share(self) -> float:
        """Share of positions, 0..1, where greedy decoding would choose another token."""
        return self.argmax_flips / self.tokens

    def __float__(self) -> float:
        return self.mean_kl_nats


def position_kl_nats(logits: Tensor, reference_logits: Tensor) -> Tensor:
    """KL(reference || model) of each row, nats, float64.

    logits, reference_logits: (N, V) of any float dtype -> (N,). A token of probability 0 in
    the reference adds nothing; one of probability 0 in the model alone makes the row infinite.
    The float64 copies are made a few rows at a time, so memory does not grow with N.
    Raises ValueError where the shapes differ or a logit is NaN.
    """
    if logits.shape != reference_logits.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and reference_logits {tuple(reference_logits.shape)} "
            "differ: both models must share one vocabulary"
        )
    rows = max(1, CHUNK_ELEMENTS // logits.shape[-1])
    parts = []
    for start in range(0, logits.shape[0], rows):
        q = torch.log_softmax(logits[start : start + rows].double(), dim=-1)
        p = torch.log_softmax(reference_logits[start : start + rows].double(), dim=-1)
        weight = p.exp()
        terms = torch.where(weight > 0, weight * (p - q), 0.0)
        # Exact KL is never negative; rounding can leave -1e-17 where the models agree.
        parts.append(terms.sum(dim=-1).clamp_min(0.0))
        if bool(q.isnan().any()) or bool(p.isnan().any()):
            raise ValueError("a model returned NaN logits: its weights or its dtype are broken")
    return torch.cat(parts)


def kl_to_reference(
    model: Any,
    reference: Any,
    ids: Ids,
    *,
    window: int | None = None,
    stride: int | None = None,
) -> KLResult:
    """Mean KL(reference || model) in nats a token, and how often the greedy choice flips.

    model, reference: Decoder, transformers causal LM or LanguageModel, one vocabulary.
    ids: (T,), (1, T) or a list, T >= 1. window, stride: as in `score`; the two models'
    logits of one window are alive at a time. Raises ValueError for empty ids, ids outside
    either vocabulary, vocabularies that differ, or a bad window; TypeError for wrong types.
    """
    model, reference = unwrap(model), unwrap(reference)
    row = as_ids(ids, vocab_size=vocabulary_size(model))
    as_ids(row, vocab_size=vocabulary_size(reference))
    window, stride = resolve(model, row.numel(), window, stride)
    resolve(reference, row.numel(), window, stride)
    kl_sum, worst, flips, count = 0.0, 0.0, 0, 0
    with evaluating(model, reference):
        for piece in sliding_windows(row.numel(), window, stride):
            kl, flipped = _compare(model, reference, row, piece)
            kl_sum += float(kl.sum())
            worst = max(worst, float(kl.max()))
            flips += flipped
            count += kl.numel()
    return KLResult(
        mean_kl_nats=kl_sum / count, maximum_kl_nats=worst, argmax_flips=flips, tokens=count
    )


def _compare(model: Any, reference: Any, row: Tensor, piece: Window) -> tuple[Tensor, int]:
    # A function of its own: its logits are freed before the next window makes new ones.
    inputs = row[None, piece.begin : piece.end]
    fresh = piece.fresh - piece.begin
    ours = logits_of(model, inputs.to(device_of(model)))[0, fresh:]  # (t, V)
    theirs = logits_of(reference, inputs.to(device_of(reference)))[0, fresh:].to(ours.device)
    kl = position_kl_nats(ours, theirs)
    return kl, int((ours.argmax(-1) != theirs.argmax(-1)).sum())
