"""A snapshot says what the pool and the tables say, and no later step changes it."""

from __future__ import annotations

from typing import Any, cast

import pytest

import slmlab
from slmlab.serving import Engine
from slmlab.serving.snapshot import counted_step, snapshot


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


@pytest.mark.parametrize("sharing", [False, True])
def test_a_counted_step_sees_the_blocks_of_those_that_end_in_it(sharing: bool) -> None:
    lm = slmlab.load("tiny-draft")
    counted, plain = (Engine(lm, 6, 4, 4, 16, prefix_sharing=sharing) for _ in range(2))
    for engine in (counted, plain):
        for i in range(4):
            engine.submit([7, 8, 9, 10, 20 + i], max_new_tokens=2 + 3 * i)
    more_than_after = False
    while not counted.idle:
        before = {r.id: r for r in snapshot(counted).requests}
        outputs, used = counted_step(counted)
        # The same step as without counting, and the method that was watched is the class's own.
        assert [(o.request_id, o.token) for o in outputs] == [
            (o.request_id, o.token) for o in plain.step()
        ]
        assert "_forward" not in vars(counted)
        shot = snapshot(counted)
        ended = [o.request_id for o in outputs if o.finish_reason is not None]
        assert shot.num_used <= used <= 6
        if not ended:
            assert used == shot.num_used
        elif not sharing:
            # Of those that ended: everything known before the last token was stored.
            gone = sum(-(-before[i].tokens // 4) for i in ended)
            assert used == shot.num_used + gone
        more_than_after |= used > shot.num_used
    assert more_than_after and counted.stats["preemptions"] > 0
    assert counted_step(counted) == ([], 0)


@pytest.mark.parametrize("function", [snapshot, counted_step])
def test_only_an_engine_is_read(function: Any) -> None:
    with pytest.raises(TypeError, match="must be an Engine"):
        function(cast(Any, "engine"))
