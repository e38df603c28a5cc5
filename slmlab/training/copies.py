"""Rows in which a passage is repeated: what comes next stands in the row already.

Their loss falls by copying alone, so they keep an induction circuit (slmlab.training.initialisation)
at work while the rest of the decoder learns which words there are.
"""

from __future__ import annotations

import numpy as np

from slmlab.training.batches import Rows

COPIED_ROWS = 4096
SHORTEST_PASSAGE = 16


def copied_rows(sources: dict[str, Rows], count: int, seed: int) -> Rows:
    """Passages of the sources' rows, each repeated until a row is full: (count, length + 1).

    Args:
        sources: token rows of equal width, used in turn.
        count: rows to make.
        seed: of the choice of passages, whose length lies between SHORTEST_PASSAGE and a quarter
            of a row.
    """
    generator = np.random.default_rng([seed, len(sources)])
    pool = [rows for _, rows in sorted(sources.items())]
    width = pool[0].shape[1]
    longest = max(1, width // 4)
    made = np.empty((count, width), dtype=np.uint16)
    for index in range(count):
        rows = pool[index % len(pool)]
        row = rows[generator.integers(len(rows))]
        length = int(generator.integers(min(SHORTEST_PASSAGE, longest), longest + 1))
        start = int(generator.integers(width - length + 1))
        made[index] = np.resize(row[start : start + length], width)
    return made
