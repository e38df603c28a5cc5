"""The rules of paging.schedule_step, each of which can be broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Running = list[list[int]]
Plan = tuple[list[int], list[int]]


def blocks_for(tokens: int, size: int) -> int:
    """Blocks that ``tokens`` tokens fill, the last one in part."""
    return -(-tokens // size)


def opened(stored: int, count: int, size: int) -> int:
    """Blocks that ``count`` more tokens open behind ``stored``: none while the last has room."""
    return blocks_for(stored + count, size) - blocks_for(stored, size)


@dataclass(frozen=True)
class Rules:
    """What the exercise asks for. Called, it plans one step; with one field changed, a wrong one.

    order: sort key of a running request by its pending tokens, stable. taken: blocks of a running
    request's new tokens. needed: blocks of a prompt. spared: blocks that must stay free.
    kept: the blocks of a prompt that starts are gone for the next one. all_count: those that ran before count against max_batch too.
    """

    order: Callable[[int], int] = lambda pending: int(pending > 1)
    overtake: bool = False
    cut: bool = True
    whole_prompt: bool = True
    taken: Callable[[int, int, int], int] = opened
    needed: Callable[[int, int], int] = blocks_for
    spared: int = 0
    kept: bool = True
    all_count: bool = True
    bounded: bool = True

    def __call__(
        self,
        running: Running,
        waiting: list[int],
        token_budget: int,
        free_blocks: int,
        max_batch: int,
        block_size: int,
    ) -> Plan:
        budget, free = token_budget, free_blocks
        counts = [0] * len(running)
        for i in sorted(range(len(running)), key=lambda i: self.order(running[i][1])):
            stored, pending = running[i]
            counts[i] = min(pending, budget)
            budget -= counts[i]
            free -= self.taken(stored, counts[i], block_size)
        started: list[int] = []
        before = len(running) if self.all_count else 0
        for prompt in waiting:
            if budget == 0 or (self.bounded and before + len(started) == max_batch):
                break
            count = min(prompt, budget)
            checked = self.needed(prompt if self.whole_prompt else count, block_size)
            if checked + self.spared > free or (not self.cut and count < prompt):
                if self.overtake:
                    continue
                break
            started.append(count)
            budget -= count
            free -= self.needed(count, block_size) if self.kept else 0
        return counts, started
