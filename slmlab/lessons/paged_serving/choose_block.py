"""paging.choose_block: the block size that needs least memory within a budget of time."""

from __future__ import annotations

import itertools
import operator
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from slmlab.checking import Case, Exact, Exercise, Invariant, Mistake

# Two sizes whose memory differs by less are equally good.
CLOSE = 1.02


def cases(seed: int) -> list[Case]:
    """Room for small blocks, none for them, for nothing; a budget met exactly, a part of a block."""
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
        # Exactly the time of two entries; then less than it and more than the part of one.
        case([16], 0, [8, 2], 1.0),
        case([8 + n], 0, [8, 2], 0.9),
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


@dataclass(frozen=True)
class _Chooser:
    """The size with the fewest places among those within the budget; each part can be wrong."""

    places: Callable[[list[int], int, int], float] = _places  # lengths, shared, size
    entries: Callable[[list[int], int, int], float] = lambda lengths, _, size: _entries(
        lengths, size
    )
    fits: Callable[[float, float], bool] = operator.le

    def __call__(
        self,
        lengths: list[int],
        shared: int,
        sizes: list[int],
        us_per_block: float,
        budget_us: float,
    ) -> int | None:
        def time(size: int) -> float:
            return self.entries(lengths, shared, size) * us_per_block

        fitting = [size for size in sizes if self.fits(time(size), budget_us)]
        return min(fitting, key=lambda size: self.places(lengths, shared, size), default=None)


def reference(
    lengths: list[int], shared: int, sizes: list[int], us_per_block: float, budget_us: float
) -> int | None:
    """Measure each size that keeps the budget, take the one with the fewest places."""
    return _Chooser()(lengths, shared, sizes, us_per_block, budget_us)


def _part_shared(lengths: list[int], shared: int, size: int) -> float:
    return _places(lengths, _ceil(shared, size) * size, size)


def _tokens_shared(lengths: list[int], shared: int, size: int) -> float:
    return _places(lengths, 0, size) - (len(lengths) - 1) * shared


def _fraction(lengths: list[int], shared: int, size: int) -> float:
    return sum(length / size for length in lengths)


def _floor(lengths: list[int], shared: int, size: int) -> float:
    return sum(length // size for length in lengths)


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
            _Chooser(fits=lambda time, budget: True),
        ),
        Mistake(
            "time counted otherwise",
            "You count the time otherwise: a table has ceil(length / size) entries, a block filled in "
            "part is one of them, and a step that takes exactly the budget keeps it. Which of the two "
            "does your code see differently?",
            _Chooser(fits=operator.lt),
            (_Chooser(entries=_fraction), _Chooser(entries=_floor)),
        ),
        Mistake(
            "shared entries counted once",
            "You count the time of shared blocks once: they are stored once, and yet they stand in "
            "every table and are read for every request. How long is one request's table?",
            _Chooser(entries=lambda lengths, shared, size: _places(lengths, shared, size) // size),
        ),
        Mistake(
            "sharing the same for every size",
            "Your choice is that of a server where sharing saves the same at every size: nothing, or "
            "the common tokens. What is stored once in all is blocks that lie wholly in the common "
            "beginning. How many places are they at each size?",
            _Chooser(places=lambda lengths, shared, size: _places(lengths, 0, size)),
            (_Chooser(places=_tokens_shared),),
        ),
        Mistake(
            "part of a block shared",
            "You share the block in which the common beginning ends: the requests differ behind it, "
            "so each has its own. Which blocks hold nothing but common tokens?",
            _Chooser(places=_part_shared),
        ),
        Mistake(
            "chosen by size alone",
            "You take the smallest or the largest block within the budget and measure nothing: a size "
            "that divides the lengths, or the common beginning, can waste less, and time left over "
            "earns nothing. What decides here?",
            _Chooser(places=lambda lengths, shared, size: size),
            (_Chooser(places=lambda lengths, shared, size: -size),),
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
