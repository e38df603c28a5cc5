"""QuantizedCache: which numbers share a scale, how far they move, and what that costs in KL."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import slmlab
from slmlab.data import evaluation_set
from slmlab.kv import kv_bytes
from slmlab.kv.minmax import MinMaxGrid
from slmlab.kv.quantized import QuantizedCache
from slmlab.models import Decoder
from tests.kv import small_models
from tests.kv.small_models import NAMES, assert_cache_changes_nothing, fed

CONFIG = small_models.CONFIGS["qwen2"]
LAYERS, HEADS, WIDTH = 3, 2, 8


def stored(cache: QuantizedCache, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values as the cache holds them after an append of the same to every layer."""
    for layer in range(LAYERS):
        cache.append(layer, k, v)
    keys, values = held(cache)[:, 0]
    return keys, values


# What shares a scale ------------------------------------------------------------------------


def levels(x: Tensor) -> int:
    """Distinct values along the last dimension, at most."""
    return max(len(row.unique()) for row in x.flatten(0, -2))


def test_keys_share_a_scale_along_a_channel_and_values_along_a_token() -> None:
    k, v = torch.randn(2, 2, HEADS, 32, WIDTH)
    cache = QuantizedCache(CONFIG, 2, group_size=16, residual=0, batch=2)
    keys, values = stored(cache, k, v)
    assert levels(keys.unflatten(2, (-1, 16)).transpose(-1, -2)) == 4
    assert levels(values) == 4
    # The other way round they would hold no more levels than that, too.
    assert levels(keys) > 4 and levels(values.unflatten(2, (-1, 16)).transpose(-1, -2)) > 4
    both = QuantizedCache(CONFIG, 2, group_size=16, residual=0, batch=2, keys_per="token")
    keys, _ = stored(both, k, v)
    assert levels(keys) == 4


@pytest.mark.parametrize("values_per", ["channel", "token"])
def test_values_take_bits_and_a_side_of_their_own(values_per: str) -> None:
    k, v = torch.randn(2, 2, HEADS, 32, WIDTH)
    cache = QuantizedCache(CONFIG, 8, 16, 0, batch=2, value_bits=2, values_per=values_per)
    keys, values = stored(cache, k, v)
    along = {"channel": values.unflatten(2, (-1, 16)).transpose(-1, -2), "token": values}
    other = "token" if values_per == "channel" else "channel"
    assert levels(along[values_per]) == 4 < levels(along[other])
    plain, _ = stored(QuantizedCache(CONFIG, 8, 16, 0, batch=2), k, v)
    assert torch.equal(keys, plain)
    # One group of 16 a channel; or 8 channels of a token in 2 bytes, with their own metadata.
    rate = 2 + 32 / (16 if values_per == "channel" else 8)
    assert cache.bits_per_value == (8 + 32 / 16 + rate) / 2
    cache.truncate(20)
    kept_keys, kept_values = held(cache)[:, 0]
    assert torch.equal(kept_keys, keys[:, :, :20]) and torch.equal(kept_values, values[:, :, :20])


def test_an_outlier_spoils_its_own_channel_of_keys_and_its_own_token_of_values() -> None:
    k, v = torch.randn(2, 1, HEADS, 32, WIDTH)
    plain_keys, plain_values = stored(QuantizedCache(CONFIG, 4, 32, 0), k, v)
    k[:, :, :, 3] *= 50
    v[:, :, 7] *= 50
    keys, values = stored(QuantizedCache(CONFIG, 4, 32, 0), k, v)
    channels, tokens = torch.arange(WIDTH) != 3, torch.arange(32) != 7
    assert torch.equal(keys[..., channels], plain_keys[..., channels])
    assert torch.equal(values[:, :, tokens], plain_values[:, :, tokens])


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("offset", [0.0, 100.0, -3.0])
@pytest.mark.parametrize(("columns", "group"), [(64, 32), (8, 32), (7, 3)])
def test_the_grid(bits: int, offset: float, columns: int, group: int) -> None:
    """Each value returns within half a step of its own group, however far the group lies from 0."""
    x = torch.randn(50, columns) + offset
    x[3] = 0.25  # a group without a range
    grid = MinMaxGrid(bits, group, columns)
    back = grid.dequantize(*grid.quantize(x))
    assert torch.equal(back[3], x[3])
    for part, returned in zip(x.split(group, dim=1), back.split(group, dim=1)):
        assert_near(returned, part, bits, dim=1)
        assert levels(returned) <= 2**bits
        if bits == 2:
            assert levels(returned) == min(4, part.shape[1])


# What is held where -------------------------------------------------------------------------


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(1, 9)),
            st.tuples(st.just("truncate"), st.floats(0, 1)),
        ),
        max_size=16,
    ),
    batch=st.integers(1, 2),
    group=st.integers(1, 5),
    residual=st.integers(0, 6),
    bits=st.sampled_from([8, 4, 2]),
)
def test_traces(
    steps: list[tuple[str, float]], batch: int, group: int, residual: int, bits: int
) -> None:
    """Against a plain list of tokens: order, which ones are exact, how far the others moved."""
    cache = QuantizedCache(CONFIG, bits, group, residual, batch=batch)
    tokens = torch.empty(2, LAYERS, batch, HEADS, 0, WIDTH)  # keys and values, as now held
    quantized = 0
    for action, amount in steps:
        if action == "truncate":
            tokens = tokens[..., : int(amount * tokens.shape[-2]), :]
            cache.truncate(tokens.shape[-2])
            quantized = min(quantized, tokens.shape[-2] // group * group)
            assert torch.equal(held(cache), tokens)
        else:
            new = torch.randn(2, LAYERS, batch, HEADS, int(amount), WIDTH)
            tokens = torch.cat([tokens, new], dim=-2)
            seen = [cache.append(i, new[0, i], new[1, i]) for i in range(LAYERS)]
            for layer, (keys, values) in enumerate(seen):
                assert torch.equal(keys, tokens[0, layer]) and torch.equal(values, tokens[1, layer])
            before = quantized
            quantized += max(0, tokens.shape[-2] - quantized - residual) // group * group
            now = held(cache)
            same = torch.ones(tokens.shape[-2], dtype=torch.bool)
            same[before:quantized] = False
            assert torch.equal(now[..., same, :], tokens[..., same, :])
            for start in range(before, quantized, group):
                part = (..., slice(start, start + group), slice(None))
                assert_near(now[0][part], tokens[0][part], bits, dim=-2)
                for old, moved in zip(
                    tokens[1][part].split(group, -1), now[1][part].split(group, -1)
                ):
                    assert_near(moved, old, bits, dim=-1)
            tokens = now
        assert cache.length == tokens.shape[-2] and cache.quantized_length == quantized
        assert cache.nbytes == held_bytes(cache.length, quantized, batch, group, bits)


def held(cache: QuantizedCache) -> Tensor:
    """(keys or values, layers, batch, kv_heads, length, width): what the next pass would see."""
    probe = copy.deepcopy(cache)
    one = torch.zeros(probe._batch, HEADS, 1, WIDTH, dtype=probe._dtype)
    seen = [torch.stack(probe.append(layer, one, one)) for layer in range(LAYERS)]
    return torch.stack(seen, dim=1)[..., :-1, :]


def assert_near(moved: Tensor, old: Tensor, bits: int, dim: int) -> None:
    """Within half a step of the group that lies along ``dim``, and fp16's rounding."""
    low, high = old.amin(dim, keepdim=True), old.amax(dim, keepdim=True)
    rounding = low.abs() / 2**10 + (high - low) / 2**11  # of the minimum and of the scale
    assert ((moved - old).abs() <= (high - low) / (2**bits - 1) / 2 + rounding + 1e-6).all()


def held_bytes(tokens: int, quantized: int, batch: int, group: int, bits: int) -> int:
    """Codes in whole bytes a row, four bytes of metadata a group, float32 for the rest."""
    keys = WIDTH * (-(-group * bits // 8) + 4)  # a block of `group` tokens
    values = group * (-(-WIDTH * bits // 8) + 4 * -(-WIDTH // group))
    blocks = LAYERS * batch * HEADS * (quantized // group)
    return blocks * (keys + values) + kv_bytes(CONFIG, tokens - quantized, batch, "float32")


def test_rate() -> None:
    tiny = small_models.model("tiny").config
    cache = QuantizedCache(tiny, 4, 32, 32, dtype=torch.float16)
    assert cache.bits_per_value == 4 + 32 / 32 and cache.nbytes == 0
    assert QuantizedCache(tiny, 2, 16, 32).bits_per_value == 2 + 32 / 16
    # head_dim 8 makes one group of 8 values: half a byte of metadata a value
    assert QuantizedCache(CONFIG, 4, 32, 32).bits_per_value == ((4 + 1) + (4 + 4)) / 2
    k = torch.zeros(1, 2, 96, 64, dtype=torch.float16)
    for layer in range(tiny.num_hidden_layers):
        cache.append(layer, k, k)
    assert cache.quantized_length == 64
    numbers = kv_bytes(tiny, 64, dtype="int8")
    assert cache.nbytes == numbers * cache.bits_per_value / 8 + kv_bytes(tiny, 32)


def test_the_residual_decides_when() -> None:
    cache = QuantizedCache(CONFIG, 4, group_size=4, residual=6)
    k = torch.randn(1, HEADS, 1, WIDTH)
    lengths = []
    for _ in range(19):
        for layer in range(LAYERS):
            cache.append(layer, k, k)
        lengths.append(cache.quantized_length)
    assert lengths == [0] * 9 + [4] * 4 + [8] * 4 + [12] * 2
    cache.truncate(10)
    assert cache.quantized_length == 8
    cache.truncate(7)
    assert (cache.quantized_length, cache.length) == (4, 7)
    # nbytes is what is allocated: nothing that was dropped or quantised lives on behind a view.
    parts = [part for store in cache._layers for part in (*store.keys.parts, *store.values.parts)]
    parts += [part for store in cache._layers for part in (store.new_keys, store.new_values)]
    assert cache.nbytes == sum(part.untyped_storage().nbytes() for part in parts)


# What it does to a model --------------------------------------------------------------------


@pytest.mark.parametrize("way", ["prefill", "decode", "chunks", "rewind"])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_changes_within_the_residual(name: str, way: str) -> None:
    def make(decoder: Decoder, batch: int) -> QuantizedCache:
        return QuantizedCache(decoder.config, 2, 8, residual=40, batch=batch)

    assert_cache_changes_nothing(make, small_models.model(name), way)


def kl(logits: Tensor, reference: Tensor) -> float:
    """Mean KL(reference || model), nats a token."""
    p, q = reference.double().log_softmax(-1), logits.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean().item()


# Nats a token, measured below on tiny at 64 tokens of context and more: 1e-6, 5e-4, 0.013.
KL_BOUND = {8: 1e-5, 4: 1e-3, 2: 0.025}


@pytest.fixture(scope="module")
def prose() -> Tensor:
    tokenizer = slmlab.load("tiny").tokenizer
    return torch.tensor([tokenizer.encode(evaluation_set("prose").texts[0])[:144]])


def cost(decoder: Decoder, tokens: Tensor, cache: Any) -> float:
    """KL to the forward pass without a cache, at the positions that see quantised tokens."""
    with torch.inference_mode():
        got = fed(decoder, cache, tokens, [16] * (tokens.shape[1] // 16))
        return kl(got[:, 64:], decoder(tokens)[:, 64:])


def with_a_large_key_channel(decoder: Decoder, factor: float = 30.0) -> Decoder:
    """The same function, with a planted outlier: one pair of key channels times ``factor``, the
    queries' own by its inverse. (Both of a pair, because RoPE turns them into one another.)"""
    other, config = copy.deepcopy(decoder), decoder.config
    heads, head_dim = config.num_attention_heads, config.head_dim
    for block in other.layers:
        attention: Any = block.self_attn
        rows = attention.qkv_proj.weight.unflatten(0, (-1, head_dim))
        for channel in (3, 3 + head_dim // 2):
            rows[:heads, channel] /= factor
            rows[heads : heads + config.num_key_value_heads, channel] *= factor
    return other


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_kl_on_tiny(bits: int, prose: Tensor) -> None:
    tiny = small_models.model("tiny")
    plain = cost(tiny, prose, QuantizedCache(tiny.config, bits))
    assert 0 < plain <= KL_BOUND[bits]


@pytest.mark.parametrize("bits", [4, 2])
def test_kl_where_keys_have_a_large_channel(bits: int, prose: Tensor) -> None:
    """KIVI's point: per channel it costs nothing; per token (a cache with the axes swapped) the
    channels beside it lose their precision, and the bound fails."""
    planted = with_a_large_key_channel(small_models.model("tiny"))
    assert cost(planted, prose, QuantizedCache(planted.config, bits)) <= KL_BOUND[bits]
    swapped = QuantizedCache(planted.config, bits, keys_per="token")
    assert cost(planted, prose, swapped) > 3 * KL_BOUND[bits]


@pytest.mark.parametrize("name", ["stories260K", "qwen2", "mistral-window", "hybrid"])
def test_kl_in_batches_and_after_rewinds(name: str) -> None:
    decoder = small_models.model(name)
    tokens = small_models.ids(decoder, 60, batch=2)
    cache = QuantizedCache(decoder.config, 8, 8, residual=8, batch=2)
    fed(decoder, cache, tokens[:, :40], [17, 1, 1, 21])
    fed(decoder, cache, small_models.ids(decoder, 15, batch=2, seed=9), [15])
    cache.truncate(29)  # into the quantised part, within a group
    assert cache.quantized_length == 24
    got = fed(decoder, cache, tokens[:, 29:], [4, 1, 1, 25])
    assert 0 < kl(got, decoder(tokens)[:, 29:]) < 1e-3


def test_sixteen_bits() -> None:
    cache = QuantizedCache(CONFIG, 8, 4, 0, dtype=torch.bfloat16)
    k = torch.randn(1, HEADS, 8, WIDTH).bfloat16()
    keys, values = stored(cache, k, k)
    assert keys.dtype == values.dtype == torch.bfloat16 and cache.quantized_length == 8
    assert (keys - k).abs().max() < 0.03
    cache.truncate(3)
    assert cache.nbytes == kv_bytes(CONFIG, 3, dtype="bfloat16")


def test_a_pass_that_stopped_half_way_leaves_nothing() -> None:
    decoder = small_models.model("qwen2")
    cache = QuantizedCache(CONFIG, 8, 4, residual=30)
    tokens = small_models.ids(decoder, 24)
    decoder(tokens[:, :12], cache)
    cache.append(0, torch.ones(1, 2, 3, 8), torch.ones(1, 2, 3, 8))
    small_models.assert_same_logits(decoder(tokens[:, 12:], cache), decoder(tokens)[:, 12:])


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="bits=3 is not one of 8, 4 and 2"):
        QuantizedCache(CONFIG, 3)
    with pytest.raises(TypeError, match=r"bits must be an int, not 4\.0"):
        QuantizedCache(CONFIG, 4.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="group_size=0 must be at least 1"):
        QuantizedCache(CONFIG, 4, 0)
    with pytest.raises(ValueError, match="residual=-1 must be at least 0"):
        QuantizedCache(CONFIG, 4, 32, -1)
    with pytest.raises(ValueError, match="keys_per='head' must be 'channel' or 'token'"):
        QuantizedCache(CONFIG, keys_per="head")
    with pytest.raises(ValueError, match="values_per='head' must be 'channel' or 'token'"):
        QuantizedCache(CONFIG, values_per="head")
    with pytest.raises(ValueError, match="value_bits=16 is not one of 8, 4 and 2"):
        QuantizedCache(CONFIG, value_bits=16)
    cache = QuantizedCache(CONFIG)
    k = torch.zeros(1, HEADS, 2, WIDTH)
    with pytest.raises(ValueError, match=r"= \(1, 2, T, 8\): make it with this model's config"):
        cache.append(0, k[:, :1], k[:, :1])
    with pytest.raises(ValueError, match=r"torch\.float16 to a cache of torch\.float32"):
        cache.append(0, k.half(), k.half())
    for bad in (float("nan"), float("inf"), -1e5):
        broken = k.clone()
        broken[0, 1, 1, 4] = bad
        with pytest.raises(
            ValueError, match=r"layer 0 appends values up to .* beyond fp16's 65504"
        ):
            cache.append(0, k, broken)
    assert cache.length == 0 and cache.nbytes == 0
    with pytest.raises(ValueError, match="n=1 must lie between 0 and the cache's length 0"):
        cache.truncate(1)
