"""Which requests run in the next step, and with how many tokens each.

Continuous batching (Yu et al. 2022, Orca, OSDI '22): the batch is chosen anew at every step. Long
prompts are cut into chunks that fill what the decoding requests leave of the token budget
(Agrawal et al. 2023, Sarathi, arXiv:2308.16369), and where blocks run out the youngest request
gives its own back and is computed again later (Kwon et al. 2023, arXiv:2309.06180, section 4.5).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from slmlab.kv import BlockPool, OutOfBlocks
from slmlab.serving.request import Request, State


@dataclass(frozen=True)
class Scheduled:
    """``count`` pending tokens of a request, with room reserved for them."""

    request: Request
    count: int


class Scheduler:
    """First come, first served.

    Every running request is older than every waiting one: requests are admitted in the order of
    arrival, and the youngest gives way first. So no request waits forever: the oldest always runs,
    what is submitted fits into the pool alone, and once it has finished the next is the oldest.

    Attributes:
        waiting: not admitted, or preempted; oldest first.
        running: hold blocks; oldest first.
    """

    def __init__(self, pool: BlockPool, max_batch: int, token_budget: int) -> None:
        self.pool = pool
        self.max_batch = max_batch
        self.token_budget = token_budget
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []

    def add(self, request: Request) -> None:
        self.waiting.append(request)

    def remove(self, request: Request) -> None:
        """Take a request out, wherever it is; its blocks are free at once."""
        if request.state is State.RUNNING:
            self.running.remove(request)
        elif request.state is State.WAITING:
            self.waiting.remove(request)
        request.state = State.FINISHED
        request.cache.free()

    def schedule(self) -> list[Scheduled]:
        """The next step's work; every reservation it needs is made.

        Decoding requests come first, so that a long prompt never holds up a stream. As a prompt
        takes all of the budget that is left, only the youngest running request can still be in
        prefill, and a request that gives way to an older one has not been scheduled yet.
        """
        for request in self.running:
            if request.pending == 0:
                # A pass was interrupted between storing the keys and choosing the token.
                request.cache.truncate(len(request.tokens) - 1)
        plan: list[Scheduled] = []
        budget = self.token_budget
        for request in list(self.running):
            count = min(request.pending, budget)
            if request.state is not State.RUNNING:
                break  # it gave way, and so did all younger ones
            while request.cache.blocks_needed(count) > self.pool.num_free:
                victim = self.running[-1]
                self._preempt(victim)
                if victim is request:
                    break
            else:
                request.cache.reserve(count)
                plan.append(Scheduled(request, count))
                budget -= count
        while self.waiting and budget and len(self.running) < self.max_batch:
            admitted = self._admit(self.waiting[0], budget)
            if admitted is None and not self.running:
                raise OutOfBlocks(
                    f"nothing runs and {self.pool.num_used} of the pool's {self.pool.num_blocks} "
                    "blocks are held from outside the engine: free them"
                )
            if admitted is None:
                break
            plan.append(admitted)
            budget -= admitted.count
        return plan

    def _admit(self, request: Request, budget: int) -> Scheduled | None:
        """Start the request if the pool has blocks for all that is pending of it."""
        taken = request.cache.take_prefix(request.tokens)
        if request.cache.blocks_needed(request.pending) > self.pool.num_free:
            request.cache.free()
            return None
        if request.preemptions == 0:
            request.cached_prompt_tokens = taken
        count = min(request.pending, budget)
        request.cache.reserve(count)
        self.waiting.popleft()
        request.state = State.RUNNING
        self.running.append(request)
        return Scheduled(request, count)

    def _preempt(self, request: Request) -> None:
        """Give the request's blocks back; its tokens stay and are computed again."""
        self.running.remove(request)
        request.cache.free()
        request.state = State.WAITING
        request.preemptions += 1
        self.waiting.appendleft(request)
