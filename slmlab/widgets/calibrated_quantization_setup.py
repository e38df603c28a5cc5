"""What the cells of lesson 03 share: texts that only judge, loud channels, weights for a moment."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from slmlab.data import evaluation_set
from slmlab.generation import LanguageModel
from slmlab.quant.calibration import LayerStatistics

DOMAINS = ("stdlib-docs", "stdlib-code")
FRESH_START = 2048  # tokens in: the fresh text has no token of the exam
_LOGITS = 2**22  # of one text of one domain: what a Judge keeps stays small


def held_out(lm: LanguageModel) -> tuple[Tensor, Tensor]:
    """Two texts that no calibration sees: an exam, and fresh text of the same kind.

    Each is int64 (2, length), documentation and code of the standard library; length is at most
    384 tokens, fewer for a large vocabulary. Raises ValueError where a text is too short.
    """
    length = max(64, min(384, _LOGITS // lm.model.config.vocab_size))
    last = FRESH_START + length
    rows = [lm.tokenizer.encode("".join(evaluation_set(name).texts))[:last] for name in DOMAINS]
    if min(map(len, rows)) < last:
        raise ValueError(
            f"lm makes {min(map(len, rows))} tokens of a held-out text, {last} are needed: use a "
            "tokenizer with shorter tokens"
        )
    ids = torch.tensor(rows)
    return ids[:, :length], ids[:, FRESH_START:]


def loudness(seen: LayerStatistics) -> float:
    """Mean |input| of the loudest channel over that of the median channel."""
    return float(seen.mean_magnitude.max() / seen.mean_magnitude.median())


def power_share(seen: LayerStatistics, share: float) -> float:
    """Share (0..1) of the squared input that the loudest channels carry.

    share: of the channels, rounded up, those with the largest mean |input|. Raises ValueError for
    one outside 0..1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share} must lie above 0 and be at most 1: 0.01 is 1%")
    channels = seen.mean_magnitude.topk(math.ceil(share * len(seen.mean_magnitude))).indices
    power = seen.second_moment.diagonal()  # (in,)
    return float(power[channels].sum() / power.sum())


@contextmanager
def replaced(layers: Mapping[str, nn.Linear], weights: Mapping[str, Tensor]) -> Iterator[None]:
    """The layers with other weights (out, in) inside the block; their own come back after.

    Raises ValueError for a layer that is not there or a weight of another shape.
    """
    for name, weight in weights.items():
        if name not in layers:
            raise ValueError(f"weights names {name!r}, which is not one of the layers")
        if weight.shape != layers[name].weight.shape:
            raise ValueError(
                f"weights[{name!r}] has shape {tuple(weight.shape)}, the layer "
                f"{tuple(layers[name].weight.shape)}"
            )
    before = {name: layers[name].weight.data for name in weights}
    try:
        for name, weight in weights.items():
            layers[name].weight.data = weight.to(before[name].dtype)
        yield
    finally:
        for name, data in before.items():
            layers[name].weight.data = data
