"""A snapshot says what the pool and the tables say, and no later step changes it."""

from __future__ import annotations

from typing import Any, cast

import pytest

import slmlab
from slmlab.serving import Engine
from slmlab.serving.snapshot import snapshot


def test_a_snapshot_of_a_busy_engine_agrees_with_its_pool() -> None:
    lm = slmlab.load("tiny-draft")
    engine = Engine(lm, num_blocks=9, block_size=4, max_batch=4, token_budget=16)
    head = list(range(10, 20))
    engine.submit(head, max_new_tokens=12)
    engine.step()
    for i in range(3):
        engine.submit([*head, 30 + i], max_new_tokens=12)
    seen_sharing = seen_waiting = False
    while not engine.idle:
        engine.step()
        shot, pool = snapshot(engine), engine.pool
        assert shot.num_used == pool.num_used and len(shot.cached) == pool.num_cached
        assert shot.steps == engine.stats["steps"]
        assert shot.computed_tokens == engine.stats["computed_tokens"]
        assert shot.preemptions == engine.stats["preemptions"]
        for block, (owners, filled) in enumerate(zip(shot.owners(), shot.filled(), strict=True)):
            assert len(owners) == shot.references[block] == pool.references(block)
            assert (0 < filled <= 4) if owners else filled == 0
        for r in shot.requests:
            assert len(r.blocks) * 4 >= r.stored and r.tokens >= r.prompt_tokens
            if not r.running:
                assert r.stored == 0 and not r.blocks
        stored = sum(r.stored for r in shot.requests)
        if shot.num_shared == 0 and shot.num_used:
            assert shot.waste == pytest.approx(1 - stored / (4 * shot.num_used))
        seen_sharing |= shot.num_shared > 0
        seen_waiting |= any(not r.running for r in shot.requests)
    assert seen_sharing and seen_waiting and shot.preemptions > 0
    assert snapshot(engine).requests == () and snapshot(engine).waste == 0.0


def test_a_snapshot_is_of_an_engine() -> None:
    with pytest.raises(TypeError, match="must be an Engine"):
        snapshot(cast(Any, "engine"))
