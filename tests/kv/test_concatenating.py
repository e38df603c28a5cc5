"""ConcatenatingCache: right, and as wasteful as the lesson says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slmlab.kv import ContiguousCache, kv_bytes
from slmlab.kv.concatenating import ConcatenatingCache
from slmlab.models import Decoder
from tests.kv import small_models
from tests.kv.small_models import NAMES, assert_cache_changes_nothing

CONFIG = small_models.CONFIGS["qwen2"]
TOKEN_BYTES = 2 * CONFIG.num_hidden_layers * 2 * 8 * 4  # keys and values, float32


@pytest.mark.parametrize("way", ["prefill", "decode", "chunks", "rewind"])
@pytest.mark.parametrize("name", NAMES)
def test_logits_equal_the_uncached_forward(name: str, way: str) -> None:
    def make(decoder: Decoder, batch: int) -> ConcatenatingCache:
        return ConcatenatingCache(decoder.config, batch)

    assert_cache_changes_nothing(make, small_models.model(name), way)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 5)),
        st.tuples(st.just("truncate"), st.floats(0, 1)),
    ),
    max_size=20,
)


@given(steps=STEPS, batch=st.integers(1, 3))
def test_traces(steps: list[tuple[str, float]], batch: int) -> None:
    """Against a plain list of tokens, with every byte written counted."""
    cache = ConcatenatingCache(CONFIG, batch)
    tokens: list[torch.Tensor] = []  # (2, layers, batch, kv_heads, head_dim) each
    written = 0
    for action, amount in steps:
        if action == "truncate":
            tokens = tokens[: int(amount * len(tokens))]
            cache.truncate(len(tokens))
        else:
            new = torch.randn(2, CONFIG.num_hidden_layers, batch, 2, int(amount), 8)
            tokens += new.unbind(-2)
            expected = torch.stack(tokens, dim=-2)
            for layer in range(CONFIG.num_hidden_layers):
                keys, values = cache.append(layer, new[0, layer], new[1, layer])
                assert torch.equal(keys, expected[0, layer])
                assert torch.equal(values, expected[1, layer])
            written += batch * len(tokens) * TOKEN_BYTES
        assert cache.length == len(tokens)
        assert cache.nbytes == kv_bytes(CONFIG, len(tokens), batch, "float32")
        assert cache.bytes_copied == written
        held = (
            cache._keys + cache._values
        )  # as allocated: what was dropped is not kept behind a view
        assert cache.nbytes == sum(
            {t.data_ptr(): t.untyped_storage().nbytes() for t in held}.values()
        )


def test_copies_grow_with_the_square() -> None:
    naive, preallocated = ConcatenatingCache(CONFIG), ContiguousCache(CONFIG, max_length=50)
    decoder = small_models.model("qwen2")
    for kept in (naive, preallocated):
        small_models.fed(decoder, kept, small_models.ids(decoder, 50), [1] * 50)
    assert preallocated.bytes_copied == 50 * TOKEN_BYTES
    assert naive.bytes_copied == 50 * 51 // 2 * TOKEN_BYTES


def test_a_pass_that_stopped_half_way_leaves_nothing() -> None:
    decoder = small_models.model("qwen2")
    cache = ConcatenatingCache(CONFIG)
    tokens = small_models.ids(decoder, 12)
    decoder(tokens[:, :6], cache)
    cache.append(0, torch.ones(1, 2, 3, 8), torch.ones(1, 2, 3, 8))
    small_models.assert_same_logits(decoder(tokens[:, 6:], cache), decoder(tokens)[:, 6:])


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="batch=0 must be at least 1"):
        ConcatenatingCache(CONFIG, 0)
    with pytest.raises(TypeError, match=r"dtype must be a torch\.dtype"):
        ConcatenatingCache(CONFIG, dtype="float16")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="device='nowhere' cannot be used here"):
        ConcatenatingCache(CONFIG, device="nowhere")
    cache = ConcatenatingCache(CONFIG)
    k = torch.zeros(1, 4, 2, 8)
    with pytest.raises(ValueError, match=r"= \(1, 2, T, 8\): make it with this model's config"):
        cache.append(0, k, k)
    with pytest.raises(ValueError, match=r"torch\.float16 to a cache of torch\.float32"):
        cache.append(0, k[:, :2].half(), k[:, :2].half())
    with pytest.raises(ValueError, match="n=1 must lie between 0 and the cache's length 0"):
        cache.truncate(1)
    with pytest.raises(TypeError, match="n must be an int"):
        cache.truncate(0.0)  # type: ignore[arg-type]
