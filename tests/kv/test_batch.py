"""One pass over many sequences gives each the logits of a pass of its own."""

from __future__ import annotations

import random

import pytest
import torch

from slmlab.kv import BlockPool, PagedBatch, PagedCache
from tests.kv import small_models
from tests.models.layouts import assert_same_logits


def pool_for(name: str, num_blocks: int = 64, block_size: int = 4) -> BlockPool:
    return BlockPool(small_models.model(name).config, num_blocks=num_blocks, block_size=block_size)


@pytest.mark.parametrize("way", ["prefill", "decode", "chunks", "rewind"])
@pytest.mark.parametrize("name", small_models.NAMES)
def test_one_paged_cache(name: str, way: str) -> None:
    decoder, pool = small_models.model(name), pool_for(name)
    tokens = small_models.ids(decoder, 40)
    cache = PagedCache(pool)
    if way != "rewind":
        got = small_models.fed(decoder, cache, tokens, small_models.sizes(way, 40))
        assert_same_logits(got, decoder(tokens))
        return
    small_models.fed(decoder, cache, tokens, [40])
    for keep in (37, 36, 21, 5, 4, 0):
        cache.truncate(keep)
        new = small_models.ids(decoder, 6, seed=keep)
        tokens = torch.cat([tokens[:, :keep], new], dim=1)
        assert_same_logits(decoder(new, cache), decoder(tokens)[:, -6:])


@pytest.mark.parametrize("name", small_models.NAMES)
def test_ragged_batches(name: str) -> None:
    """Sequences join, decode, prefill in chunks, rewind, fork and leave, in mixed passes."""
    decoder, pool, choose = small_models.model(name), pool_for(name), random.Random(3)
    caches: list[PagedCache] = []
    texts: list[list[int]] = []
    mixed = 0
    for step in range(25):
        if len(caches) < 4:
            caches.append(PagedCache(pool))
            texts.append([])
        if step % 7 == 5:
            caches.append(caches[0].fork())
            texts.append(list(texts[0]))
        chosen = choose.sample(range(len(caches)), choose.randint(1, len(caches)))
        for i in chosen:
            if choose.random() < 0.2:
                keep = choose.randint(max(0, len(texts[i]) - 6), len(texts[i]))
                caches[i].truncate(keep)
                texts[i] = texts[i][:keep]
        counts = [choose.choice((1, 1, 1, 2, 5, 9)) for _ in chosen]
        new = [small_models.ids(decoder, n, seed=choose.randint(0, 999))[0] for n in counts]
        batch = PagedBatch([caches[i] for i in chosen], counts)
        logits = decoder(torch.cat(new)[None], batch, positions=batch.positions)[0]
        mixed += len(set(counts)) > 1
        for part, last, i, tokens in zip(logits.split(counts), batch.last, chosen, new):
            texts[i] += tokens.tolist()
            assert caches[i].length == len(texts[i])
            assert torch.equal(part[-1], logits[last])
            assert_same_logits(part, decoder(torch.tensor([texts[i]]))[0, -len(tokens) :])
        for i in sorted(range(len(caches)), reverse=True):
            if len(texts[i]) > 40 or (len(caches) > 6 and choose.random() < 0.3):
                caches.pop(i).free()
                texts.pop(i)
    assert mixed > 8
    for cache in caches:
        cache.free()
    assert pool.num_free == pool.num_blocks


def test_what_lies_behind_a_shorter_sequence_does_not_matter() -> None:
    """Blocks come back with the numbers of their last owner in them."""
    decoder, pool = small_models.model("qwen2"), pool_for("qwen2")
    pool.keys.fill_(1e4)
    pool.values.fill_(-1e4)
    caches = [PagedCache(pool), PagedCache(pool)]
    tokens = small_models.ids(decoder, 30)[0]
    batch = PagedBatch(caches, [25, 5])
    decoder(tokens[None], batch, positions=batch.positions)
    batch = PagedBatch(caches, [1, 1])
    logits = decoder(tokens[None, :2], batch, positions=batch.positions)[0]
    for row, text in ((0, [*tokens[:25], tokens[0]]), (1, [*tokens[25:], tokens[1]])):
        assert_same_logits(logits[row], decoder(torch.stack(text)[None])[0, -1])
