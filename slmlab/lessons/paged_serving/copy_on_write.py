"""paging.copy_on_write: two sequences share a block and one of them writes."""

from __future__ import annotations

import random
from typing import Any

from slmlab.checking import Case, Exact, Exercise, Mistake
from slmlab.kv import BlockPool, PagedCache

Trace = list[list[Any]]
Outcome = dict[str, Any]
EMPTY = -1  # what an unwritten place holds


def cases(seed: int) -> list[Case]:
    """A fork alone, both write after it, the same token too, a block's edge, random traces."""
    draw = random.Random(seed)
    a, b, c, d = draw.sample(range(10, 99), 4)

    def case(trace: Trace, size: int) -> Case:
        return Case({"trace": trace, "block_size": size})

    def random_trace(length: int) -> Trace:
        trace: Trace = [["append", 0, draw.randrange(10, 99)]]
        sequences = 1
        for _ in range(length):
            if sequences < 4 and draw.random() < 0.25:
                trace.append(["fork", draw.randrange(sequences), 0])
                sequences += 1
            else:
                trace.append(["append", draw.randrange(sequences), draw.randrange(10, 99)])
        return trace

    start: Trace = [["append", 0, a], ["fork", 0, 0]]
    return [
        case(start, 2),
        case([*start, ["append", 0, b], ["append", 1, c]], 2),
        # Two blocks with one content: what counts is who wrote where, not what stands there.
        case([*start, ["append", 0, b], ["append", 1, b]], 2),
        case([*start, ["append", 1, b], ["append", 0, c]], 2),
        case([*start, ["append", 0, b], ["append", 1, c]], 1),
        case([*start, ["fork", 0, 0], ["append", 1, b], ["append", 0, c], ["append", 2, d]], 3),
        case([*start, ["append", 0, b], ["append", 0, c], ["append", 1, d], ["append", 1, b]], 3),
        case(random_trace(14), 2),
        case(random_trace(20), 4),
    ]


class _Config:
    """The smallest shape a pool takes: a key is one number, the token itself."""

    num_hidden_layers = num_attention_heads = num_key_value_heads = head_dim = 1
    hidden_size = 1


def reference(trace: Trace, block_size: int) -> Outcome:
    """The package's caches: a key of one number stands for its token."""
    import torch

    pool = BlockPool(_Config(), num_blocks=1 + 2 * len(trace), block_size=block_size)
    caches = [PagedCache(pool)]
    for what, sequence, token in trace:
        if what == "fork":
            caches.append(caches[sequence].fork())
        else:
            key = torch.full((1, 1, 1, 1), float(token))
            caches[sequence].append(0, key, key)
    texts = []
    for cache in caches:
        keys = pool.keys[0, 0][cache.block_table].flatten()[: cache.length]
        texts.append([int(key) for key in keys.tolist()])
    # A copy is made only while others hold the old block, so none is ever given back.
    return {"texts": texts, "blocks": pool.num_used}


def _run(
    trace: Trace,
    size: int,
    *,
    copy_when: str = "shared",
    copy_at_fork: str = "nothing",
    content: str = "copied",
    release: bool = True,
) -> Outcome:
    """The exercise's own loop with one thing changed."""
    blocks: list[list[int]] = []
    users: list[int] = []
    tables: list[list[int]] = [[]]
    lengths = [0]

    def new(content: list[int]) -> int:
        blocks.append(content)
        users.append(1)
        return len(blocks) - 1

    def forked(table: list[int], length: int) -> list[int]:
        full = {"nothing": len(table), "part": length // size, "all": 0}[copy_at_fork]
        for block in table[:full]:
            users[block] += 1
        return [*table[:full], *(new(list(blocks[block])) for block in table[full:])]

    for what, s, token in trace:
        if what == "fork":
            tables.append(forked(tables[s], lengths[s]))
            lengths.append(lengths[s])
            continue
        offset = lengths[s] % size
        if offset == 0:
            tables[s].append(new([EMPTY] * size))
        elif copy_when == "always" or (copy_when == "shared" and users[tables[s][-1]] > 1):
            old = tables[s][-1]
            users[old] -= release
            copies = {"copied": blocks[old][:], "empty": [EMPTY] * size, "same": blocks[old]}
            tables[s][-1] = new(copies[content])
        blocks[tables[s][-1]][offset] = token
        lengths[s] += 1
    texts = [
        [blocks[table[t // size]][t % size] for t in range(length)]
        for table, length in zip(tables, lengths, strict=True)
    ]
    return {"texts": texts, "blocks": len(blocks)}


def _as_found(trace: Trace, block_size: int) -> Outcome:
    return _run(trace, block_size, copy_when="never")


def _copied_at_fork(trace: Trace, block_size: int) -> Outcome:
    return _run(trace, block_size, copy_at_fork="all")


def _part_copied_at_fork(trace: Trace, block_size: int) -> Outcome:
    return _run(trace, block_size, copy_at_fork="part")


def _not_released(trace: Trace, block_size: int) -> Outcome:
    return _run(trace, block_size, release=False)


def _tokens_lost(trace: Trace, block_size: int) -> Outcome:
    return _run(trace, block_size, content="empty")


def _one_list(trace: Trace, block_size: int) -> Outcome:
    return _run(trace, block_size, content="same")


def _one_list_and_not_released(trace: Trace, block_size: int) -> Outcome:
    return _run(trace, block_size, content="same", release=False)


def _always_copied(trace: Trace, block_size: int) -> Outcome:
    return _run(trace, block_size, copy_when="always")


def _shared_by_counting(trace: Trace, block_size: int) -> Outcome:
    blocks: dict[int, dict[int, int]] = {}
    tables: list[list[int]] = [[]]
    texts: list[list[int]] = [[]]
    for what, s, token in trace:
        if what == "fork":
            tables.append(tables[s][:])
            texts.append(texts[s][:])
            continue
        offset = len(texts[s]) % block_size
        holders = sum(table[-1:] == tables[s][-1:] for table in tables)
        if offset == 0:
            tables[s] = [*tables[s], len(blocks)]
            blocks[len(blocks)] = {}
        elif holders > 1 or any(tables[s][-1] in t for t in tables if t is not tables[s]):
            blocks[len(blocks)] = dict(blocks[tables[s][-1]])
            tables[s] = [*tables[s][:-1], len(blocks) - 1]
        blocks[tables[s][-1]][offset] = token
        texts[s] = [*texts[s], token]
    return {"texts": texts, "blocks": len({block for table in tables for block in table})}


COPY_ON_WRITE = Exercise(
    id="paging.copy_on_write",
    title="Repair this: a write into a shared block",
    points=4,
    minutes=12,
    difficulty=3,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "the given bug",
            "The bug is still there: after a fork both sequences write into one block, and the "
            "second write replaces the first one's token. What must happen before a write where "
            "`users` is above 1?",
            _as_found,
        ),
        Mistake(
            "copied at the fork",
            "The texts are right, and your fork takes blocks before anybody writes: it may be that "
            "nobody does. Which block has to be copied, and when?",
            _copied_at_fork,
            (_part_copied_at_fork,),
        ),
        Mistake(
            "the old block keeps its count",
            "The texts are right and the last holder copies a block that nobody else has any more: "
            "whoever leaves a block must say so. Which count goes down?",
            _not_released,
        ),
        Mistake(
            "the copy is empty",
            "The writer gets a block of its own without the tokens that stood in the old one. What "
            "does the copy of copy-on-write copy?",
            _tokens_lost,
        ),
        Mistake(
            "one list under two numbers",
            "The writer has a new block number, but both numbers point at one list. What copies a "
            "list's content?",
            _one_list,
            (_one_list_and_not_released,),
        ),
        Mistake(
            "copied at every write",
            "The texts are right, and every token costs a new block, shared or not. When may a "
            "sequence write in place?",
            _always_copied,
        ),
    ),
    hints=(
        "Every sequence reads back what was appended to it and to its ancestor before the fork, and "
        "a block with two holders never changes. Where does the second half break?",
        "Blocks of 2: append 5 to sequence 0, fork it, append 6 to 0, append 7 to 1. The write of 6 "
        "finds two holders: copy [5], count down, write. The write of 7 finds one holder: in place. "
        "Texts [5, 6] and [5, 7], 2 blocks.",
        "before writing at an offset above 0:\n"
        "    block = last block of the table\n"
        "    if users[block] > 1: users[block] -= 1\n"
        "        new block = a copy of its content, with one user\n"
        "        the table's last entry = the new block\n"
        "write",
    ),
    compare=Exact(),
    alternatives=(_shared_by_counting,),
)
