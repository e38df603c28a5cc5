"""SlidingWindowCache: exact whatever the chunking, and exact about how far back it can go."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slmlab.kv.window import SlidingWindowCache
from slmlab.models import Decoder
from tests.kv import small_models
from tests.kv.small_models import assert_cache_changes_nothing, narrowed

MISTRAL = small_models.CONFIGS["mistral-window"]
HYBRID = small_models.CONFIGS["hybrid"]
LAYERS = MISTRAL.num_hidden_layers
WAYS = ["prefill", "decode", "chunks", "rewind"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["mistral-window", "hybrid"])
def test_the_models_own_windows(name: str, way: str) -> None:
    def make(decoder: Decoder, batch: int) -> SlidingWindowCache:
        return SlidingWindowCache(decoder.config, None, 4, batch, max_length=40)

    assert_cache_changes_nothing(make, small_models.model(name), way)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("window", "name"),
    [(5, "tiny"), (5, "stories260K"), (5, "qwen2"), (1, "hybrid"), (3, "mistral-window")],
)
def test_a_window_that_the_cache_brings(window: int, name: str, way: str) -> None:
    def make(decoder: Decoder, batch: int) -> SlidingWindowCache:
        return SlidingWindowCache(decoder.config, window, slack=4, batch=batch)

    decoder = small_models.model(name)
    assert_cache_changes_nothing(make, decoder, way, oracle=narrowed(decoder, window))


def test_left_padding() -> None:
    decoder = small_models.model("mistral-window")
    cache = SlidingWindowCache(MISTRAL, slack=0, batch=2)
    tokens = small_models.ids(decoder, 20, batch=2)
    mask = torch.ones(2, 20)
    mask[1, :5] = 0
    wanted = decoder(tokens, attention_mask=mask)
    for start, end in ((0, 3), (3, 9), (9, 10), (10, 20)):
        got = decoder(tokens[:, start:end], cache, attention_mask=mask[:, :end])
        small_models.assert_same_logits(got[0], wanted[0, start:end])
        real = slice(max(0, 5 - start), None)  # what a padded query sees means nothing
        if end > 5:
            small_models.assert_same_logits(got[1, real], wanted[1, start:end][real])


class Slots:
    """The ring as a dictionary: which token stands in which slot, and what a length needs."""

    def __init__(self, window: int, slack: int) -> None:
        self.window, self.slack, self.room = window, slack, window - 1 + slack
        self.slots: dict[int, int] = {}
        self.tokens: list[int] = []
        self.made = self.furthest = 0

    def append(self, count: int) -> list[int]:
        seen = self.tokens[max(0, len(self.tokens) - self.window + 1) :]
        for _ in range(count):
            self.made += 1
            if self.room:
                self.slots[len(self.tokens) % self.room] = self.made
            self.tokens.append(self.made)
        self.furthest = max(self.furthest, len(self.tokens))
        return [*seen, *self.tokens[-count:]]

    def can_return_to(self, n: int) -> bool:
        needed = range(max(0, n - self.window + 1), n)
        if not needed:  # at 0, or with a window of 1, only the promise limits
            return self.furthest <= self.room or n >= self.furthest - self.slack
        return all(self.slots[p % self.room] == self.tokens[p] for p in needed)


@given(
    window=st.integers(1, 6),
    slack=st.integers(0, 5),
    steps=st.lists(st.integers(-7, 9), max_size=40),
)
def test_traces(window: int, slack: int, steps: list[int]) -> None:
    """Appends and rewinds, allowed ones and others, against a plain list of tokens."""
    cache = SlidingWindowCache(MISTRAL, window, slack)
    oracle = Slots(window, slack)
    reserved = cache.nbytes
    assert reserved == 2 * LAYERS * 2 * 8 * 4 * (window - 1 + slack)
    for step in steps:
        if step > 0:
            expected = torch.tensor(oracle.append(step), dtype=torch.float32)
            new = expected[-step:].view(1, 1, step, 1).expand(1, 2, step, 8)
            for layer in range(LAYERS):
                keys, values = cache.append(layer, new + layer, -new)
                assert torch.equal(keys[0, 1, :, 7], expected + layer)
                assert torch.equal(values[0, 0, :, 0], -expected)
        elif (n := len(oracle.tokens) + step) >= 0:
            if n != len(oracle.tokens) and not oracle.can_return_to(n):
                with pytest.raises(ValueError, match=f"n={n} is too far back: of length="):
                    cache.truncate(n)
            else:
                cache.truncate(n)
                del oracle.tokens[n:]
        assert cache.length == len(oracle.tokens)
    assert cache.nbytes == reserved


def appended(cache: SlidingWindowCache, *counts: int) -> SlidingWindowCache:
    for count in counts:
        k = torch.zeros(1, 2, count, 8)
        for layer in range(LAYERS):
            cache.append(layer, k, k)
    return cache


def test_how_far_back() -> None:
    cache = appended(SlidingWindowCache(MISTRAL, 5, slack=4), 30)
    with pytest.raises(ValueError, match=r"n=25 .* length=30 tokens, slack=4 .* return to 26"):
        cache.truncate(25)
    cache.truncate(27)
    appended(cache, 1)
    # 28 tokens, but slots were evicted up to token 30: only two more can go.
    with pytest.raises(ValueError, match=r"n=25 .* length=28 tokens, slack=4 .* return to 26"):
        cache.truncate(25)
    cache.truncate(26)
    appended(cache, 6)
    with pytest.raises(ValueError, match="return to 28 at the earliest"):
        cache.truncate(27)
    cache.clear()
    assert cache.length == 0
    appended(cache, 8).truncate(0)  # room for 8: nothing was evicted
    with pytest.raises(ValueError, match="n=1 must lie between 0 and the cache's length 0"):
        cache.truncate(1)


def test_bytes() -> None:
    cache = SlidingWindowCache(MISTRAL, slack=3, batch=2, dtype=torch.float16)
    reserved = cache.nbytes
    assert reserved == 2 * LAYERS * 2 * 2 * 8 * 2 * (7 - 1 + 3)
    k = torch.zeros(2, 2, 200, 8, dtype=torch.float16)
    for layer in range(LAYERS):
        cache.append(layer, k, k)
    assert cache.nbytes == reserved and cache.length == 200
    hybrid = SlidingWindowCache(HYBRID, slack=3, max_length=100)
    assert hybrid.nbytes == 2 * 2 * 8 * 4 * (100 + (6 - 1 + 3) + (9 - 1 + 3))
    assert hybrid.layer_windows == (None, 6, 9) and not hybrid.narrowed


def test_a_pass_that_stopped_half_way() -> None:
    decoder = small_models.model("mistral-window")
    tokens = small_models.ids(decoder, 40)
    for count, survives in ((4, True), (5, False)):
        cache = SlidingWindowCache(MISTRAL, slack=4)
        decoder(tokens[:, :30], cache)
        cache.append(0, torch.ones(1, 2, count, 8), torch.ones(1, 2, count, 8))
        if survives:
            small_models.assert_same_logits(decoder(tokens[:, 30:], cache), decoder(tokens)[:, 30:])
        else:
            with pytest.raises(ValueError, match=r"layer 0 has evicted .* slack=4 .* call clear"):
                decoder(tokens[:, 30:], cache)
            cache.clear()
            small_models.assert_same_logits(decoder(tokens, cache), decoder(tokens))


def test_bad_arguments() -> None:
    full = small_models.CONFIGS["qwen2"]
    with pytest.raises(ValueError, match="window=8 is wider than the model's own, 7"):
        SlidingWindowCache(MISTRAL, 8)
    with pytest.raises(ValueError, match="window=7 is wider than the model's own, 6"):
        SlidingWindowCache(HYBRID, 7)
    with pytest.raises(ValueError, match="window is needed: the config has none of its own"):
        SlidingWindowCache(full)
    with pytest.raises(ValueError, match="max_length is needed: layer 0 attends to every token"):
        SlidingWindowCache(HYBRID)
    with pytest.raises(ValueError, match="window=0 must be at least 1"):
        SlidingWindowCache(full, 0)
    with pytest.raises(ValueError, match="slack=-1 must be at least 0"):
        SlidingWindowCache(full, 4, -1)
    with pytest.raises(TypeError, match=r"window must be an int, not 4\.0"):
        SlidingWindowCache(full, 4.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_length=0 must be at least 1"):
        SlidingWindowCache(full, 4, max_length=0)
    with pytest.raises(ValueError, match="max_length=9 is too small: this pass ends at token 10"):
        small_models.model("hybrid")(
            small_models.ids(small_models.model("hybrid"), 10),
            SlidingWindowCache(HYBRID, max_length=9),
        )
    # max_length counts in layers with full attention only.
    assert appended(SlidingWindowCache(MISTRAL, max_length=9), 10).length == 10
    cache = SlidingWindowCache(MISTRAL)
    k = torch.zeros(2, 2, 1, 8)
    with pytest.raises(ValueError, match=r"= \(1, 2, T, 8\): make it with this model's config"):
        cache.append(0, k, k)
