"""kv.rewind_repair: where a new token stands after the cache went back."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from slmlab.checking import Case, Exact, Exercise, Mistake
from slmlab.kv import ContiguousCache

Trace = list[tuple[str, Any]]
Answer = tuple[list[int], list[int]]
SHAPE = SimpleNamespace(
    num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, head_dim=2
)


def cases(seed: int) -> list[Case]:
    """No rewind, one, one to nothing, one of a draft, a keep that is no half, a long trace."""
    draw = random.Random(seed)

    def tokens(count: int) -> list[int]:
        return [draw.randint(1, 99) for _ in range(count)]

    def long(operations: int) -> Trace:
        trace: Trace = []
        held = 0
        for _ in range(operations):
            if held and draw.random() < 0.4:
                held = draw.randint(0, held)
                trace.append(("truncate", held))
            else:
                count = draw.randint(1, 4)
                held += count
                trace.append(("append", tokens(count)))
        return [*trace, ("append", tokens(2))]

    return [
        Case({"trace": [("append", tokens(1))]}),
        Case({"trace": [("append", tokens(2)), ("truncate", 1), ("append", tokens(1))]}),
        Case({"trace": [("append", tokens(1)), ("append", tokens(1))]}),
        Case({"trace": [("append", tokens(3)), ("truncate", 1), ("append", tokens(1))]}),
        Case({"trace": [("append", tokens(2)), ("truncate", 0), ("append", tokens(1))]}),
        Case({"trace": [("append", tokens(3)), ("truncate", 3), ("append", tokens(1))]}),
        Case({"trace": [("append", tokens(5)), ("append", tokens(4)), ("truncate", 7)]}),
        Case({"trace": long(6)}),
        Case({"trace": long(14)}),
    ]


def reference(trace: Trace) -> Answer:
    """The package's cache, holding (token, position) as its keys; positions follow its length."""
    cache = ContiguousCache(SHAPE, max_length=1 + sum(len(x) for op, x in trace if op == "append"))
    for operation, what in trace:
        if operation == "truncate":
            cache.truncate(what)
            continue
        positions = range(cache.length, cache.length + len(what))
        rows = torch.tensor([list(zip(what, positions, strict=True))], dtype=torch.float32)
        cache.append(0, rows[None], rows[None])
    # Appending nothing gives all that is held.
    held = cache.append(0, torch.empty(1, 1, 0, 2), torch.empty(1, 1, 0, 2))[0][0, 0]
    return [int(x) for x in held[:, 0]], [int(x) for x in held[:, 1]]


def _counting(
    trace: Trace, after: Callable[[int, int, list[int]], int] = lambda seen, n, positions: seen
) -> Answer:
    """The given code, with `after` (count, n, positions kept) -> count at every truncate."""
    tokens: list[int] = []
    positions: list[int] = []
    seen = 0
    for operation, what in trace:
        if operation == "append":
            tokens += what
            positions += range(seen, seen + len(what))
            seen += len(what)
        else:
            del tokens[what:], positions[what:]
            seen = after(seen, what, positions)
    return tokens, positions


def _n_subtracted(trace: Trace) -> Answer:
    return _counting(trace, lambda seen, n, positions: seen - n)


def _at_the_last(trace: Trace) -> Answer:
    """Raises IndexError after a truncate to nothing, as ``positions[-1]`` does."""
    return _counting(trace, lambda seen, n, positions: positions[-1])


def _at_the_last_guarded(trace: Trace) -> Answer:
    return _counting(trace, lambda seen, n, positions: positions[-1] if positions else 0)


def _replayed(
    trace: Trace,
    keep: Callable[[int, int], int] = lambda n, held: n,
    start: Callable[[int], int] = lambda held: held,
) -> Answer:
    tokens: list[int] = []
    positions: list[int] = []
    for operation, what in trace:
        if operation == "append":
            positions += range(start(len(tokens)), start(len(tokens)) + len(what))
            tokens += what
        else:
            kept = keep(what, len(tokens))
            tokens, positions = tokens[:kept], positions[:kept]
    return tokens, positions


def _rejected_kept(trace: Trace) -> Answer:
    tokens: list[int] = []
    positions: list[int] = []
    at = 0
    for operation, what in trace:
        if operation == "append":
            positions += range(at, at + len(what))
            tokens += what
            at += len(what)
        else:
            at = what
    return tokens, positions


def _drops_n(trace: Trace) -> Answer:
    return _replayed(trace, keep=lambda n, held: max(0, held - n))


def _from_one(trace: Trace) -> Answer:
    return _replayed(trace, start=lambda held: held + 1)


def _last_plus_one(trace: Trace) -> Answer:
    """Never counts: a new token stands one behind the last position that is still there."""
    held: list[tuple[int, int]] = []
    for operation, what in trace:
        if operation == "truncate":
            held = held[:what]
        for token in what if operation == "append" else ():
            held.append((token, held[-1][1] + 1 if held else 0))
    return [token for token, _ in held], [position for _, position in held]


REWIND_REPAIR = Exercise(
    id="kv.rewind_repair",
    title="Repair this: positions after a rewind",
    points=3,
    minutes=8,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "the given bug",
            "The bug is still there: the tokens go back and the count of what was ever fed does "
            "not, so what follows stands too far on. What knows how many tokens are there now?",
            _counting,
        ),
        Mistake(
            "rejected tokens kept",
            "The positions go back and the tokens stay: later queries attend to what was taken "
            "back. How long is the list after a truncate to n?",
            _rejected_kept,
        ),
        Mistake(
            "n dropped, not kept",
            "You take n tokens off: truncate(n) keeps the first n. What is left of five tokens "
            "after truncate 2?",
            _drops_n,
        ),
        Mistake(
            "n subtracted",
            "You subtract n: truncate(n) keeps n. How long is the cache now?",
            _n_subtracted,
        ),
        Mistake(
            "continued at the last position",
            "You continue at the last position, not after it. Where does a token stand that "
            "follows positions 0 and 1, and where one that follows none?",
            _at_the_last,
            variants=(_at_the_last_guarded,),
        ),
        Mistake(
            "counted from 1",
            "All positions are one too large: the first token stands at 0. What is the length of "
            "an empty cache?",
            _from_one,
        ),
    ),
    hints=(
        "After every operation the positions are 0, 1, 2, ... without a gap, as many as there are "
        "tokens. Which operation of the given code leaves a gap?",
        "Append [7, 8], truncate 1, append [9]. Tokens [7, 9], positions [0, 1]. The given code "
        "says [0, 2]: it has fed three tokens and forgets that one of them is gone.",
        "tokens, positions = [], []\n"
        "append: the new ones stand at len(tokens), len(tokens) + 1, ...; then add the tokens\n"
        "truncate n: keep the first n of both lists\n"
        "no other counter",
    ),
    compare=Exact(),
    alternatives=(_last_plus_one,),
)
