"""Ways to answer a trace of requests, slmlab's own: one after another, and the Engine.

All ways answer greedily in float32, and no token ends an answer: all have the same work.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks._serving_trace import Asked
from slmlab.generation import LanguageModel, generate_tokens
from slmlab.models import Decoder
from slmlab.serving import Engine

BLOCK_SIZE = 16
TOKEN_BUDGET = 256


@dataclass
class Run:
    """What one pass over a trace gave, in the order of the trace.

    tokens: new ids a request; None where the way cannot tell them. ttft: seconds to the first
    token, from the request's arrival; None where nothing comes out before the last token.
    stats: the Engine's.
    """

    tokens: list[list[int]] | None
    ttft: list[float] | None
    stats: dict[str, Any] = field(default_factory=dict)


class Way(ABC):
    """Something that answers a trace. at_once: how many of its requests may run together."""

    name: str
    at_once: int

    def ready(self, trace: Sequence[Asked]) -> AbstractContextManager[Any]:
        """What has to stand around ``run`` and is not timed."""
        return nullcontext()

    @abstractmethod
    def run(self, trace: Sequence[Asked]) -> Run:
        """Answer all requests. All have arrived at the start, unless said otherwise."""


def endless(model: Decoder) -> Decoder:
    """The decoder itself, told that no token ends a text."""
    model.config = replace(model.config, eos_token_ids=())
    return model


def blocks_for(trace: Sequence[Asked], at_once: int, block_size: int = BLOCK_SIZE) -> int:
    """Blocks that ``at_once`` of the longest requests fill."""
    return at_once * -(-max(asked.tokens for asked in trace) // block_size)


class Sequential(Way):
    """The plain loop, one request after another."""

    name, at_once = "sequential", 1

    def __init__(self, model: Decoder) -> None:
        self.model = model

    def run(self, trace: Sequence[Asked]) -> Run:
        start = time.perf_counter()
        answers, ttft = [], []
        for asked in trace:
            tokens = generate_tokens(
                self.model, list(asked.prompt), max_new_tokens=asked.new_tokens
            )
            answer = [next(tokens)]
            ttft.append(time.perf_counter() - start)
            answers.append(answer + list(tokens))
        return Run(answers, ttft)


class Ours(Way):
    """The Engine, made anew for every run. Its pool is large enough that nothing is preempted."""

    name = "engine"

    def __init__(self, lm: LanguageModel, at_once: int, block_size: int = BLOCK_SIZE) -> None:
        self.lm, self.at_once, self.block_size = lm, at_once, block_size

    def run(self, trace: Sequence[Asked]) -> Run:
        """A request is submitted before the step that its ``arrival`` names."""
        engine = Engine(
            self.lm,
            num_blocks=blocks_for(trace, self.at_once, self.block_size),
            block_size=self.block_size,
            max_batch=self.at_once,
            token_budget=TOKEN_BUDGET,
        )
        coming, ids, step = list(trace), [], 0
        while coming or not engine.idle:
            while coming and coming[0].arrival <= step:
                asked = coming.pop(0)
                ids.append(engine.submit(asked.prompt, max_new_tokens=asked.new_tokens))
            engine.step()
            step += 1
        done = [engine.result(i) for i in ids]
        ttft = [each.ttft for each in done if each.ttft is not None]
        return Run([each.tokens for each in done], ttft, engine.stats)
