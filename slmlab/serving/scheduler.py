"""Which requests run in the next step, and with how many tokens each.

Continuous batching (Yu et al. 2022, Orca, OSDI '22): the batch is chosen anew at every step. Long
prompts are cut into chunks that fill what the decoding requests leave of the token budget
(Agrawal et al. 2023, Sarathi, arXiv:2308.16369), and where blocks run out the youngest request
gives its own back and is computed again later (Kwon et al. 2023, arXiv:2309.06180, section 4.5).
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from dataclasses import dataclass

from slmlab.kv import BlockPool
from slmlab.serving.request import Request, State


@dataclass(frozen=True)
class Scheduled:
    """``count`` pending tokens of a request, with room reserved for them."""

    request: Request
    count: int


class Scheduler:
    """First come, first served.

    No request waits forever: ids give the order of arrival; only a younger request is ever
    preempted for an older one, the oldest always runs, and what is submitted fits into the pool
    alone. So the oldest finishes, and then the next is the oldest.

    Attributes:
        waiting: not admitted, or preempted; by id.
        running: hold blocks; by id.
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

        Decoding requests come first, so that a long prompt never holds up a stream.
        """
        plan: dict[int, Scheduled] = {}
        budget = self.token_budget
        preempted = False
        decoding = [request for request in self.running if request.pending == 1]
        prefilling = [request for request in self.running if request.pending > 1]
        for request in decoding + prefilling:
            count = min(request.pending, budget)
            if count == 0 or request.state is not State.RUNNING:
                continue
            while request.cache.blocks_needed(count) > self.pool.num_free:
                victim = self.running[-1]
                self._preempt(victim)
                dropped = plan.pop(victim.id, None)
                budget += dropped.count if dropped else 0
                preempted = True
                if victim is request:
                    break
            else:
                request.cache.reserve(count)
                plan[request.id] = Scheduled(request, count)
                budget -= count
        # Blocks that a preemption freed belong to those who run; admitting now would take them.
        while not preempted and self.waiting and budget and len(self.running) < self.max_batch:
            admitted = self._admit(self.waiting[0], budget)
            if admitted is None:
                break
            plan[admitted.request.id] = admitted
            budget -= admitted.count
        return list(plan.values())

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
        insort(self.running, request, key=lambda r: r.id)
        return Scheduled(request, count)

    def _preempt(self, request: Request) -> None:
        """Give the request's blocks back; its tokens stay and are computed again."""
        self.running.remove(request)
        request.cache.free()
        request.state = State.WAITING
        request.preemptions += 1
        at = sum(other.id < request.id for other in self.waiting)
        self.waiting.insert(at, request)
