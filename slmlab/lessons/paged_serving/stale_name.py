"""paging.stale_name: a block is overwritten and its old text's entry still leads to it."""

from __future__ import annotations

import random
from collections import OrderedDict

from slmlab.checking import Case, Exact, Exercise, Mistake

Served = list[list[int]]


def cases(seed: int) -> list[Case]:
    """One block taken over, then traffic with more texts than blocks."""
    draw = random.Random(seed)
    a, b, c, d = draw.sample(range(10, 99), 4)

    def case(texts: list[int], num_blocks: int) -> Case:
        return Case({"texts": texts, "num_blocks": num_blocks})

    def traffic(length: int, kinds: int, num_blocks: int) -> Case:
        return case([draw.choice((a, b, c, d)[:kinds]) for _ in range(length)], num_blocks)

    return [
        case([a, b, a], 1),
        case([a, a, b], 2),
        case([a, b, a, c, a], 2),
        case([a, b, c, a, b], 2),
        case([a, b, c, d, c, a], 3),
        # Read from the middle of the queue: b must outlive c.
        case([a, b, c, b, d, a, b], 3),
        traffic(12, 3, 2),
        traffic(20, 4, 3),
    ]


def reference(texts: list[int], num_blocks: int) -> Served:
    """The index forgets what is overwritten; blocks go to whoever needs one, oldest use first."""
    held: OrderedDict[int, int] = OrderedDict()  # text -> block, least recently used first
    served = []
    for text in texts:
        if text in held:
            held.move_to_end(text)
        else:
            block = len(held) if len(held) < num_blocks else held.popitem(last=False)[1]
            held[text] = block
        served.append([held[text], text])
    return served


def _run(
    texts: list[int],
    num_blocks: int,
    *,
    forget: str = "old",
    refresh: str = "always",
    newest_goes: bool = False,
    share: bool = True,
    overwrite: bool = False,
) -> Served:
    """The exercise's own loop with one thing changed."""
    index: dict[int, int] = {}
    holds: dict[int, int] = {}
    order = list(range(num_blocks))
    served = []
    for text in texts:
        block = index.get(text) if share else None
        hit = block is not None
        if block is None:
            block = order[-1] if newest_goes and len(holds) == num_blocks else order[0]
            if forget == "old":
                index.pop(holds.get(block, -1), None)
            elif forget == "all" or (forget == "all when full" and block in holds):
                index.clear()
            index[text], holds[block] = block, text
        elif overwrite:
            holds[block] = text
        if not hit or refresh == "always" or (refresh == "at the front" and block == order[0]):
            order.remove(block)
            order.append(block)
        served.append([block, holds[block]])
    return served


def _as_found(texts: list[int], num_blocks: int) -> Served:
    return _run(texts, num_blocks, forget="nothing")


def _all_forgotten(texts: list[int], num_blocks: int) -> Served:
    return _run(texts, num_blocks, forget="all when full")


def _all_forgotten_at_every_miss(texts: list[int], num_blocks: int) -> Served:
    return _run(texts, num_blocks, forget="all")


def _never_shared(texts: list[int], num_blocks: int) -> Served:
    return _run(texts, num_blocks, share=False)


def _covered_up(texts: list[int], num_blocks: int) -> Served:
    return _run(texts, num_blocks, forget="nothing", overwrite=True)


def _not_refreshed(texts: list[int], num_blocks: int) -> Served:
    return _run(texts, num_blocks, refresh="never")


def _refreshed_at_the_front(texts: list[int], num_blocks: int) -> Served:
    return _run(texts, num_blocks, refresh="at the front")


def _newest_goes(texts: list[int], num_blocks: int) -> Served:
    return _run(texts, num_blocks, newest_goes=True)


def _checked_when_read(texts: list[int], num_blocks: int) -> Served:
    index: dict[int, int] = {}
    holds: dict[int, int] = {}
    last_use = {block: block - num_blocks for block in range(num_blocks)}
    served = []
    for now, text in enumerate(texts):
        block = index.get(text)
        if block is None or holds[block] != text:
            block = min(last_use, key=lambda b: last_use[b])
            index[text] = block
            holds[block] = text
        last_use[block] = now
        served.append([block, holds[block]])
    return served


STALE_NAME = Exercise(
    id="paging.stale_name",
    title="Repair this: a freed block's name",
    points=3,
    minutes=10,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "the given bug",
            "The bug is still there: someone asks for a text and reads another one, because the "
            "index still names the block that was written over. Which entry is wrong from that "
            "moment on?",
            _as_found,
        ),
        Mistake(
            "everything forgotten",
            "The texts are right, and you forget every name: only the block that is overwritten "
            "loses its own, the others still hold what they say. Which entry is wrong?",
            _all_forgotten,
            (_all_forgotten_at_every_miss,),
        ),
        Mistake(
            "nothing shared any more",
            "The texts are right because you never look into the index: the second request for a "
            "text computes it again. Which look-ups are safe?",
            _never_shared,
        ),
        Mistake(
            "covered up",
            "You write the right text into the block that a stale entry names: its owner's text is "
            "gone, and that entry is stale now. What must happen when a block is taken over?",
            _covered_up,
        ),
        Mistake(
            "a hit does not count as a use",
            "The bug is gone, and now blocks are taken by age. A hit also counts as use: when does a "
            "block move to the end of the queue?",
            _not_refreshed,
            (_refreshed_at_the_front,),
        ),
        Mistake(
            "newest block taken",
            "You overwrite the block used last: it is the likeliest to be asked for again. Which end "
            "of the queue has waited longest?",
            _newest_goes,
        ),
    ),
    hints=(
        "Whoever was served before, a request reads the text that it asked for, and every entry of "
        "the index names a block that holds its text. Follow the second half through [1, 2, 1] with "
        "one block.",
        "One block, texts 1, 2, 1. The first writes 1 into block 0. The second takes block 0 over: "
        "the entry of 1 must go. The third finds no entry and writes again: "
        "[[0, 1], [0, 2], [0, 1]]. The given code ends in [0, 2].",
        "block = index.get(text)\n"
        "if none: block = front of the queue\n"
        "    drop the index entry of the text that the block holds, if it holds one\n"
        "    write the text, add its entry\n"
        "move the block to the end of the queue",
    ),
    compare=Exact(),
    alternatives=(_checked_when_read,),
)
