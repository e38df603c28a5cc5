"""paging.choose_block: the block size that needs least memory within a budget of time."""

from __future__ import annotations

import itertools
import random
from typing import Any

from slmlab.checking import Case, Exact, Exercise, Invariant, Mistake

# Two sizes whose memory differs by less are equally good.
CLOSE = 1.02


def cases(seed: int) -> list[Case]:
    """Room for small blocks, none for them, for nothing; shared heads; blocks that fit exactly."""
    draw = random.Random(seed)

    def case(lengths: list[int], shared: int, sizes: list[int], budget: float) -> Case:
        names = ("lengths", "shared", "sizes", "us_per_block", "budget_us")
        return Case(dict(zip(names, (lengths, shared, sizes, 0.5, budget), strict=True)))

    def exact() -> Case:
        step = draw.choice((12, 20))
        lengths = [step * draw.randrange(2, 6) for _ in range(4)]
        return case(lengths, 0, [8, step, 16], 0.5 * _entries(lengths, 8))

    def traffic(shared: int, sizes: list[int], affordable: int) -> Case:
        while True:
            lengths = [shared + draw.randrange(3, 90) for _ in range(6)]
            built = case(lengths, shared, sizes, 0.5 * _entries(lengths, affordable) + 0.25)
            if _clear(built.arguments):
                return built

    n = draw.randrange(1, 4)
    return [
        case([8 + n], 0, [8, 2], 3.5),
        case([8 + n], 0, [8, 2], 1.5),
        case([8 + n], 0, [8, 2], 0.5),
        case([20, 19 + draw.choice((0, 1))], 16, [12, 8], 3.0),
        case([20, 19], 16, [12, 8], 2.5),
        # Blocks of 24 waste less and share nothing of a common beginning of 22.
        case([draw.randrange(41, 48) for _ in range(6)], 22, [24, 20], 99.0),
        exact(),
        traffic(0, [4, 8, 16, 64], 16),
        traffic(48 + draw.randrange(1, 8), [4, 16, 64], 16),
        traffic(48 + draw.randrange(1, 8), [64, 48, 20], 48),
        traffic(50 + draw.randrange(1, 8), [20, 24, 64], 20),
    ]


def _ceil(tokens: int, size: int) -> int:
    return -(-tokens // size)


def _entries(lengths: list[int], size: int) -> int:
    return sum(_ceil(length, size) for length in lengths)


def _places(lengths: list[int], shared: int, size: int) -> int:
    once = shared // size
    return size * (sum(_ceil(length, size) - once for length in lengths) + once)


def _clear(arguments: dict[str, Any]) -> bool:
    """No size is nearly as good as the best one that fits, so that rounding decides nothing."""
    lengths, shared = arguments["lengths"], arguments["shared"]
    places = sorted(_places(lengths, shared, size) for size in arguments["sizes"])
    return all(b > CLOSE**2 * a for a, b in itertools.pairwise(places))


def least_memory_that_fits(arguments: dict[str, Any], output: Any) -> str | None:
    """None where `output` keeps the budget and no size that does needs clearly less memory."""
    lengths, shared, sizes = (arguments[name] for name in ("lengths", "shared", "sizes"))

    def time(size: int) -> float:
        return float(_entries(lengths, size) * arguments["us_per_block"])

    def places(size: int) -> int:
        return _places(lengths, shared, size)

    fitting = [size for size in sizes if time(size) <= arguments["budget_us"]]
    if output is None:
        return f"You return None, and blocks of {fitting[0]} keep the budget." if fitting else None
    if type(output) is not int or output not in sizes:
        return "Return one of sizes, an int, or None where none fits."
    if output not in fitting:
        return (
            f"With blocks of {output} a step spends {time(output):g} microseconds on its tables, "
            f"and the budget is {arguments['budget_us']:g}."
        )
    best = min(fitting, key=places)
    if places(output) > CLOSE * places(best):
        return (
            f"Blocks of {output} take {places(output):,} places; blocks of {best} keep the budget "
            f"too and take {places(best):,}."
        )
    return None


def _choose(
    lengths: list[int], sizes: list[int], most: float, places: Any, entries: Any = _entries
) -> int | None:
    fitting = [size for size in sizes if entries(lengths, size) <= most]
    return min(fitting, key=places, default=None)


def reference(
    lengths: list[int], shared: int, sizes: list[int], us_per_block: float, budget_us: float
) -> int | None:
    """Measure each size that keeps the budget, take the one with the fewest places."""
    most = budget_us / us_per_block
    return _choose(lengths, sizes, most, lambda size: _places(lengths, shared, size))


def _budget_ignored(
    lengths: list[int], shared: int, sizes: list[int], us_per_block: float, budget_us: float
) -> int | None:
    return min(sizes, key=lambda size: _places(lengths, shared, size))


def _sharing_ignored(
    lengths: list[int], shared: int, sizes: list[int], us_per_block: float, budget_us: float
) -> int | None:
    return _choose(lengths, sizes, budget_us / us_per_block, lambda size: _places(lengths, 0, size))


def _part_shared(
    lengths: list[int], shared: int, sizes: list[int], us_per_block: float, budget_us: float
) -> int | None:
    def places(size: int) -> int:
        return _places(lengths, _ceil(shared, size) * size, size)

    return _choose(lengths, sizes, budget_us / us_per_block, places)


def _shared_entries_once(
    lengths: list[int], shared: int, sizes: list[int], us_per_block: float, budget_us: float
) -> int | None:
    return _choose(
        lengths,
        sizes,
        budget_us / us_per_block,
        lambda size: _places(lengths, shared, size),
        lambda lengths, size: _places(lengths, shared, size) // size,
    )


def _smallest_that_fits(
    lengths: list[int], shared: int, sizes: list[int], us_per_block: float, budget_us: float
) -> int | None:
    return _choose(lengths, sizes, budget_us / us_per_block, lambda size: size)


def _fewest_blocks(
    lengths: list[int], shared: int, sizes: list[int], us_per_block: float, budget_us: float
) -> int | None:
    return _choose(lengths, sizes, budget_us / us_per_block, lambda size: -size)


def _by_laying_out(
    lengths: list[int], shared: int, sizes: list[int], us_per_block: float, budget_us: float
) -> int | None:
    best, least = None, float("inf")
    for size in sizes:
        stored: set[tuple[int, int]] = set()
        entries = 0
        for request, length in enumerate(lengths):
            for start in range(0, length, size):
                entries += 1
                # A block that ends within the shared head has no owner of its own.
                stored.add((-1 if start + size <= shared else request, start))
        if entries * us_per_block <= budget_us and len(stored) * size < least:
            best, least = size, len(stored) * size
    return best


CHOOSE_BLOCK = Exercise(
    id="paging.choose_block",
    title="Decide: a block size under a budget of time",
    points=4,
    minutes=12,
    difficulty=3,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "time not counted",
            "You choose by memory alone: every entry of every table costs time in every step. How "
            "many entries do your tables have?",
            _budget_ignored,
        ),
        Mistake(
            "sharing ignored",
            "You store the common beginning once for every request: blocks that lie wholly in it are "
            "stored once in all. How many of them are there at each size?",
            _sharing_ignored,
        ),
        Mistake(
            "part of a block shared",
            "You share the block in which the common beginning ends: the requests differ behind it, "
            "so each has its own. Which blocks hold nothing but common tokens?",
            _part_shared,
        ),
        Mistake(
            "shared entries counted once",
            "You count the time of shared blocks once: they are stored once, and yet they stand in "
            "every table and are read for every request. How long is one request's table?",
            _shared_entries_once,
        ),
        Mistake(
            "smallest assumed best",
            "You take the smallest block within the budget and measure nothing: a size that divides "
            "the lengths, or the common beginning, can waste less. What decides here?",
            _smallest_that_fits,
        ),
        Mistake(
            "fewest blocks",
            "Your choice keeps the budget and takes more memory than it must: time left over earns "
            "nothing. Which of the sizes that fit has the fewest empty places?",
            _fewest_blocks,
        ),
    ),
    hints=(
        "Your choice keeps the budget, and every other size that does takes at least as many places. "
        "Check both halves of that sentence.",
        "Lengths [20, 20], the first 16 shared. Blocks of 8: 3 entries a table, 2 of them shared: 2 + "
        "1 + 1 = 4 blocks, 32 places. Blocks of 12: 2 entries, 1 shared: 3 blocks, 36 places. At 0.5 "
        "microseconds an entry that is 3 and 2 microseconds.",
        "for each size: entries = sum of ceil(length / size)\n"
        "    skip where entries * us_per_block > budget_us\n"
        "    once = shared // size\n"
        "    places = size * (entries - (requests - 1) * once)\n"
        "return the size with the fewest places, None where all were skipped",
    ),
    compare=Invariant(least_memory_that_fits, match=Exact()),
    alternatives=(_by_laying_out,),
)
