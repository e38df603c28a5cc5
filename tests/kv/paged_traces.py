"""Random traces over several sequences in one pool, where every stored number tells whose it is.

The key of a token is a fingerprint of the whole text up to it, so a block that holds another text
than its owner's, or than its name in the prefix index says, shows at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from hashlib import sha256

import torch
from torch import Tensor

from slmlab.kv import BlockPool, OutOfBlocks, PagedCache
from slmlab.models import ModelConfig

CONFIG = ModelConfig("llama", 17, 12, 16, 2, 4, 2, 6, 64)


def fingerprint(tokens: list[int]) -> float:
    return int.from_bytes(sha256(repr(tokens).encode()).digest()[:3], "big") / 1.0


def vectors(tokens: list[int], start: int) -> Tensor:
    """(1, kv_heads, new, head_dim): the keys of tokens[start:], the same number all over."""
    marks = torch.tensor([fingerprint(tokens[: i + 1]) for i in range(start, len(tokens))])
    return marks.view(1, 1, -1, 1).expand(1, 2, -1, 6)


@dataclass
class Sequence:
    cache: PagedCache
    tokens: list[int] = field(default_factory=list)


class World:
    """A pool, its sequences, and the actions that a seeded trace draws from."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.block_size = self.random.choice((1, 2, 3, 4))
        self.pool = BlockPool(
            CONFIG, num_blocks=self.random.choice((3, 8, 14)), block_size=self.block_size
        )
        self.sequences: list[Sequence] = []
        self.counts: dict[str, int] = {}
        # A few short texts with common beginnings make sharing and reuse frequent.
        first = [self.random.randrange(2) for _ in range(24)]
        self.texts = [first, first[:5] + [1 - token for token in first[5:]]]

    def run(self, steps: int) -> None:
        names = ("start", "append", "truncate", "fork", "free", "again")
        for _ in range(steps):
            name = self.random.choices(names, (4, 8, 4, 2, 2, 1))[0]
            if name != "start" and not self.sequences:
                continue
            getattr(self, name)()
            self.check()
            if self.random.random() < 0.3:  # it touches the order of eviction
                self.check_names()
        while self.sequences:
            self.free()
            self.check()
        assert self.pool.num_free == self.pool.num_blocks

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def start(self) -> None:
        """A new sequence takes up the longest prefix that some block still holds."""
        text = self.random.choice(self.texts)[: self.random.randrange(1, 25)]
        wanted = self.longest_prefix(text)
        cache = PagedCache(self.pool)
        taken = cache.take_prefix(text)
        assert taken == wanted
        assert taken < len(text), "the last token has to be computed"
        self.count("hit" if taken else "miss")
        self.sequences.append(Sequence(cache, text[:taken]))

    def longest_prefix(self, text: list[int]) -> int:
        """By content alone: which texts stand in blocks that the index knows."""
        known = {
            float(self.pool.keys[0, 0, block, -1, 0])
            for block in range(self.pool.num_blocks)
            if block in self.pool.prefixes
        }
        length = 0
        while length + self.block_size < len(text):
            if fingerprint(text[: length + self.block_size]) not in known:
                break
            length += self.block_size
        return length

    def append(self) -> None:
        sequence = self.random.choice(self.sequences)
        text = self.random.choice(self.texts)
        start = len(sequence.tokens)
        tokens = sequence.tokens + text[start : start + self.random.randrange(1, 8)]
        if len(tokens) == start:
            return
        vector = vectors(tokens, start)
        before = self.snapshot()
        try:
            for layer in range(2):
                keys, values = sequence.cache.append(layer, vector, -vector)
                assert torch.equal(keys, vectors(tokens, 0))
                assert torch.equal(values, -keys)
        except OutOfBlocks:
            self.count("out of blocks")
            assert self.snapshot() == before
            return
        self.count("append")
        sequence.tokens = tokens
        if self.random.random() < 0.6:
            sequence.cache.record(tokens)

    def check_names(self) -> None:
        """Whatever the index would hand out is the text it was asked for."""
        for text in self.texts:
            cache = PagedCache(self.pool)
            cache.take_prefix(text)
            stored = self.pool.keys[0][:, cache.block_table].flatten(1, 2)
            assert torch.equal(stored[None], vectors(text[: cache.length], 0))
            cache.free()

    def truncate(self) -> None:
        sequence = self.random.choice(self.sequences)
        n = self.random.randrange(len(sequence.tokens) + 1)
        sequence.cache.truncate(n)
        sequence.tokens = sequence.tokens[:n]

    def fork(self) -> None:
        sequence = self.random.choice(self.sequences)
        self.sequences.append(Sequence(sequence.cache.fork(), list(sequence.tokens)))

    def free(self) -> None:
        sequence = self.sequences.pop(self.random.randrange(len(self.sequences)))
        sequence.cache.free()

    def again(self) -> None:
        """A freed cache starts over."""
        sequence = self.random.choice(self.sequences)
        sequence.cache.free()
        text = self.random.choice(self.texts)
        sequence.tokens = text[: sequence.cache.take_prefix(text)]

    def snapshot(self) -> object:
        tables = [list(s.cache.block_table) for s in self.sequences]
        references = [self.pool.references(b) for b in range(self.pool.num_blocks)]
        return tables, references, self.pool.num_free, self.pool.num_cached, len(self.pool.prefixes)

    def check(self) -> None:
        pool = self.pool
        held = [block for s in self.sequences for block in s.cache.block_table]
        for block in range(pool.num_blocks):
            assert pool.references(block) == held.count(block)
        assert pool.num_used == len(set(held))
        assert pool.num_free + pool.num_used == pool.num_blocks
        for sequence in self.sequences:
            cache, tokens = sequence.cache, sequence.tokens
            assert cache.length == len(tokens)
            assert len(cache.block_table) == -(-len(tokens) // self.block_size)
            assert len(set(cache.block_table)) == len(cache.block_table)
            assert 0 <= cache.unused_slots < self.block_size
            stored = pool.keys[1][:, cache.block_table].flatten(1, 2)[:, : len(tokens)]
            assert torch.equal(stored[None], vectors(tokens, 0))
