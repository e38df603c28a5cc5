"""paging.prefix_hits: the longest known prefix in full blocks, by a chain of hashes."""

from __future__ import annotations

import random

from slmlab.checking import Case, Exact, Exercise, Mistake
from slmlab.kv.prefix import PrefixIndex, block_hashes

Prompts = list[list[int]]


def cases(seed: int) -> list[Case]:
    """A shared block, a prompt seen whole, a twin under another parent, a gap, random traffic."""
    draw = random.Random(seed)
    a, b, c, d, e, f, g, h, x = draw.sample(range(10, 99), 9)

    def traffic(size: int) -> Prompts:
        heads = [[draw.randrange(5) for _ in range(3 * size)] for _ in range(3)]
        # Two heads that differ in their first block alone.
        heads[1][size:] = heads[0][size:]
        prompts = []
        for _ in range(9):
            cut = draw.randrange(1, 3 * size + 1)
            prompts.append(draw.choice(heads)[:cut] + [draw.randrange(5) for _ in range(2)])
        return [*prompts, heads[0], heads[0]]

    return [
        Case({"prompts": [[a, b, c], [a, b, d]], "block_size": 2}),
        Case({"prompts": [[a, b, c, d], [a, b, c, d]], "block_size": 2}),
        Case({"prompts": [[a, b, c, d, x], [e, f, g, h, x], [a, b, g, h, x]], "block_size": 2}),
        Case({"prompts": [[a, b, c, d, x], [e, f, c, d, x]], "block_size": 2}),
        Case({"prompts": [[a, b, c, d, x], [e], [a, b, c, d, x]], "block_size": 2}),
        Case({"prompts": traffic(2), "block_size": 2}),
        Case({"prompts": traffic(4), "block_size": 4}),
    ]


def reference(prompts: Prompts, block_size: int) -> list[int]:
    """By the package's index; the last token of a prompt is never taken."""
    index, taken = PrefixIndex(), []
    for block, prompt in enumerate(prompts):
        taken.append(len(index.longest(prompt[:-1], block_size)) * block_size)
        for place, name in enumerate(block_hashes(prompt, block_size)):
            index.add(1000 * block + place, name)
    return taken


def _full_blocks(prompt: list[int], size: int) -> list[tuple[int, ...]]:
    return [tuple(prompt[s : s + size]) for s in range(0, len(prompt) - size + 1, size)]


def _without_parent(prompts: Prompts, block_size: int) -> list[int]:
    known: set[tuple[int, ...]] = set()
    taken = []
    for prompt in prompts:
        count = 0
        for block in _full_blocks(prompt[:-1], block_size):
            if block not in known:
                break
            count += 1
        taken.append(count * block_size)
        known.update(_full_blocks(prompt, block_size))
    return taken


def _place_for_parent(prompts: Prompts, block_size: int) -> list[int]:
    known: set[tuple[int, tuple[int, ...]]] = set()
    taken = []
    for prompt in prompts:
        count = 0
        for named in enumerate(_full_blocks(prompt[:-1], block_size)):
            if named not in known:
                break
            count += 1
        taken.append(count * block_size)
        known.update(enumerate(_full_blocks(prompt, block_size)))
    return taken


def _anywhere(prompts: Prompts, block_size: int) -> list[int]:
    known: set[tuple[int, ...]] = set()
    taken = []
    for prompt in prompts:
        blocks = _full_blocks(prompt[:-1], block_size)
        taken.append(block_size * sum(block in known for block in blocks))
        known.update(_full_blocks(prompt, block_size))
    return taken


def _common(one: list[int], other: list[int]) -> int:
    for i, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return i
    return min(len(one), len(other))


def _token_by_token(prompts: Prompts, block_size: int) -> list[int]:
    return [
        max((_common(prompt[:-1], earlier) for earlier in prompts[:i]), default=0)
        for i, prompt in enumerate(prompts)
    ]


def _whole_prompt(prompts: Prompts, block_size: int) -> list[int]:
    return [
        max((_common(p, q[: len(q) // block_size * block_size]) for q in prompts[:i]), default=0)
        // block_size
        * block_size
        for i, p in enumerate(prompts)
    ]


def _only_the_one_before(prompts: Prompts, block_size: int) -> list[int]:
    return [reference(prompts[max(i - 1, 0) : i + 1], block_size)[-1] for i in range(len(prompts))]


def _last_block_never(prompts: Prompts, block_size: int) -> list[int]:
    taken = reference(prompts, block_size)
    return [
        min(t, max(len(p) // block_size - 1, 0) * block_size)
        for t, p in zip(taken, prompts, strict=True)
    ]


def _by_whole_beginnings(prompts: Prompts, block_size: int) -> list[int]:
    known: set[tuple[int, ...]] = set()
    taken = []
    for prompt in prompts:
        ends = range(block_size, len(prompt) + 1, block_size)
        beginnings = [tuple(prompt[:end]) for end in ends]
        fits = [len(b) for b in beginnings if b in known and len(b) < len(prompt)]
        taken.append(max(fits, default=0))
        known.update(beginnings)
    return taken


PREFIX_HITS = Exercise(
    id="paging.prefix_hits",
    title="The longest shared prefix",
    points=4,
    minutes=12,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "hash without the parent",
            "You take a block that stood behind another beginning: its keys and values were "
            "computed with that beginning in view. What besides its own tokens must its name hold?",
            _without_parent,
            (_place_for_parent,),
        ),
        Mistake(
            "blocks anywhere counted",
            "You count known blocks behind an unknown one: a prefix ends at the first block that is "
            "not known. What must your loop do there?",
            _anywhere,
        ),
        Mistake(
            "part of a block counted",
            "You count tokens, and only full blocks have a name: the request that owns a part still "
            "writes to it. By what can your answer always be divided?",
            _token_by_token,
        ),
        Mistake(
            "no token left to compute",
            "A prompt that is known whole is taken whole, and then nothing gives the logits of the "
            "next token. How many of its tokens may be taken at most?",
            _whole_prompt,
        ),
        Mistake(
            "only the request before",
            "You compare with the request just before: the index keeps the blocks of all earlier "
            "ones. When do you empty it?",
            _only_the_one_before,
        ),
        Mistake(
            "last full block never taken",
            "You leave out the last full block even where tokens follow it: those tokens are enough "
            "to compute. Of which prompts must you hold a block back?",
            _last_block_never,
        ),
    ),
    hints=(
        "What you take is a whole number of blocks, equal to the beginning of some earlier prompt "
        "token by token, and less than the whole prompt. Which of the three breaks?",
        "Blocks of 2. Prompt [1, 2, 3] leaves the block (1, 2). Prompt [1, 2] would take it, but then "
        "none of its tokens were left: 0. Prompt [1, 2, 9]: the block is known and 9 is left: 2.",
        "for each prompt:\n"
        "    parent = start; for each full block: parent = name = hash(parent, its tokens)\n"
        "    take names from the first on while known, at most (length - 1) // block_size of them\n"
        "    then make all its names known\n"
        "tokens taken = blocks taken * block_size",
    ),
    compare=Exact(),
    alternatives=(_by_whole_beginnings,),
)
