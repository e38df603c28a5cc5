"""What the scrubber of lesson 05 says about one pass: a function of recorded runs, no picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slmlab.generation import LanguageModel
from slmlab.serving import Engine
from slmlab.serving.snapshot import Snapshot
from slmlab.widgets.paged_serving_bench import Ask, Recording, record, sharing_trace
from slmlab.widgets.units import digits

POOLS = (12, 14, 16, 20, 22, 23, 24, 32)
BLOCK_SIZE, MAX_BATCH, TOKEN_BUDGET, EVERY = 16, 8, 64, 2
QUESTION = "How many blocks does this trace need before no token is computed twice?"


@dataclass(frozen=True)
class State:
    """One setting of the controls. blocks: of the pool. at: the forward pass, from 1."""

    blocks: int = 14
    at: int = 20


@dataclass(frozen=True)
class View:
    """What is shown for a state.

    used: blocks in use during the pass; frame has those after it. twice: tokens computed a second
    time up to here. headline, memory, queue, work: one sentence
    each. events: what happened in this pass.
    """

    state: State
    frame: Snapshot
    used: int
    twice: int
    headline: str
    memory: str
    queue: str
    work: str
    events: tuple[str, ...]

    @property
    def text(self) -> str:
        """All sentences in reading order."""
        return " ".join((self.headline, self.memory, self.queue, self.work, *self.events))


class Runs:
    """The same requests through one real engine for each pool size, recorded pass by pass.

    lm: what ``slmlab.load`` returns. asks: the requests, one arriving every ``EVERY`` passes; a
    short trace in which every second one begins with the same tokens, if not given.

    Raises:
        TypeError: no LanguageModel.
        ValueError: no pools, more than 26 requests (each has a letter).
    """

    def __init__(
        self, lm: LanguageModel, asks: Sequence[Ask] | None = None, pools: Sequence[int] = POOLS
    ) -> None:
        if not isinstance(lm, LanguageModel):
            raise TypeError(f"lm must be what slmlab.load returns, not {type(lm).__name__}")
        self.asks = list(sharing_trace(lm) if asks is None else asks)
        self.pools = tuple(sorted(pools))
        if not self.pools:
            raise ValueError("pools is empty: give at least one number of blocks")
        if not 1 <= len(self.asks) <= 26:
            raise ValueError(f"asks has {len(self.asks)} requests; give 1 to 26, a letter each")
        self.recordings: dict[int, Recording] = {}
        for blocks in self.pools:
            engine = Engine(lm, blocks, BLOCK_SIZE, MAX_BATCH, TOKEN_BUDGET)
            self.recordings[blocks] = record(engine, self.asks, f"{blocks} blocks", every=EVERY)
        self._twice = {blocks: _twice(run) for blocks, run in self.recordings.items()}

    def twice(self, blocks: int) -> list[int]:
        """Of each pass: tokens that had been computed before, summed from the start."""
        return self._twice[blocks]


def letter(request_id: int) -> str:
    """A for request 0, B for 1, ..."""
    return chr(ord("A") + request_id)


def _twice(run: Recording) -> list[int]:
    """Computed tokens less those that each request had to have: its furthest, less what it shared."""
    furthest: dict[int, int] = {}
    cached: dict[int, int] = {}
    ends = {r.id: r.prompt_tokens for frame in run.frames for r in frame.requests}
    totals = []
    before: frozenset[int] = frozenset()
    for frame in run.frames:
        here = {r.id for r in frame.requests}
        for r in frame.requests:
            furthest[r.id] = max(furthest.get(r.id, 0), r.stored)
            cached[r.id] = r.cached_prompt_tokens
        for gone in before - here:
            # The last token of a request is never an input.
            furthest[gone] = ends[gone] + len(run.tokens[gone]) - 1
        before = frozenset(here)
        needed = sum(furthest.values()) - sum(cached.values())
        totals.append(frame.computed_tokens - needed)
    return totals


def view(runs: Runs, state: State) -> View:
    """What to show for ``state``.

    Raises:
        ValueError: a pool that was not recorded, a pass that the run does not have.
    """
    _check(runs, state)
    run = runs.recordings[state.blocks]
    frame = run.frames[state.at - 1]
    previous = run.frames[state.at - 2] if state.at > 1 else None
    twice = runs.twice(state.blocks)[state.at - 1]
    used = run.used[state.at - 1]
    after = f" ({frame.num_used} when it had ended)" if used != frame.num_used else ""
    running = [r for r in frame.requests if r.running]
    waiting = [r for r in frame.requests if not r.running]
    waits = f", {_names(waiting)} wait{'s' if len(waiting) == 1 else ''}" if waiting else ""
    share = twice / frame.computed_tokens if frame.computed_tokens else 0.0
    return View(
        state=state,
        frame=frame,
        used=used,
        twice=twice,
        headline=(
            f"Pass {state.at} of {run.passes}: {used} of {state.blocks} blocks used{after}, "
            f"{twice} tokens computed twice so far."
        ),
        memory=(
            f"{digits(100 * frame.waste)} % of the places in used blocks are empty; "
            f"{_blocks(frame.num_shared)} shared by several requests, "
            f"{_blocks(len(frame.cached))} free but with a text that can still be taken up."
        ),
        queue=f"{_names(running) or 'Nobody'} run{'s' if len(running) <= 1 else ''}{waits}.",
        work=(
            f"{frame.computed_tokens} tokens computed so far, {digits(100 * share)} % of them for "
            f"the second time."
        ),
        events=_events(frame, previous),
    )


def _check(runs: Runs, state: State) -> None:
    if not isinstance(runs, Runs):
        raise TypeError(f"runs must be a Runs, got {type(runs).__name__}: pass Runs(lm)")
    if not isinstance(state, State):
        raise TypeError(f"state must be a State, got {type(state).__name__}")
    if state.blocks not in runs.recordings:
        raise ValueError(
            f"state.blocks={state.blocks!r} was not recorded; choose one of "
            f"{', '.join(map(str, runs.pools))}"
        )
    passes = runs.recordings[state.blocks].passes
    if type(state.at) is not int or not 1 <= state.at <= passes:
        raise ValueError(f"state.at={state.at!r}: this run has passes 1 to {passes}")


def _blocks(count: int) -> str:
    return f"{count} block{'' if count == 1 else 's'}"


def _names(requests: Sequence[Any]) -> str:
    return " ".join(letter(r.id) for r in requests)


def _events(frame: Snapshot, previous: Snapshot | None) -> tuple[str, ...]:
    before = {r.id: r for r in previous.requests} if previous else {}
    here = {r.id: r for r in frame.requests}
    found = []
    for r in frame.requests:
        old = before.get(r.id)
        if old is not None and r.preemptions > old.preemptions:
            found.append(f"{letter(r.id)} gave back {_blocks(len(old.blocks))}: preempted.")
        if r.running and (old is None or not old.running):
            came = f"{letter(r.id)} starts" + (" again" if r.preemptions else "")
            if r.preemptions == 0 and r.cached_prompt_tokens:
                came += f" with {r.cached_prompt_tokens} tokens that it did not have to compute"
            found.append(f"{came}.")
    ended = [letter(i) for i in before if i not in here]
    return (*found, *([f"{' '.join(ended)} ended."] if ended else []))


def never_twice(runs: Runs) -> int | None:
    """Answers `QUESTION`: the smallest pool from which on no token is computed twice.

    None where the largest one recorded still computes some twice.
    """
    best = None
    for blocks in reversed(runs.pools):
        if runs.twice(blocks)[-1]:
            return best
        best = blocks
    return best
