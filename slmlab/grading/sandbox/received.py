"""What a child has said so far, message by message; nobody vouches for any of it.

A message is taken only where it fits the request and what came before: cells in order, an answer
only while its cell runs, its cases in order. What a submission forges within these rules is a wrong
answer at best: it knows no expected value.
"""

from __future__ import annotations

import struct

from slmlab.checking import Execution, execution
from slmlab.grading.inside import frames
from slmlab.grading.inside.messages import MAX_ITEMS, Messages
from slmlab.grading.records import Answered, CellRun, Request

MAX_MESSAGES = 20_000
KEPT = 20  # definitions of one id, besides the first
_MESSAGES = Messages(execution)


def encode(request: Request) -> bytes:
    """The request as it is written to the child.

    Raises TypeError or ValueError where an input is not plain data or is too large.
    """
    content = _MESSAGES.request(request.cells, request.cases, request.seed)
    return struct.pack(frames.HEADER.format, len(content)) + content


class Received:
    """The messages of one child. `skip`: places of cells that it was told to leave out."""

    def __init__(self, request: Request, skip: tuple[int, ...] = ()) -> None:
        self._request = request
        self._skip = frozenset(skip)
        self._count = 0
        self._items = 0
        self._cells: list[CellRun] = []
        self._answers: dict[str, list[tuple[int, list[Execution]]]] = {}
        self._since = 0.0
        self._last_started = -1
        self.current: int | None = None

    def take(self, frame: bytes, now: float) -> None:
        """Takes one message that came at `now`. Raises ValueError where it does not fit."""
        self._count += 1
        if self._count > MAX_MESSAGES:
            raise ValueError(f"more than {MAX_MESSAGES} messages.")
        message = _MESSAGES.read(frame)
        self._items += _MESSAGES.codec.items
        if self._items > MAX_ITEMS:
            raise ValueError(f"answers of more than {MAX_ITEMS:,} items in all.")
        cell = message["cell"]
        if "answer" in message:
            if cell != self.current:
                raise ValueError("an answer of a cell that does not run.")
            self._answer(message["answer"], cell, message["case"], message["execution"])
        elif message["state"] == "start":
            self._begin(cell, now)
        else:
            if cell != self.current:
                raise ValueError("the end of a cell that does not run.")
            self.current = None
            told = (message["message"], message["printed"], message["seconds"])
            self._cells.append(CellRun(cell, message["state"], *told))

    def running_for(self, now: float) -> float:
        """Seconds since the running cell began; 0 between cells."""
        return now - self._since if self.current is not None else 0.0

    @property
    def complete(self) -> bool:
        """True where every cell that was to run has ended."""
        return self.current is None and len(self._cells) == self._wanted()

    @property
    def executions(self) -> int:
        """How many calls were answered."""
        return sum(len(done) for items in self._answers.values() for _, done in items)

    def place(self) -> str:
        """Where it stands, for a sentence; cells count from 1 there."""
        return f" in code cell {self.current + 1}" if self.current is not None else ""

    def answers(self) -> dict[str, tuple[Answered, ...]]:
        """The first and the last definitions of each exercise, in order."""
        return {
            name: tuple(Answered(cell, tuple(done)) for cell, done in items)
            for name, items in self._answers.items()
        }

    def cell_runs(self, stuck: tuple[int, ...], seconds: float) -> tuple[CellRun, ...]:
        """The cells that ended, and those that had to be killed after `seconds`, in order."""
        late = [
            CellRun(cell, "timeout", "It did not stop by itself.", "", seconds) for cell in stuck
        ]
        return tuple(sorted([*self._cells, *late], key=lambda item: item.cell))

    def _wanted(self) -> int:
        return len(self._request.cells) - len(self._skip)

    def _begin(self, cell: int, now: float) -> None:
        if self.current is not None:
            raise ValueError("a cell begins inside another.")
        if not self._last_started < cell < len(self._request.cells) or cell in self._skip:
            raise ValueError("a cell that is not the next one.")
        self.current, self._since, self._last_started = cell, now, cell

    def _answer(self, name: str, cell: int, case: int, done: Execution) -> None:
        wanted = self._request.cases.get(name)
        if wanted is None or case >= len(wanted):
            raise ValueError("an answer to what was not asked.")
        items = self._answers.setdefault(name, [])
        if case == 0:
            items.append((cell, [done]))
            del items[1:-KEPT]
        elif items and items[-1][0] == cell and len(items[-1][1]) == case:
            items[-1][1].append(done)
        else:
            raise ValueError("an answer out of order.")
