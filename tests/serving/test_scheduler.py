"""Random traces of arrivals, steps and cancellations: nothing leaks, nobody starves."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmlab.serving import Engine
from slmlab.serving.request import State
from tests.serving.oracle import language_model


class Trace:
    """An engine under a seeded trace, with the promises checked after every step."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        blocks, size = self.random.choice(((12, 2), (8, 4), (20, 3), (40, 1)))
        self.batch = self.random.randint(1, 6)
        self.budget = self.random.randint(self.batch, 20)
        self.engine = Engine(
            language_model("tiny-draft"), blocks, size, self.batch, self.budget,
            prefix_sharing=self.random.random() < 0.7,
        )  # fmt: skip
        self.slots = blocks * size
        self.alive: list[int] = []
        self.admitted: list[int] = []
        self.counts: Counter[str] = Counter()

    def submit(self) -> None:
        length = self.random.randint(1, self.slots - 1)
        new = self.random.randint(1, min(12, self.slots - length + 1))
        # Few different tokens: prompts share beginnings.
        prompt = [self.random.choice((7, 7, 7, 8)) for _ in range(length)]
        self.alive.append(self.engine.submit(prompt, max_new_tokens=new))

    def step(self) -> None:
        scheduler = self.engine._scheduler
        oldest = min((r.id for r in scheduler.running), default=None)
        computed = self.engine.stats["computed_tokens"]
        for output in self.engine.step():
            if output.finish_reason is not None:
                self.alive.remove(output.request_id)
                self.engine.result(output.request_id)
                self.counts["finished"] += 1
        computed = self.engine.stats["computed_tokens"] - computed
        assert computed <= self.budget
        assert computed > 0 or not self.alive, "a step with work to do does some"
        # The oldest is never preempted.
        assert oldest is None or all(r.id != oldest for r in scheduler.waiting)
        self.counts["full"] += self.engine.pool.num_free == 0

    def check(self) -> None:
        scheduler, pool = self.engine._scheduler, self.engine.pool
        assert len(scheduler.running) <= self.batch
        for queue, state in (
            (scheduler.running, State.RUNNING),
            (scheduler.waiting, State.WAITING),
        ):
            ids = [request.id for request in queue]
            assert ids == sorted(ids) and all(request.state is state for request in queue)
        assert sorted(r.id for q in (scheduler.running, scheduler.waiting) for r in q) == sorted(
            self.alive
        )
        held = Counter(b for r in scheduler.running for b in r.cache.block_table)
        assert all(not r.cache.block_table for r in scheduler.waiting)
        for block in range(pool.num_blocks):
            assert pool.references(block) == held[block]
        assert pool.num_used == len(held) and pool.num_free + pool.num_used == pool.num_blocks
        if scheduler.running and scheduler.waiting:
            assert scheduler.running[-1].id < scheduler.waiting[0].id
        assert all(request.pending == 1 for request in scheduler.running[:-1])
        for request in scheduler.running:
            # Only a pass writes, so whatever is not stored yet is pending.
            assert 1 <= request.pending <= len(request.tokens)

    def run(self, actions: int) -> None:
        for _ in range(actions):
            action = self.random.choices(("submit", "step", "cancel"), (3, 8, 1))[0]
            if action == "cancel":
                if not self.alive:
                    continue
                victim = self.random.choice(self.alive)
                self.engine.cancel(victim)
                self.engine.result(victim)
                self.alive.remove(victim)
            else:
                getattr(self, action)()
            self.check()
        steps = 0
        while self.alive:
            self.step()
            self.check()
            steps += 1
            assert steps < 2000, "some request starves"
        assert self.engine.pool.num_used == 0 and self.engine.idle
        self.counts["preemptions"] += self.engine.stats["preemptions"]
        self.counts["hits"] += self.engine.stats["prefix_hit_rate"] > 0


def test_traces() -> None:
    counts: Counter[str] = Counter()
    for seed in range(25):
        trace = Trace(seed)
        trace.run(40)
        counts.update(trace.counts)
    # What the promises are about must have happened.
    assert counts["preemptions"] > 20 and counts["hits"] > 5
    assert counts["full"] > 20 and counts["finished"] > 100


@pytest.mark.slow
@given(seed=st.integers(100, 2**32))
def test_many_traces(seed: int) -> None:
    for i in range(4):
        Trace(seed + i).run(60)


def test_a_long_prompt_does_not_hold_up_a_stream() -> None:
    serving = Engine(language_model("tiny-draft"), 64, 16, max_batch=4, token_budget=8)
    stream = serving.submit([5], max_new_tokens=40)
    serving.step()
    serving.submit([7] * 200, max_new_tokens=1)
    for _ in range(10):
        assert [o.request_id for o in serving.step()] == [stream]


def test_a_large_request_is_not_overtaken_for_ever() -> None:
    """Small ones keep coming; the large one waits for blocks at the head of the queue."""
    serving = Engine(language_model("tiny-draft"), num_blocks=8, block_size=4, max_batch=8)
    for _ in range(6):
        serving.submit([5, 6], max_new_tokens=4)
    large = serving.submit([7] * 28, max_new_tokens=2)
    for _ in range(60):
        serving.submit([5, 6], max_new_tokens=4)
        if any(o.request_id == large and o.finish_reason for o in serving.step()):
            return
    raise AssertionError("the large request was overtaken for 60 steps")
