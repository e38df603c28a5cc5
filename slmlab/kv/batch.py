"""Several sequences of different lengths in one forward pass.

The new tokens of all sequences are laid end to end in one row, so that every weight is read once
for all of them. Only attention needs to know whose token is whose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slmlab.kv.checks import check_append
from slmlab.kv.paged import PagedCache
from slmlab.models.attend import attend
from slmlab.models.fields import check_whole


@dataclass(frozen=True, eq=False)
class _Group:
    """Sequences that append equally many tokens: their queries form one rectangle."""

    rows: Tensor | slice  # where their tokens lie in the row, (members * count,) or a range
    blocks: Tensor  # (members * width,) block tables, all as long as the longest
    starts: Tensor  # (members,) tokens stored before this pass
    members: int
    count: int


class PagedBatch:
    """The cache that ``Decoder`` is given for one pass over several ``PagedCache``s.

    ``decoder(ids, batch)`` with ids (1, total), sequence after sequence, computes for each what a
    pass of its own would, once. Sequences that append equally many tokens (all
    that decode) go through one attention call, with the keys of shorter ones masked at the end.

    Args:
        caches: of one pool, each at most once.
        counts: tokens that each appends in this pass.

    Attributes:
        positions: (total,) rotary positions of the new tokens.
        last: (sequences,) where the last token of each lies in the row.

    Raises:
        ValueError: no caches, a count for each missing, two pools, one cache twice.
        OutOfBlocks: the pool has too few blocks. Some caches may then have reserved theirs, which
            the next pass uses.
    """

    def __init__(self, caches: Sequence[PagedCache], counts: Sequence[int]) -> None:
        if not caches or len(caches) != len(counts):
            raise ValueError(f"{len(caches)} caches and {len(counts)} counts: give one count each")
        if len({id(cache) for cache in caches}) != len(caches):
            raise ValueError("caches holds one cache twice: a sequence appends once a pass")
        for cache, count in zip(caches, counts):
            if not isinstance(cache, PagedCache):
                raise TypeError(f"caches must be PagedCaches, not {type(cache).__name__}")
            if cache.pool is not caches[0].pool:
                raise ValueError("caches come from different pools: a pass writes to one")
            check_whole("counts", count)
        self.pool = caches[0].pool
        for cache, count in zip(caches, counts):
            cache.reserve(count)
        self._caches, self._counts = list(caches), list(counts)
        self._found = self._state()
        self.length = sum(cache.length for cache in caches)
        device, size = self.pool.device, self.pool.block_size
        slots: list[int] = []
        positions: list[int] = []
        for cache, count in zip(caches, counts):
            table = cache.block_table
            for at in range(cache.length, cache.length + count):
                positions.append(at)
                slots.append(table[at // size] * size + at % size)
        self.positions = torch.tensor(positions, device=device)
        self._slots = torch.tensor(slots, device=device)
        self.last = torch.tensor(counts, device=device).cumsum(0) - 1
        self._groups = self._group()
        self._masks: dict[tuple[int, int | None], Tensor] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        """Store the new keys and values, then let every token attend within its own sequence.

        Args:
            q: (1, heads, total, head_dim).
            k, v: (1, kv_heads, total, head_dim).
            window: tokens that a query sees, itself included; None for all.

        Returns:
            (1, heads, total, head_dim).

        Raises:
            ValueError: keys of another model or another number of tokens, a batch that has run.
        """
        self._check(layer, k, v)
        keys, values = self.pool.keys[layer], self.pool.values[layer]
        keys.flatten(1, 2).index_copy_(1, self._slots, k[0])
        values.flatten(1, 2).index_copy_(1, self._slots, v[0])
        if layer == self.pool.shape.layers - 1:
            self._advance()
        if len(self._groups) == 1:
            return self._attend_group(0, q, keys, values, window)
        out = torch.empty_like(q)
        for index, group in enumerate(self._groups):
            part = self._attend_group(index, q[:, :, group.rows], keys, values, window)
            out[:, :, group.rows] = part
        return out

    def _check(self, layer: int, k: Tensor, v: Tensor) -> None:
        total = check_append(layer, k, v, self.pool.shape, 1, self.pool.dtype)
        if total != sum(self._counts):
            raise ValueError(
                f"this pass feeds {total} tokens, the batch was made for {sum(self._counts)}: give "
                "the new tokens of all sequences end to end"
            )
        if layer == 0 and self._state() != self._found:
            raise ValueError(
                "this batch has run, or its caches have changed since it was made: make a new one "
                "for each pass"
            )

    def _state(self) -> list[tuple[int, list[int]]]:
        return [(cache.length, list(cache.block_table)) for cache in self._caches]

    def _attend_group(
        self, index: int, q: Tensor, keys: Tensor, values: Tensor, window: int | None
    ) -> Tensor:
        """q: (1, heads, members * count, head_dim) -> the same shape."""
        group = self._groups[index]
        heads, head_dim = q.shape[1], q.shape[3]
        q = q.view(heads, group.members, group.count, head_dim).transpose(0, 1)
        # (kv_heads, members * width, block_size, head_dim) -> (members, kv_heads, keys, head_dim)
        k, v = (
            stored.index_select(1, group.blocks)
            .view(keys.shape[0], group.members, -1, head_dim)
            .transpose(0, 1)
            for stored in (keys, values)
        )
        out = attend(q, k, v, self._mask(index, window, k.shape[2]), causal=False)
        return out.transpose(0, 1).reshape(1, heads, -1, head_dim)

    def _mask(self, index: int, window: int | None, keys: int) -> Tensor:
        if (index, window) not in self._masks:
            group = self._groups[index]
            device = self.pool.device
            query_at = group.starts[:, None] + torch.arange(group.count, device=device)
            query_at = query_at[:, None, :, None]  # (members, 1, count, 1)
            key_at = torch.arange(keys, device=device)
            mask = key_at <= query_at
            if window is not None:
                mask &= key_at > query_at - window
            self._masks[index, window] = mask
        return self._masks[index, window]

    def _group(self) -> list[_Group]:
        """Sequences by count; tokens of one group lie in the row in the order of its members."""
        members: dict[int, list[int]] = {}
        for i, count in enumerate(self._counts):
            members.setdefault(count, []).append(i)
        starts = [int(last) + 1 - count for last, count in zip(self.last.tolist(), self._counts)]
        device = self.pool.device
        groups = []
        for count, chosen in members.items():
            rows: Tensor | slice = slice(starts[chosen[0]], starts[chosen[-1]] + count)
            if chosen != list(range(chosen[0], chosen[-1] + 1)):
                rows = torch.tensor(
                    [starts[i] + t for i in chosen for t in range(count)], device=device
                )
            tables = [self._caches[i].block_table for i in chosen]
            width = max(map(len, tables))
            # Filled up with the table's own last block: what is masked there is its own or zeros.
            blocks = [b for table in tables for b in table + table[-1:] * (width - len(table))]
            lengths = [self._caches[i].length for i in chosen]
            groups.append(
                _Group(
                    rows,
                    torch.tensor(blocks, device=device),
                    torch.tensor(lengths, device=device),
                    len(chosen),
                    count,
                )
            )
        return groups

    def _advance(self) -> None:
        for cache, count in zip(self._caches, self._counts):
            cache.length += count
        self.length += sum(self._counts)
