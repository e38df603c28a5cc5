"""What an engine holds between two steps and within one, as data that no later step changes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from slmlab.serving.engine import Engine
from slmlab.serving.request import Output, Request, State
from slmlab.serving.scheduler import Scheduled


@dataclass(frozen=True)
class RequestSnapshot:
    """One request that waits or runs.

    tokens: known so far, prompt and generated. stored: of these, how many have keys and values in
    blocks. blocks: its block table. cached_prompt_tokens: taken from shared blocks at its first
    admission. preemptions: how often it gave its blocks back.
    """

    id: int
    running: bool
    prompt_tokens: int
    tokens: int
    stored: int
    blocks: tuple[int, ...]
    cached_prompt_tokens: int
    preemptions: int


@dataclass(frozen=True)
class Snapshot:
    """The pool and every request that has not finished, by id.

    steps, computed_tokens, preemptions: counts since the engine was made. references: of each
    block, how many block tables hold it. cached: blocks without a reference whose text can still
    be taken up.
    """

    steps: int
    computed_tokens: int
    preemptions: int
    block_size: int
    references: tuple[int, ...]
    cached: frozenset[int]
    requests: tuple[RequestSnapshot, ...]

    @property
    def num_used(self) -> int:
        """Blocks with at least one reference."""
        return sum(count > 0 for count in self.references)

    @property
    def num_shared(self) -> int:
        """Blocks that more than one table holds."""
        return sum(count > 1 for count in self.references)

    def owners(self) -> tuple[tuple[int, ...], ...]:
        """Of each block, the ids of the requests whose tables hold it, rising."""
        found: list[list[int]] = [[] for _ in self.references]
        for request in self.requests:
            for block in request.blocks:
                found[block].append(request.id)
        return tuple(tuple(sorted(ids)) for ids in found)

    def filled(self) -> tuple[int, ...]:
        """Of each block, how many of its places hold a token of a request, 0 .. block_size."""
        found = [0] * len(self.references)
        for request in self.requests:
            for place, block in enumerate(request.blocks):
                here = request.stored - place * self.block_size
                found[block] = max(found[block], min(max(here, 0), self.block_size))
        return tuple(found)

    @property
    def waste(self) -> float:
        """Of the places in used blocks, the share that holds no token; 0 where none is used."""
        places = self.num_used * self.block_size
        return 1 - sum(self.filled()) / places if places else 0.0


def counted_step(engine: Engine) -> tuple[list[Output], int]:
    """Run one step of an engine; what it gave, and how many blocks were in use during its pass.

    A snapshot taken after the step can show fewer: a request that ended in it has given its blocks
    back by then. Memory has to suffice for the pass.

    Raises:
        TypeError: no Engine.
    """
    _check(engine)
    forward, used = engine._forward, 0

    def counted(plan: list[Scheduled]) -> Tensor:
        # All that this step reserves is reserved, and nothing is given back yet.
        nonlocal used
        used = engine.pool.num_used
        return forward(plan)

    engine._forward = counted  # type: ignore[method-assign]
    try:
        outputs = engine.step()
    finally:
        del engine._forward
    return outputs, used


def snapshot(engine: Engine) -> Snapshot:
    """Read an engine between two steps; nothing in it changes.

    Raises:
        TypeError: no Engine.
    """
    _check(engine)
    pool = engine.pool
    references = tuple(pool.references(block) for block in range(pool.num_blocks))
    return Snapshot(
        steps=engine._counters.steps,
        computed_tokens=engine._counters.computed_tokens,
        preemptions=engine._counters.preemptions,
        block_size=pool.block_size,
        references=references,
        cached=frozenset(b for b, n in enumerate(references) if n == 0 and b in pool.prefixes),
        requests=tuple(_read(engine._requests[i]) for i in sorted(engine._requests)),
    )


def _check(engine: Engine) -> None:
    if not isinstance(engine, Engine):
        raise TypeError(f"engine must be an Engine, not {type(engine).__name__}")


def _read(request: Request) -> RequestSnapshot:
    return RequestSnapshot(
        id=request.id,
        running=request.state is State.RUNNING,
        prompt_tokens=len(request.prompt),
        tokens=len(request.tokens),
        stored=request.cache.length,
        blocks=tuple(request.cache.block_table),
        cached_prompt_tokens=request.cached_prompt_tokens,
        preemptions=request.preemptions,
    )
