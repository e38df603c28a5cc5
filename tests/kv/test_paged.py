"""BlockPool and PagedCache: thousands of random traces, and what they refuse."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slmlab.kv import BlockPool, OutOfBlocks, PagedBatch, PagedCache, block_hashes, kv_bytes
from tests.kv.paged_traces import CONFIG, World, vectors


def test_traces() -> None:
    """The seeded slice; the events that the invariants are about must have happened in it."""
    counts: Counter[str] = Counter()
    for seed in range(150):
        world = World(seed)
        world.run(40)
        counts.update(world.counts)
    assert counts["hit"] > 50 and counts["miss"] > 50
    assert counts["out of blocks"] > 50 and counts["append"] > 500


@pytest.mark.slow
@given(seed=st.integers(0, 2**32))
def test_many_traces(seed: int) -> None:
    for i in range(10):
        World(seed + i).run(60)


def test_forks_share_until_one_writes() -> None:
    pool = BlockPool(CONFIG, num_blocks=8, block_size=4)
    first = PagedCache(pool)
    text = [1, 2, 3, 4, 5, 6]
    for layer in range(2):
        first.append(layer, vectors(text, 0), vectors(text, 0))
    second = first.fork()
    assert pool.num_used == 2 and second.block_table == first.block_table
    assert second.blocks_needed(1) == 1  # the copy of the half full block
    for layer in range(2):
        second.append(layer, vectors([*text, 7], 6), vectors([*text, 7], 6))
    assert pool.num_used == 3
    assert second.block_table[0] == first.block_table[0]
    assert second.block_table[1] != first.block_table[1]
    keys = pool.keys[0][:, first.block_table].flatten(1, 2)
    assert torch.equal(keys[None, :, :6], vectors(text, 0))
    assert first.blocks_needed(2) == 0  # alone with its half full block again


def filled(pool: BlockPool, text: list[int]) -> PagedCache:
    cache = PagedCache(pool)
    for layer in range(2):
        cache.append(layer, vectors(text, 0), vectors(text, 0))
    cache.record(text)
    return cache


def test_a_block_written_again_is_no_longer_found_by_its_old_text() -> None:
    pool = BlockPool(CONFIG, num_blocks=4, block_size=2)
    cache = filled(pool, [1, 2, 3, 4])
    cache.truncate(3)
    other = PagedCache(pool)
    assert other.take_prefix([1, 2, 3, 4, 5]) == 4  # the text is still there
    other.free()
    for layer in range(2):
        cache.append(layer, vectors([1, 2, 3, 9], 3), vectors([1, 2, 3, 9], 3))
    assert PagedCache(pool).take_prefix([1, 2, 3, 4, 5]) == 2
    cache.record([1, 2, 3, 9])
    assert PagedCache(pool).take_prefix([1, 2, 3, 9, 5]) == 4


def test_names_follow_a_rewind() -> None:
    pool = BlockPool(CONFIG, num_blocks=8, block_size=2)
    cache = filled(pool, [1, 2, 3, 4])
    cache.truncate(2)
    text = [1, 2, 7, 8, 5, 6]
    for layer in range(2):
        cache.append(layer, vectors(text, 2), vectors(text, 2))
    cache.record(text)
    assert PagedCache(pool).take_prefix([*text, 0]) == 6
    assert PagedCache(pool).take_prefix([1, 2, 3, 4, 5, 6, 0]) == 4  # 3, 4 are cached still


def test_of_a_freed_text_the_end_is_given_away_before_the_start() -> None:
    pool = BlockPool(CONFIG, num_blocks=3, block_size=2)
    filled(pool, [1, 2, 3, 4, 5, 6]).free()
    pool.free(pool.allocate())
    assert PagedCache(pool).take_prefix([1, 2, 3, 4, 5, 6, 7]) == 4


def test_the_text_unused_for_longest_is_given_away_first() -> None:
    pool = BlockPool(CONFIG, num_blocks=3, block_size=1)
    for token in (1, 2, 3):
        filled(pool, [token]).free()
    assert pool.num_cached == 3
    again = PagedCache(pool)
    assert again.take_prefix([1, 0]) == 1  # used last now
    again.free()
    pool.free(pool.allocate())
    assert [PagedCache(pool).take_prefix([token, 0]) for token in (1, 2, 3)] == [1, 0, 1]


def test_equal_blocks_behind_different_beginnings_have_different_names() -> None:
    assert block_hashes([1, 2, 7, 8], 2)[1] != block_hashes([3, 4, 7, 8], 2)[1]
    assert block_hashes([1, 2, 7], 2) == block_hashes([1, 2, 9], 2)
    assert block_hashes([1], 2) == []


def test_bytes() -> None:
    pool = BlockPool(CONFIG, num_blocks=5, block_size=16)
    assert pool.nbytes == kv_bytes(CONFIG, 5 * 16, dtype="float32")
    cache = PagedCache(pool)
    cache.reserve(17)
    assert cache.nbytes == 2 * pool.block_nbytes == kv_bytes(CONFIG, 32, dtype="float32")


def test_refusals() -> None:
    pool = BlockPool(CONFIG, num_blocks=2, block_size=4)
    block = pool.allocate()
    pool.free(block)
    with pytest.raises(ValueError, match=f"block={block} has no reference left: it was freed twic"):
        pool.free(block)
    with pytest.raises(ValueError, match="is free and holds nothing"):
        pool.share(block)
    with pytest.raises(ValueError, match="this pool has blocks 0 to 1"):
        pool.free(2)
    with pytest.raises(TypeError, match="block must be an int"):
        pool.free("0")  # type: ignore[arg-type]
    cache = PagedCache(pool)
    with pytest.raises(OutOfBlocks, match="9 more tokens need 3 blocks, the pool has 2 free of 2"):
        cache.reserve(9)
    assert pool.num_free == 2 and cache.block_table == []
    cache.reserve(1)
    with pytest.raises(ValueError, match="free it before take_prefix"):
        cache.take_prefix([1, 2])
    with pytest.raises(TypeError, match="pool must be a BlockPool"):
        PagedCache(CONFIG)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_blocks=0 must be at least 1"):
        BlockPool(CONFIG, num_blocks=0)
    with pytest.raises(ValueError, match=r"= \(1, 2, T, 6\): make it with this model's config"):
        cache.append(0, torch.zeros(2, 2, 1, 6), torch.zeros(2, 2, 1, 6))
    other = PagedCache(BlockPool(CONFIG, num_blocks=2))
    with pytest.raises(ValueError, match="different pools"):
        PagedBatch([cache, other], [1, 1])
    with pytest.raises(ValueError, match="one cache twice"):
        PagedBatch([cache, cache], [1, 1])
    with pytest.raises(ValueError, match="give one count each"):
        PagedBatch([cache], [])
    with pytest.raises(ValueError, match="counts=0 must be at least 1"):
        PagedBatch([cache], [0])
