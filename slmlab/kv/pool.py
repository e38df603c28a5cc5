"""The memory of a paged cache: equal blocks, counted references, nothing ever moved.

PagedAttention (Kwon et al. 2023, arXiv:2309.06180, section 4): a sequence owns a list of blocks
instead of one long reservation, so at most its last block is partly empty.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch

from slmlab.kv.prefix import PrefixIndex
from slmlab.kv.shape import CacheShape
from slmlab.kv.storage import allocate_pair
from slmlab.models.fields import check_whole
from slmlab.models.placement import check_device, check_dtype


class OutOfBlocks(RuntimeError):
    """No block is free. Nothing was changed: free a sequence, or wait for one to end."""


class BlockPool:
    """``num_blocks`` blocks of ``block_size`` tokens each, over all layers of one model.

    Every block is in exactly one of three places, and moves between them in constant time:

    - used: at least one reference. Only a block with one reference may be written to.
    - cached: no reference, but its text is still in ``prefixes``: a new sequence may take it up.
    - free: neither.

    ``num_free`` counts the last two, since a cached block is given away when no free one is left,
    the one unused for longest first.

    Args:
        config: the model's sizes: a ``ModelConfig``, or any object with Hugging Face names.
        num_blocks: blocks in all.
        block_size: tokens a block.
        dtype, device: of the stored keys and values.

    Attributes:
        keys, values: (layers, kv_heads, num_blocks, block_size, head_dim).
        prefixes: which block holds which text.

    Raises:
        ValueError: sizes below 1, a config without sizes, an unusable dtype or device.
        TypeError: sizes that are not ints, no torch.dtype, no device.
    """

    def __init__(
        self,
        config: Any,
        *,
        num_blocks: int,
        block_size: int = 16,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.num_blocks = check_whole("num_blocks", num_blocks)
        self.block_size = check_whole("block_size", block_size)
        self.dtype = check_dtype(dtype)
        self.device = check_device(device)
        self.shape = CacheShape.of(config)
        sizes = (self.shape.layers, self.shape.kv_heads, num_blocks, block_size)
        self.keys, self.values = allocate_pair(
            (*sizes, self.shape.head_dim), dtype, self.device, "num_blocks"
        )
        self.prefixes = PrefixIndex()
        self.generation = 0  # of the model's weights, as far as the pool was told
        self._references = [0] * num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()  # least recently used first

    @property
    def num_free(self) -> int:
        """Blocks that can be allocated now, those that still hold a known prefix included."""
        return len(self._free) + len(self._cached)

    @property
    def num_used(self) -> int:
        """Blocks with at least one reference."""
        return self.num_blocks - self.num_free

    @property
    def num_cached(self) -> int:
        """Blocks without a reference whose text can still be taken up."""
        return len(self._cached)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole pool, used or not."""
        return self.keys.nbytes + self.values.nbytes

    @property
    def block_nbytes(self) -> int:
        """Bytes of one block: keys and values of ``block_size`` tokens in every layer."""
        return self.nbytes // self.num_blocks

    def references(self, block: int) -> int:
        """How many block tables hold ``block``.

        Raises:
            ValueError, TypeError: no block of this pool.
        """
        if isinstance(block, bool) or not isinstance(block, int):
            raise TypeError(f"block must be an int, not {block!r}")
        if not 0 <= block < self.num_blocks:
            raise ValueError(f"block={block}: this pool has blocks 0 to {self.num_blocks - 1}")
        return self._references[block]

    def allocate(self) -> int:
        """A block of zeros with one reference, for the caller to write to.

        Zeros, because attention multiplies what lies behind a sequence's end by a weight of exactly
        0, and 0 times a NaN that the last owner left there would be NaN.

        Raises:
            OutOfBlocks: all are used.
        """
        if self._free:
            block = self._free.pop()
        elif self._cached:
            block, _ = self._cached.popitem(last=False)
            # Without this a later request would be handed the new owner's text as its own prefix.
            self.prefixes.forget(block)
        else:
            raise OutOfBlocks(f"all {self.num_blocks} blocks of the pool are in use")
        self._references[block] = 1
        self.keys[:, :, block] = 0
        self.values[:, :, block] = 0
        return block

    def share(self, block: int) -> None:
        """Add a reference to a block in use, or take up a cached one.

        Raises:
            ValueError: a free block holds nothing that could be shared.
        """
        if self.references(block) == 0:
            if block not in self._cached:
                raise ValueError(f"block={block} is free and holds nothing: allocate one instead")
            del self._cached[block]
        self._references[block] += 1

    def free(self, block: int) -> None:
        """Give one reference back; the last one makes the block available again.

        Raises:
            ValueError: the block has no reference left: freed twice.
        """
        if self.references(block) == 0:
            raise ValueError(
                f"block={block} has no reference left: it was freed twice, or never allocated"
            )
        self._references[block] -= 1
        if self._references[block] == 0:
            if block in self.prefixes:
                self._cached[block] = None
            else:
                self._free.append(block)

    def copy(self, source: int, target: int) -> None:
        """Copy a block's keys and values in every layer: the copy of copy-on-write."""
        self.keys[:, :, target] = self.keys[:, :, source]
        self.values[:, :, target] = self.values[:, :, source]

    def drop_prefixes(self) -> None:
        """Forget every known text: the model's weights have changed. What sequences hold now is
        not recorded again, as it was computed with the old ones."""
        self.generation += 1
        self._free.extend(self._cached)
        self._cached.clear()
        self.prefixes = PrefixIndex()
