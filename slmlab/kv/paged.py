"""One sequence's cache in a pool of blocks: a block table in place of a reservation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from slmlab.kv.checks import check_append, check_truncate
from slmlab.kv.pool import BlockPool, OutOfBlocks
from slmlab.kv.prefix import ROOT, block_hash
from slmlab.models.fields import check_whole


class PagedCache:
    """Keys and values of one sequence (batch 1), in blocks taken from ``pool`` as they are needed.

    Token ``t`` lies in block ``block_table[t // block_size]`` at offset ``t % block_size``. Before
    anything is written, :meth:`reserve` sees to it that no other table holds the blocks it goes to:
    a shared block is copied first (copy-on-write), and a block that ``pool.prefixes`` knows by its
    old text is forgotten there.

    Attributes:
        length: tokens stored.
        block_table: blocks in the order of the text; up to one partly empty one at the end.
    """

    def __init__(self, pool: BlockPool) -> None:
        if not isinstance(pool, BlockPool):
            raise TypeError(f"pool must be a BlockPool, not {type(pool).__name__}")
        self.pool = pool
        self.block_table: list[int] = []
        self.length = 0
        self._names: list[bytes] = []  # of the leading full blocks that were recorded
        self._generation = pool.generation

    def blocks_needed(self, count: int) -> int:
        """Blocks that appending ``count`` more tokens takes out of the pool, copies included."""
        size = self.pool.block_size
        new = -(-(self.length + count) // size) - len(self.block_table)
        copies = sum(self.pool.references(b) > 1 for b in self._written(count))
        return max(new, 0) + copies

    def reserve(self, count: int) -> None:
        """Make room for ``count`` more tokens, in blocks that only this sequence holds.

        Raises:
            OutOfBlocks: the pool has too few; then nothing has changed.
        """
        needed = self.blocks_needed(check_whole("count", count, at_least=0))
        if needed > self.pool.num_free:
            raise OutOfBlocks(
                f"{count} more tokens need {needed} blocks, the pool has {self.pool.num_free} free "
                f"of {self.pool.num_blocks}"
            )
        pool, size = self.pool, self.pool.block_size
        for index, block in enumerate(self._written(count), start=self.length // size):
            if pool.references(block) > 1:
                copy = pool.allocate()
                pool.copy(block, copy)
                pool.free(block)
                self.block_table[index] = copy
            else:
                pool.prefixes.forget(block)
        while len(self.block_table) * size < self.length + count:
            self.block_table.append(pool.allocate())

    def _written(self, count: int) -> list[int]:
        """Blocks of the table that appending ``count`` tokens writes to."""
        size = self.pool.block_size
        return self.block_table[self.length // size : -(-(self.length + count) // size)]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store this pass's keys and values; return everything the layer may attend to.

        Args:
            layer: 0 .. layers - 1, called in order within one forward pass.
            k, v: (1, kv_heads, T, head_dim).

        Returns:
            keys, values: (1, kv_heads, length + T, head_dim), gathered from the blocks.

        Raises:
            OutOfBlocks: the pool has too few blocks; then nothing has changed.
        """
        pool, size = self.pool, self.pool.block_size
        count = check_append(layer, k, v, pool.shape, 1, pool.dtype)
        self.reserve(count)
        end = self.length + count
        for first in range(self.length, end):
            if first > self.length and first % size:
                continue  # a block's tokens are written together
            offset, last = first % size, min(end, (first // size + 1) * size)
            new = slice(first - self.length, last - self.length)
            here = self.block_table[first // size], slice(offset, offset + last - first)
            pool.keys[layer, :, *here] = k[0, :, new]
            pool.values[layer, :, *here] = v[0, :, new]
        if layer == pool.shape.layers - 1:
            self.length = end
        held = self.block_table[: -(-end // size)]
        # (kv_heads, blocks, block_size, head_dim) -> (1, kv_heads, length + T, head_dim)
        keys = pool.keys[layer][:, held].flatten(1, 2)[None, :, :end]
        return keys, pool.values[layer][:, held].flatten(1, 2)[None, :, :end]

    def truncate(self, n: int) -> None:
        """Keep the first ``n`` tokens; blocks behind them go back to the pool at once."""
        check_truncate(n, self.length)
        keep = -(-n // self.pool.block_size)
        # Last block first: of a text that nobody holds, the end is given away before the start.
        for block in reversed(self.block_table[keep:]):
            self.pool.free(block)
        del self.block_table[keep:]
        del self._names[n // self.pool.block_size :]
        self.length = n
        if n == 0:
            self._generation = self.pool.generation

    def free(self) -> None:
        """Give every block back; the cache is then empty and can be used again."""
        self.truncate(0)

    def fork(self) -> PagedCache:
        """A second cache with the same text, sharing every block until one of the two writes."""
        twin = PagedCache(self.pool)
        twin.block_table = self.block_table[: -(-self.length // self.pool.block_size)]
        for block in twin.block_table:
            self.pool.share(block)
        twin.length, twin._names = self.length, list(self._names)
        twin._generation = self._generation
        return twin

    def take_prefix(self, tokens: Sequence[int]) -> int:
        """Start this empty cache with the blocks that already hold the beginning of ``tokens``.

        The last token is never taken: its forward pass has to run, or there would be no logits.

        Returns:
            How many tokens are now stored.

        Raises:
            ValueError: the cache is not empty.
        """
        if self.length or self.block_table:
            raise ValueError(f"this cache holds {self.length} tokens: free it before take_prefix")
        size = self.pool.block_size
        reusable = tokens[: max(len(tokens) - 1, 0)]
        for index, block in enumerate(self.pool.prefixes.longest(reusable, size)):
            self.pool.share(block)
            self.block_table.append(block)
            self._record(tokens[index * size : (index + 1) * size])
        self.length = len(self.block_table) * size
        return self.length

    def record(self, tokens: Sequence[int]) -> None:
        """Tell the pool's prefix index which text the full blocks hold.

        Args:
            tokens: all ids of the sequence from its first on, at least ``length`` of them.
        """
        if len(tokens) < self.length:
            raise ValueError(f"tokens has {len(tokens)} ids, this cache holds {self.length}")
        if self._generation != self.pool.generation:
            return  # computed with other weights than those that the pool answers for
        size = self.pool.block_size
        for index in range(len(self._names), self.length // size):
            name = self._record(tokens[index * size : (index + 1) * size])
            self.pool.prefixes.add(self.block_table[index], name)

    def _record(self, tokens: Sequence[int]) -> bytes:
        self._names.append(block_hash(self._names[-1] if self._names else ROOT, tokens))
        return self._names[-1]

    @property
    def nbytes(self) -> int:
        """Bytes of the blocks held, shared ones counted in full."""
        return len(self.block_table) * self.pool.block_nbytes

    @property
    def unused_slots(self) -> int:
        """Reserved places that hold no token: less than ``block_size`` between passes."""
        return len(self.block_table) * self.pool.block_size - self.length
