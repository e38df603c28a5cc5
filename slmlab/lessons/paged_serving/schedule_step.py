"""paging.schedule_step: one step of continuous batching, within a token budget and free blocks."""

from __future__ import annotations

import random

from slmlab.checking import Case, Exact, Exercise, Mistake
from slmlab.lessons.paged_serving.schedule_plan import Plan, Rules, Running, blocks_for, opened


def cases(seed: int) -> list[Case]:
    """Decoding first, a prompt cut by the budget, no overtaking, a full batch, random queues."""
    draw = random.Random(seed)

    def case(
        running: Running, waiting: list[int], budget: int, free: int, batch: int = 8, size: int = 4
    ) -> Case:
        names = (
            "running",
            "waiting",
            "token_budget",
            "free_blocks",
            "max_batch",
            "block_size",
        )
        return Case(dict(zip(names, (running, waiting, budget, free, batch, size), strict=True)))

    def queue() -> Case:
        running = [[draw.randrange(4, 30), draw.choice((1, 1, 6, 11))] for _ in range(4)]
        waiting = [draw.randrange(1, 24) for _ in range(5)]
        budget = draw.randrange(4, 40)
        counts, _ = Rules()(running, [], budget, 0, 9, 4)
        needed = sum(opened(stored, count, 4) for (stored, _), count in zip(running, counts))
        return case(
            running, waiting, budget, needed + draw.randrange(0, 12), draw.choice((5, 6, 9))
        )

    n = draw.randrange(6, 9)
    return [
        case([], [5], 16, 2),
        case([], [5], 16, 1),
        case([], [4], 16, 1),
        case([[8, n], [5, 1]], [3], n, 9),
        case([[5, 1]], [n + 4], n, 9),
        case([[5, 1]], [n + 4], n, 2),
        case([[5, 1]], [13, 3], 32, 2),
        case([[5, 1], [6, 1]], [3, 3], 32, 9, batch=3),
        case([[4, 1], [6, 1]], [5, 3], 32, 3),
        case([[6, 1]], [4], 16, 1),
        case([[4, 1]], [4], 16, 1),
        case([[5, 1], [8, n]], [3], n, 9),
        *(queue() for _ in range(6)),
    ]


def reference(
    running: Running,
    waiting: list[int],
    token_budget: int,
    free_blocks: int,
    max_batch: int,
    block_size: int,
) -> Plan:
    """What the package's scheduler plans where nothing is shared and nobody has to give way.

    It keeps the one request in prefill the youngest, so there decoding comes first by itself.
    """
    return Rules()(running, waiting, token_budget, free_blocks, max_batch, block_size)


def _with_two_queues(
    running: Running,
    waiting: list[int],
    token_budget: int,
    free_blocks: int,
    max_batch: int,
    block_size: int,
) -> Plan:
    left = token_budget
    given: dict[int, int] = {}
    for decoding in (True, False):
        for place, (_, pending) in enumerate(running):
            if (pending == 1) == decoding:
                given[place] = min(pending, left)
                left -= given[place]
    lengths = [stored + given[place] for place, (stored, _) in enumerate(running)]
    before = sum(_ceil(stored, block_size) for stored, _ in running)
    free = free_blocks + before - sum(_ceil(length, block_size) for length in lengths)
    queue: list[int] = list(waiting)
    started: list[int] = []
    while queue and left > 0 and len(running) + len(started) < max_batch:
        if _ceil(queue[0], block_size) > free:
            break
        started.append(min(queue.pop(0), left))
        left -= started[-1]
        free -= _ceil(started[-1], block_size)
    return [given[place] for place in range(len(running))], started


def _ceil(tokens: int, size: int) -> int:
    return (tokens + size - 1) // size


SCHEDULE_STEP = Exercise(
    id="paging.schedule_step",
    title="One step of the scheduler",
    points=4,
    minutes=15,
    difficulty=3,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "in order of arrival",
            "A long prompt takes the budget before requests that decode: their streams stand still "
            "until it is done. Who comes first?",
            Rules(order=lambda pending: 0),
            (Rules(order=lambda pending: int(pending == 1)),),
        ),
        Mistake(
            "overtaking",
            "You skip the request that does not fit and admit a later one: while small ones keep "
            "coming, the large one waits for ever. What must happen when the first does not fit?",
            Rules(overtake=True),
        ),
        Mistake(
            "prompts never cut",
            "A prompt larger than what is left of the budget is not admitted, and the rest of the "
            "step goes unused. How much of it can run now?",
            Rules(cut=False),
        ),
        Mistake(
            "blocks for the chunk only",
            "You admit a request with blocks for its first chunk: it would run out in the middle of "
            "its prompt and be computed again. How many blocks must be free?",
            Rules(whole_prompt=False),
        ),
        Mistake(
            "blocks counted wrongly",
            "You count blocks otherwise. In blocks of four, the running [4, 1] takes one of the free "
            "ones and [6, 1] none; a prompt of 5 takes two, and one of 4 starts where one is free. "
            "Which of the four does your code see differently?",
            Rules(taken=lambda stored, count, size: 0),
            (
                Rules(taken=lambda stored, count, size: blocks_for(count, size)),
                Rules(taken=lambda stored, count, size: blocks_for(stored + count, size)),
                Rules(needed=lambda tokens, size: tokens // size),
                Rules(needed=lambda tokens, size: blocks_for(tokens + 1, size)),
                Rules(spared=1),
                Rules(kept=False),
            ),
        ),
        Mistake(
            "batch without a bound",
            "More requests run than max_batch: those that run already count too. When must admission "
            "stop?",
            Rules(bounded=False),
            (Rules(all_count=False),),
        ),
    ),
    hints=(
        "The counts never sum to more than the budget, who decodes always moves, nobody overtakes "
        "in the queue, and whoever starts has room for all of the prompt. Which one breaks?",
        "Budget 6, blocks of 4, 9 free. Running [8, 7] and [5, 1]: the second decodes, 1 token; the "
        "first gets the 5 that are left. Counts [5, 1]; no budget is left, so nobody is admitted.",
        "counts: those with 1 pending, then the others, each min(pending, budget left)\n"
        "free -= ceil((stored + count) / size) - ceil(stored / size) for each\n"
        "for each prompt in waiting order:\n"
        "    stop at no budget, a full batch, or ceil(prompt / size) > free\n"
        "    count = min(prompt, budget left); free -= ceil(count / size)",
    ),
    compare=Exact(),
    alternatives=(_with_two_queues,),
)
