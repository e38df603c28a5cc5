"""paging.slot_mapping: where the new tokens of a ragged batch go, through the block tables."""

from __future__ import annotations

import random

from slmlab.checking import Case, Exact, Exercise, Mistake

Tables = list[list[int]]


def cases(seed: int) -> list[Case]:
    """One token, one in a later block, a chunk over a block's edge, then ragged batches."""
    draw = random.Random(seed)

    def case(stored: list[int], counts: list[int], size: int) -> Case:
        needed = [-(-(s + c) // size) for s, c in zip(stored, counts, strict=True)]
        free = draw.sample(range(2, 2 + 3 * sum(needed)), sum(needed))
        # A table in rising order from 0 would hide who forgot to look into it.
        tables = [[free.pop() for _ in range(n)] for n in needed]
        names = ("block_tables", "stored", "counts", "block_size")
        return Case(dict(zip(names, (tables, stored, counts, size), strict=True)))

    return [
        case([draw.choice((1, 2))], [1], 4),
        case([4 + draw.choice((1, 2))], [1], 4),
        case([3], [2], 4),
        case([5, draw.choice((2, 3))], [1, 1], 4),
        case([4, 0, 9], [1, draw.choice((5, 6)), 2], 4),
        case([draw.randrange(12) for _ in range(4)], [1, 3, 1, draw.randrange(2, 9)], 3),
    ]


def reference(
    block_tables: Tables, stored: list[int], counts: list[int], block_size: int
) -> list[int]:
    """Token t of a sequence lies in block table[t // size] at offset t % size."""
    return [
        table[t // block_size] * block_size + t % block_size
        for table, start, count in zip(block_tables, stored, counts, strict=True)
        for t in range(start, start + count)
    ]


def _from_zero(
    block_tables: Tables, stored: list[int], counts: list[int], block_size: int
) -> list[int]:
    return reference(block_tables, [0] * len(stored), counts, block_size)


def _block_not_scaled(
    block_tables: Tables, stored: list[int], counts: list[int], block_size: int
) -> list[int]:
    return [
        table[t // block_size] + t % block_size
        for table, start, count in zip(block_tables, stored, counts, strict=True)
        for t in range(start, start + count)
    ]


def _no_table(
    block_tables: Tables, stored: list[int], counts: list[int], block_size: int
) -> list[int]:
    return [t for s, c in zip(stored, counts, strict=True) for t in range(s, s + c)]


def _one_late(
    block_tables: Tables, stored: list[int], counts: list[int], block_size: int
) -> list[int]:
    # Behind the table's end the last block stands in, as a padded table would have it.
    padded = [[*table, table[-1]] for table in block_tables]
    return reference(padded, [s + 1 for s in stored], counts, block_size)


def _first_block_throughout(
    block_tables: Tables, stored: list[int], counts: list[int], block_size: int
) -> list[int]:
    return [
        table[start // block_size] * block_size + start % block_size + i
        for table, start, count in zip(block_tables, stored, counts, strict=True)
        for i in range(count)
    ]


def _behind_the_first_block(
    block_tables: Tables, stored: list[int], counts: list[int], block_size: int
) -> list[int]:
    return [
        table[0] * block_size + t
        for table, start, count in zip(block_tables, stored, counts, strict=True)
        for t in range(start, start + count)
    ]


def _first_table_for_all(
    block_tables: Tables, stored: list[int], counts: list[int], block_size: int
) -> list[int]:
    size = block_size
    return [
        block_tables[0][min(t // size, len(block_tables[0]) - 1)] * size + t % size
        for start, count in zip(stored, counts, strict=True)
        for t in range(start, start + count)
    ]


def _by_unrolled_tables(
    block_tables: Tables, stored: list[int], counts: list[int], block_size: int
) -> list[int]:
    slots: list[int] = []
    for table, start, count in zip(block_tables, stored, counts, strict=True):
        every = [block * block_size + offset for block in table for offset in range(block_size)]
        slots += every[start : start + count]
    return slots


SLOT_MAPPING = Exercise(
    id="paging.slot_mapping",
    title="Slots of a ragged batch",
    points=3,
    minutes=8,
    difficulty=1,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "counted from the start",
            "Your new tokens land on the sequence's first ones: what is stored already comes before "
            "them. At which position does the first new token stand?",
            _from_zero,
        ),
        Mistake(
            "block number as a slot",
            "You add the offset to the number of the block: block 7 begins at slot 7 * block_size. "
            "At which slot does it end?",
            _block_not_scaled,
        ),
        Mistake(
            "table not used",
            "Your slots are the positions themselves: that is a contiguous cache. Which block of the "
            "pool holds the sequence's block t // block_size?",
            _no_table,
        ),
        Mistake(
            "one position late",
            "Every token goes one place too far: with n tokens stored the next position is n, "
            "counted from 0. What do you add?",
            _one_late,
        ),
        Mistake(
            "over the edge of the block",
            "You continue behind a block into its neighbour in the pool: with blocks of 4, position 5 "
            "lies in the table's second block, wherever that is. When must you look into the table "
            "again?",
            _first_block_throughout,
            (_behind_the_first_block,),
        ),
        Mistake(
            "one table for all",
            "The first sequence is right and the others write into its blocks: each has a table of "
            "its own. Whose table do you read?",
            _first_table_for_all,
        ),
    ),
    hints=(
        "No two tokens share a slot, and slot // block_size is always a block of the token's own "
        "table. Which of the two breaks?",
        "Table [7, 2], 3 tokens stored, 2 new, blocks of 4. Position 3: table[0] = 7, offset 3, slot "
        "31. Position 4: table[1] = 2, offset 0, slot 8. Answer [31, 8].",
        "for each sequence, for each position from stored to stored + count - 1:\n"
        "    block = table[position // block_size]\n"
        "    slot = block * block_size + position % block_size\n"
        "all in one list, sequence after sequence",
    ),
    compare=Exact(),
    alternatives=(_by_unrolled_tables,),
)
