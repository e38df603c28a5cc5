"""Rows of tokens, and batches as a pure function of seed and step.

Nothing has to be remembered to resume, and nothing to be told to run on several processes: each
takes its part of the same batch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Rows to learn from.

    ids: (B, T) int64; position i, 0 .. T - 2, predicts token i + 1. mask: (B, T - 1) bool, the
    predictions that count. rows: (B,) int64, the rows' numbers in the data.
    """

    ids: Tensor
    mask: Tensor
    rows: Tensor

    @property
    def inputs(self) -> Tensor:
        """(B, T - 1): what the models are fed."""
        return self.ids[:, :-1]

    @property
    def targets(self) -> Tensor:
        """(B, T - 1): the hard labels, -100 where the mask is False."""
        return self.ids[:, 1:].masked_fill(~self.mask, -100)

    def part(self, index: int, parts: int) -> Batch:
        """The rows of one process of several."""
        here = slice(index * len(self.rows) // parts, (index + 1) * len(self.rows) // parts)
        return Batch(self.ids[here], self.mask[here], self.rows[here])

    def to(self, device: torch.device) -> Batch:
        return replace(self, ids=self.ids.to(device), mask=self.mask.to(device))


class Rows:
    """The data: token rows, with the predictions that count.

    Args:
        ids: (N, T) int64, T at least 2. Padding belongs on the right.
        mask: (N, T - 1) bool, or (N, T) whose first column, which nothing predicts, is dropped;
            True where a prediction counts. None counts all.
        vocabulary: of the models.

    Raises:
        ValueError: other shapes, an id outside the vocabulary, a row without a True.
        TypeError: ids that are not int64, a mask that is not bool.
    """

    def __init__(self, ids: Tensor, mask: Tensor | None, vocabulary: int) -> None:
        if not isinstance(ids, Tensor) or ids.dtype != torch.int64:
            kind = getattr(ids, "dtype", type(ids).__name__)
            raise TypeError(f"rows must be an int64 tensor of token ids, not {kind}")
        if ids.dim() != 2 or len(ids) == 0 or ids.shape[1] < 2:
            raise ValueError(
                f"rows has shape {tuple(ids.shape)}: give (rows, time), time at least 2, so that "
                "every row holds a token to predict"
            )
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= vocabulary:
            raise ValueError(
                f"rows holds token id {low if low < 0 else high}, outside the vocabulary of "
                f"{vocabulary}: encode the text with the models' own tokenizer"
            )
        if mask is None:
            mask = torch.ones(len(ids), ids.shape[1] - 1, dtype=torch.bool)
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            kind = getattr(mask, "dtype", type(mask).__name__)
            raise TypeError(f"mask must be a bool tensor, not {kind}: pass mask.bool()")
        if mask.shape == ids.shape:
            mask = mask[:, 1:]
        if mask.shape != (len(ids), ids.shape[1] - 1):
            raise ValueError(
                f"mask has shape {tuple(mask.shape)}: give {(len(ids), ids.shape[1] - 1)}, one "
                "truth value a predicted token"
            )
        empty = (~mask.any(1)).nonzero()
        if len(empty):
            raise ValueError(
                f"mask is False in all of row {int(empty[0])}: leave rows out that teach nothing"
            )
        self.ids, self.mask = ids.cpu(), mask.cpu()

    def __len__(self) -> int:
        return len(self.ids)

    def digest(self) -> str:
        """Of ids and mask: which data a checkpoint was trained on."""
        found = hashlib.sha256(str(tuple(self.ids.shape)).encode())
        for tensor in (self.ids, self.mask):
            found.update(tensor.contiguous().numpy().tobytes())
        return found.hexdigest()

    def at(self, step: int, size: int, seed: int) -> Batch:
        """The batch of a step: rows in a new seeded order every epoch, none left out."""
        return self.of(self.numbers(step, size, seed))

    def of(self, numbers: Tensor) -> Batch:
        """Some rows by their numbers (B,) int64."""
        return Batch(self.ids[numbers], self.mask[numbers], numbers)

    def numbers(self, step: int, size: int, seed: int) -> Tensor:
        """Row numbers of a step: (size,) int64."""
        places = range(step * size, (step + 1) * size)
        orders = {
            epoch: np.random.default_rng([seed, epoch]).permutation(len(self))
            for epoch in {place // len(self) for place in places}
        }
        return torch.tensor([int(orders[p // len(self)][p % len(self)]) for p in places])


def uniforms(seed: int, stream: int, step: int, rows: int, count: int) -> Tensor:
    """Numbers in [0, 1) for one purpose at one step: (rows, count) float64."""
    return torch.from_numpy(np.random.default_rng([seed, stream, step, 7]).random((rows, count)))
