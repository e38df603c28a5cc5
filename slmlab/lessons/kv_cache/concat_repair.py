"""kv.concat_repair: a cache that joins all it holds at every step, and one that grows by doubling."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor

from slmlab.checking import Case, Exact, Exercise, Mistake
from slmlab.kv import ContiguousCache

Answer = tuple[Tensor, int]


def cases(seed: int) -> list[Case]:
    """One append, two that fit, one that grows, one that doubles twice, single tokens, a prompt."""
    random = torch.Generator().manual_seed(seed)

    def case(sizes: list[int], width: int, capacity: int) -> Case:
        chunks = [torch.randint(1, 100, (n, width), generator=random).float() for n in sizes]
        return Case({"chunks": chunks, "capacity": capacity})

    steps = 9 + int(torch.randint(0, 4, (1,), generator=random))
    return [
        case([1], 1, 1),
        case([1, 1], 1, 3),
        case([2, 1], 1, 2),
        case([2, 1], 1, 3),
        case([1, 6, 1], 1, 1),
        case([3, 1, 1, 1], 1, 3),
        case([1] * steps, 2, 2),
        case([5, *[1] * steps], 3, 4),
    ]


def reference(chunks: list[Tensor], capacity: int) -> Answer:
    """The package's preallocated cache, made anew at twice its size where it is full."""
    width = chunks[0].shape[1]
    shape = SimpleNamespace(
        num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, head_dim=width
    )
    cache, written = ContiguousCache(shape, max_length=capacity), 0
    held = torch.empty(1, 1, 0, width)
    for chunk in chunks:
        room = cache.max_length
        while cache.length + chunk.shape[0] > room:
            room *= 2
        if room > cache.max_length:
            written += cache.bytes_copied
            cache = ContiguousCache(shape, max_length=room)
            cache.append(0, held, held)
        held, _ = cache.append(0, chunk[None, None], chunk[None, None])
    written += cache.bytes_copied
    # The counter counts keys and values, four bytes a number.
    return held[0, 0].clone(), written // (2 * 4 * width)


def _counted(count: Callable[[list[int], int], int]) -> Callable[[list[Tensor], int], Answer]:
    """The right rows, and another number of them written."""

    def answer(chunks: list[Tensor], capacity: int) -> Answer:
        return torch.cat(chunks), count([len(chunk) for chunk in chunks], capacity)

    return answer


def _joined_every_step(sizes: list[int], capacity: int) -> int:
    return sum(sum(sizes[: i + 1]) for i in range(len(sizes)))


def _grown(
    sizes: list[int],
    capacity: int,
    larger: Callable[[int, int], int],
    full: Callable[[int, int], bool] = lambda needed, room: needed > room,
    moved: Callable[[int, int], int] = lambda held, room: held,
) -> int:
    room, held, written = capacity, 0, 0
    for size in sizes:
        if full(held + size, room):
            written += moved(held, room)
            room = larger(room, held + size)
        held += size
        written += size
    return written


def _doubled(room: int, needed: int) -> int:
    while needed > room:
        room *= 2
    return room


def _to_fit(sizes: list[int], capacity: int) -> int:
    return _grown(sizes, capacity, lambda room, needed: needed)


def _by_capacity(sizes: list[int], capacity: int) -> int:
    return _grown(sizes, capacity, lambda room, needed: -(-needed // capacity) * capacity)


def _too_early(sizes: list[int], capacity: int) -> int:
    def larger(room: int, needed: int) -> int:
        while needed >= room:
            room *= 2
        return room

    return _grown(sizes, capacity, larger, full=lambda needed, room: needed >= room)


def _move_not_counted(sizes: list[int], capacity: int) -> int:
    return _grown(sizes, capacity, _doubled, moved=lambda held, room: 0)


def _moved_at_every_doubling(sizes: list[int], capacity: int) -> int:
    room, held, written = capacity, 0, 0
    for size in sizes:
        while held + size > room:
            room, written = 2 * room, written + held
        held, written = held + size, written + size
    return written


def _doubled_once(chunks: list[Tensor], capacity: int) -> Answer:
    buffer, held, written = torch.empty(capacity, chunks[0].shape[1]), 0, 0
    for chunk in chunks:
        needed = held + len(chunk)
        if needed > capacity:
            capacity *= 2
            larger = torch.empty(capacity, chunk.shape[1])
            larger[:held] = buffer[:held]
            buffer, written = larger, written + held
        buffer[held:needed] = chunk  # raises where one doubling was not enough
        held, written = needed, written + len(chunk)
    return buffer[:held], written


def _empty_rows_moved(sizes: list[int], capacity: int) -> int:
    return _grown(sizes, capacity, _doubled, moved=lambda held, room: room)


def _row_by_row(chunks: list[Tensor], capacity: int) -> Answer:
    buffer: list[list[float] | None] = [None] * capacity
    held = written = 0
    for chunk in chunks:
        if held + len(chunk) > len(buffer):
            while held + len(chunk) > len(buffer):
                buffer = buffer + [None] * len(buffer)
            written += held
        for row in chunk.tolist():
            buffer[held] = row
            held += 1
            written += 1
    return torch.tensor(buffer[:held]), written


CONCAT_REPAIR = Exercise(
    id="kv.concat_repair",
    title="Repair this: a cache that copies itself every step",
    points=3,
    minutes=10,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "the given bug",
            "The bug is still there: every append writes all that was held before, so n tokens "
            "cost n (n + 1) / 2 rows. Which rows need to move when there is room behind them?",
            _counted(_joined_every_step),
        ),
        Mistake(
            "grown by too little",
            "You add as much room as is needed, or the same each time: the moves come equally often "
            "while they get longer, and the sum is quadratic again. What keeps them rare?",
            _counted(_to_fit),
            variants=(_counted(_by_capacity),),
        ),
        Mistake(
            "doubled once",
            "One doubling may not be enough: a long chunk needs more room than that. How many "
            "doublings do 7 rows need from a capacity of 1?",
            _doubled_once,
        ),
        Mistake(
            "grown one too early",
            "You grow while the new rows would still fit: a buffer of 3 holds 3 rows. Where do you "
            "compare with >= ?",
            _counted(_too_early),
        ),
        Mistake(
            "moves not counted",
            "Your count is the number of tokens alone: moving what was held to the larger buffer "
            "writes it again. How many rows were held then?",
            _counted(_move_not_counted),
        ),
        Mistake(
            "too many rows moved",
            "You count more moved rows than there are: rows move once per chunk, however often the "
            "capacity doubles, and empty rows have no meaning. How many rows were held?",
            _counted(_moved_at_every_doubling),
            variants=(_counted(_empty_rows_moved),),
        ),
    ),
    hints=(
        "Each row is written once when it arrives, and once more each time the buffer grows. "
        "With doubling that is less than three times as many writes as rows. Does yours keep that?",
        "Chunks of 2, 1 and 1 rows, capacity 2. The first fills it: 2 written. The second does "
        "not fit: capacity 4, 2 rows move, 1 is new: 5. The third fits: 6. The given code writes "
        "2 + 3 + 4 = 9.",
        "buffer = capacity empty rows; held = written = 0\n"
        "for each chunk: needed = held + its rows\n"
        "    if needed > capacity: double the capacity until it fits, move the held rows over\n"
        "        written += held\n"
        "    put the chunk behind the held rows; held = needed; written += its rows\n"
        "return the held rows, written",
    ),
    compare=Exact(),
    alternatives=(_row_by_row,),
)
