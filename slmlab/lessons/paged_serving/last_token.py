"""paging.last_token: a fully cached prompt leaves no query, and so no logits."""

from __future__ import annotations

import random

from slmlab.checking import Case, Exact, Exercise, Mistake

Plan = tuple[int, list[list[int]]]


def cases(seed: int) -> list[Case]:
    """Nothing cached, all of it, all but a rest, one block, several chunks."""
    draw = random.Random(seed)
    size = draw.choice((4, 8))

    def case(tokens: int, cached: int, chunk: int = 100, block_size: int = size) -> Case:
        names = ("prompt_tokens", "cached_blocks", "block_size", "chunk")
        return Case(dict(zip(names, (tokens, cached, block_size, chunk), strict=True)))

    blocks = draw.randrange(3, 6)
    rest = draw.randrange(1, size)
    return [
        case(2 * size, 2),
        case(size, 1),
        case(2 * size + rest, 2),
        case(blocks * size, blocks, 3),
        case(blocks * size, blocks - 1, 3),
        case(blocks * size + rest, 1, draw.choice((5, 7))),
        case(blocks * size + 1, 0, draw.choice((5, 7))),
    ]


def _chunks(start: int, prompt_tokens: int, chunk: int) -> list[list[int]]:
    return [[s, min(s + chunk, prompt_tokens)] for s in range(start, prompt_tokens, chunk)]


def reference(prompt_tokens: int, cached_blocks: int, block_size: int, chunk: int) -> Plan:
    """Whole blocks, as many as leave at least one token to compute."""
    taken = min(cached_blocks, (prompt_tokens - 1) // block_size)
    return taken, _chunks(taken * block_size, prompt_tokens, chunk)


def _as_found(prompt_tokens: int, cached_blocks: int, block_size: int, chunk: int) -> Plan:
    return cached_blocks, _chunks(cached_blocks * block_size, prompt_tokens, chunk)


def _always_one_less(prompt_tokens: int, cached_blocks: int, block_size: int, chunk: int) -> Plan:
    taken = max(cached_blocks - 1, 0)
    return taken, _chunks(taken * block_size, prompt_tokens, chunk)


def _last_full_block_held(
    prompt_tokens: int, cached_blocks: int, block_size: int, chunk: int
) -> Plan:
    taken = min(cached_blocks, prompt_tokens // block_size - 1)
    return taken, _chunks(taken * block_size, prompt_tokens, chunk)


def _into_a_shared_block(
    prompt_tokens: int, cached_blocks: int, block_size: int, chunk: int
) -> Plan:
    start = min(cached_blocks * block_size, prompt_tokens - 1)
    return cached_blocks, _chunks(start, prompt_tokens, chunk)


def _block_dropped_one_token_computed(
    prompt_tokens: int, cached_blocks: int, block_size: int, chunk: int
) -> Plan:
    taken = min(cached_blocks, (prompt_tokens - 1) // block_size)
    start = min(cached_blocks * block_size, prompt_tokens - 1)
    return taken, _chunks(start, prompt_tokens, chunk)


def _all_given_up(prompt_tokens: int, cached_blocks: int, block_size: int, chunk: int) -> Plan:
    taken = 0 if cached_blocks * block_size == prompt_tokens else cached_blocks
    return taken, _chunks(taken * block_size, prompt_tokens, chunk)


def _past_the_end(prompt_tokens: int, cached_blocks: int, block_size: int, chunk: int) -> Plan:
    taken, chunks = reference(prompt_tokens, cached_blocks, block_size, chunk)
    return taken, [[start, start + chunk] for start, _ in chunks]


def _in_one_chunk(prompt_tokens: int, cached_blocks: int, block_size: int, chunk: int) -> Plan:
    taken, _ = reference(prompt_tokens, cached_blocks, block_size, chunk)
    return taken, [[taken * block_size, prompt_tokens]]


def _one_block_back(prompt_tokens: int, cached_blocks: int, block_size: int, chunk: int) -> Plan:
    taken = cached_blocks
    if taken * block_size >= prompt_tokens:
        taken -= 1
    chunks, start = [], taken * block_size
    while start < prompt_tokens:
        end = min(start + chunk, prompt_tokens)
        chunks.append([start, end])
        start = end
    return taken, chunks


LAST_TOKEN = Exercise(
    id="paging.last_token",
    title="Repair this: a prompt known whole",
    points=2,
    minutes=6,
    difficulty=1,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "the given bug",
            "The bug is still there: a prompt whose blocks are all known is given no chunk, so no "
            "token runs and nothing says what comes next. What must at least be left to compute?",
            _as_found,
        ),
        Mistake(
            "always one block less",
            "You give up a block even where other tokens are left to compute: that is work done "
            "twice for every request. In which case alone must a block go?",
            _always_one_less,
            (_last_full_block_held,),
        ),
        Mistake(
            "writes into a shared block",
            "You compute the last token and still take its block: its keys would be written into a "
            "block that others read. Which blocks may hold no token that you compute?",
            _into_a_shared_block,
        ),
        Mistake(
            "a hole before the last token",
            "You give the last block back and compute its last token only: the tokens before it in "
            "that block are then stored nowhere. Where must the first chunk begin?",
            _block_dropped_one_token_computed,
        ),
        Mistake(
            "all blocks given up",
            "You compute the whole prompt again: one block given up leaves enough to compute. How "
            "many of the others stay true?",
            _all_given_up,
        ),
        Mistake(
            "chunks cut wrongly",
            "The blocks are right and the chunks are not: each has `chunk` tokens, and the last one "
            "only what is left of the prompt. Where does each of yours end?",
            _past_the_end,
            (_in_one_chunk,),
        ),
    ),
    hints=(
        "The chunks follow on the blocks without a hole, end with the prompt, and there is at least "
        "one. Which of the three fails for a prompt of two blocks that are both known?",
        "8 tokens, both blocks of 4 known: taking 2 would leave nothing. Take 1 and compute "
        "[4, 8]. With 9 tokens take both and compute [8, 9].",
        "taken = the smaller of cached_blocks and (prompt_tokens - 1) // block_size\n"
        "chunks from taken * block_size to prompt_tokens, `chunk` tokens each, the last one shorter",
    ),
    compare=Exact(),
    alternatives=(_one_block_back,),
)
