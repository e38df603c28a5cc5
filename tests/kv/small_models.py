"""The models on which a cache must not change a logit, and the ways to feed one."""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import slmlab
from slmlab.models import Decoder, ModelConfig
from tests.models.layouts import assert_same_logits

STORIES260K = Path(
    os.environ.get("SLMLAB_STORIES260K", Path(__file__).parents[3] / "shared" / "stories260K")
)
_SIZES: dict[str, Any] = dict(
    vocab_size=97,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=256,
)
CONFIGS = {
    "qwen2": ModelConfig("qwen2", **_SIZES, qkv_bias=True, tie_word_embeddings=True),
    "mistral-window": ModelConfig("mistral", **_SIZES, layer_windows=(7, 7, 7)),
    "hybrid": ModelConfig("qwen2", **_SIZES, qkv_bias=True, layer_windows=(None, 6, 9)),
}
NAMES = ("tiny", "stories260K", *CONFIGS)


@cache
def model(name: str) -> Decoder:
    """One of ``NAMES``; skips the test where stories260K is not at hand."""
    if name == "tiny":
        return slmlab.load("tiny").model.requires_grad_(False)
    if name == "stories260K":
        if not STORIES260K.is_dir():
            pytest.skip("stories260K is not part of the repository and not present")
        return slmlab.load(STORIES260K).model.requires_grad_(False)
    torch.manual_seed(1)
    decoder = Decoder(CONFIGS[name]).eval().requires_grad_(False)
    for parameter in decoder.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape))
    return decoder


def narrowed(decoder: Decoder, window: int) -> Decoder:
    """The same weights, attending to the newest ``window`` tokens only."""
    other = copy.copy(decoder)
    layers = decoder.config.num_hidden_layers
    other.config = replace(decoder.config, layer_windows=(window,) * layers)
    return other


def ids(decoder: Decoder, time: int, batch: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, decoder.config.vocab_size, (batch, time), generator=generator)


def sizes(way: str, time: int) -> list[int]:
    """Lengths of the passes that feed ``time`` tokens: all, one by one, or in random chunks."""
    if way == "prefill":
        return [time]
    if way == "decode":
        return [time - 14, *[1] * 14]
    chooser, left = random.Random(5), []
    while time:
        left.append(min(time, chooser.randint(1, 13)))
        time -= left[-1]
    return left


def fed(decoder: Decoder, kept: Any, tokens: Tensor, passes: Iterable[int]) -> Tensor:
    """Logits (batch, time, vocabulary) of ``tokens`` in several passes over one cache."""
    parts, start = [], 0
    for size in passes:
        parts.append(decoder(tokens[:, start : start + size], kept))
        start += size
    return torch.cat(parts, dim=1)


def assert_cache_changes_nothing(
    make: Callable[[Decoder, int], Any],
    decoder: Decoder,
    way: str,
    *,
    oracle: Decoder | None = None,
) -> None:
    """Every logit of every pass equals the forward pass without a cache, also after rewinds.

    "decode" runs one sequence, the other ways run two side by side. Rewinds go back 4 at most.
    """
    oracle = oracle or decoder
    batch = 1 if way == "decode" else 2
    kept = make(decoder, batch)
    tokens = ids(decoder, 40, batch)
    if way != "rewind":
        assert_same_logits(fed(decoder, kept, tokens, sizes(way, 40)), oracle(tokens))
        assert kept.length == 40
        return
    tokens = tokens[:, :0]
    for step, size in enumerate([11, 1, -2, 3, 1, 1, -4, 9, -1, 1, -3, 2, 16, -4, 1]):
        if size < 0:
            tokens = tokens[:, :size]
            kept.truncate(tokens.shape[1])
            continue
        new = ids(decoder, size, batch, seed=100 + step)
        tokens = torch.cat([tokens, new], dim=1)
        assert_same_logits(decoder(new, kept), oracle(tokens)[:, -size:])
    assert kept.length == tokens.shape[1] == 32
