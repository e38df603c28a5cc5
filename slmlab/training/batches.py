"""Batches as a pure function of the recipe and the step.

Nothing has to be remembered to resume: step 700 of a run that was interrupted sees the same
rows as step 700 of one that was not.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slmlab.training.recipe import Recipe
from slmlab.training.stage import SOURCES

Rows = NDArray[np.uint16]


def cut_rows(documents: Iterable[list[int]], length: int, end_of_text: int) -> Rows:
    """Join documents with end-of-text ids and cut rows of ``length`` + 1: (rows, length + 1)."""
    stream: list[int] = []
    for ids in documents:
        stream.extend(ids)
        stream.append(end_of_text)
    count = (len(stream) - 1) // length
    if count < 1:
        raise ValueError(f"{len(stream)} tokens are too few for one row of {length + 1}")
    # Neighbouring rows share one token: the last target of a row is the first input of the next.
    starts = np.arange(count)[:, None] * length + np.arange(length + 1)
    return np.asarray(stream, dtype=np.uint16)[starts]


def pack_rows(documents: Iterable[list[int]], length: int, end_of_text: int, tokens: int) -> Rows:
    """Like :func:`cut_rows`, but every row begins with a document, until ``tokens`` are used.

    The tail of the last document in a row is dropped: short documents are cheap, and a row that
    starts in the middle of one asks for what its context cannot tell.
    """
    rows: list[list[int]] = []
    row: list[int] = []
    for ids in documents:
        row.extend(ids)
        row.append(end_of_text)
        if len(row) > length:
            rows.append(row[: length + 1])
            row = []
            if len(rows) * length >= tokens:
                break
    if not rows:
        raise ValueError(f"the documents do not fill one row of {length + 1} tokens")
    return np.asarray(rows, dtype=np.uint16)


def save_rows(path: Path, rows: Rows) -> None:
    partial = path.with_suffix(".partial.npy")
    np.save(partial, rows, allow_pickle=False)
    partial.replace(path)


def load_rows(path: Path) -> Rows:
    """Memory-mapped, so that a corpus larger than memory can be used.

    Raises ValueError for a file that is damaged or holds something else.
    """
    try:
        rows: Rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be read ({error}): delete it to make it again") from None
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint16 or rows.ndim != 2:
        raise ValueError(f"{path} holds no token rows: delete it to make it again")
    return rows


class Batches:
    """Draws each source's rows in a seeded order, reshuffled every pass over it.

    Raises ValueError where a source is missing or its rows are not ``sequence_length`` + 1 wide.
    """

    def __init__(self, recipe: Recipe, sources: dict[str, Rows]) -> None:
        missing = set(recipe.sources) - set(sources)
        if missing:
            raise ValueError(f"no rows for source {sorted(missing)[0]!r} of recipe {recipe.name}")
        wanted = recipe.sequence_length + 1
        for source in recipe.sources:
            shape = sources[source].shape
            if len(shape) != 2 or shape[0] < 1 or shape[1] != wanted:
                raise ValueError(
                    f"rows of source {source!r} must have the shape (at least 1, {wanted}) for "
                    f"sequence_length {recipe.sequence_length}, got {shape}"
                )
        self.recipe = recipe
        self.sources = sources
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a step: (rows * pieces, sequence_length / pieces) int64 each."""
        parts = []
        stage = self.recipe.stage_at(step)
        for source, count in sorted(stage.rows.items()):
            rows, index = self.sources[source], SOURCES.index(source)
            first = self.recipe.rows_before(step, source)
            for position in range(first, first + count):
                epoch, place = divmod(position, len(rows))
                order = self._order(index, epoch, len(rows))
                parts.append(rows[order[place]])
        block = torch.from_numpy(np.stack(parts).astype(np.int64))
        length = self.recipe.sequence_length // stage.pieces
        return block[:, :-1].reshape(-1, length), block[:, 1:].reshape(-1, length)

    def _order(self, source: int, epoch: int, count: int) -> NDArray[np.int64]:
        known = self._orders.get(source)
        if known is None or known[0] != epoch:
            generator = np.random.default_rng([self.recipe.seed, source, epoch])
            known = self._orders[source] = (epoch, generator.permutation(count))
        return known[1]
