"""One request: what was asked, how far it is, and what came out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import torch

from slmlab.generation.sampling import check_sampling, check_seed
from slmlab.generation.text_stream import TextStream
from slmlab.kv import PagedCache
from slmlab.models.fields import check_whole

FinishReason = Literal["stop", "length", "cancelled", "error"]
MOST_LOGPROBS = 20


class State(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(frozen=True)
class SamplingParams:
    """How a request picks its tokens and where it ends.

    temperature: 0 is greedy. seed: makes sampling repeatable; None draws a fresh one. stop: texts
    that end the request and are not part of it. logprobs: alternatives to report with each token,
    0 for the chosen one only, None for none.

    Raises:
        ValueError, TypeError: a setting out of range or of the wrong type, named.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None

    def __post_init__(self) -> None:
        check_whole("max_new_tokens", self.max_new_tokens)
        check_sampling(self.temperature, self.top_k, self.top_p)
        if self.seed is not None:
            check_seed(self.seed)
        for text in self.stop:
            if not isinstance(text, str):
                raise TypeError(f"stop must be a str or a list of them, not {text!r}")
            if not text:
                raise ValueError("stop holds an empty text, which would end every request at once")
        if self.logprobs is not None:
            check_whole("logprobs", self.logprobs, at_least=0)
            if self.logprobs > MOST_LOGPROBS:
                raise ValueError(f"logprobs={self.logprobs} must be at most {MOST_LOGPROBS}")


@dataclass(frozen=True)
class TokenLogprob:
    """log p of the chosen token and of the most likely ones, best first, at temperature 1."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Output:
    """What one step did for one request.

    token: the new id; None where the request ended without one. text: what became final with it,
    empty while a character or a stop text may still be incomplete.
    """

    request_id: int
    token: int | None
    text: str
    finish_reason: FinishReason | None = None
    logprob: TokenLogprob | None = None


@dataclass(frozen=True)
class Completion:
    """A finished request. Times in seconds, from its submission; None where it never came to it."""

    request_id: int
    prompt_tokens: int
    cached_prompt_tokens: int
    tokens: list[int]
    text: str
    finish_reason: FinishReason
    queue_time: float | None
    ttft: float | None
    total_time: float
    preemptions: int
    logprobs: list[TokenLogprob] | None


@dataclass(eq=False)
class Request:
    """A request inside the engine. ``tokens`` is the prompt and everything generated so far."""

    id: int
    prompt: Sequence[int]
    params: SamplingParams
    cache: PagedCache
    text: TextStream
    generator: torch.Generator
    submitted: float
    tokens: list[int] = field(default_factory=list)
    state: State = State.WAITING
    admitted: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    cached_prompt_tokens: int = 0
    preemptions: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)

    @property
    def pending(self) -> int:
        """Tokens whose keys and values are not stored yet: 1 while decoding, more in prefill."""
        return len(self.tokens) - self.cache.length

    @property
    def new_tokens(self) -> list[int]:
        return self.tokens[len(self.prompt) :]

    def completion(self, reason: FinishReason) -> Completion:
        """What the request has come to, now that it ends."""
        return Completion(
            request_id=self.id,
            prompt_tokens=len(self.prompt),
            cached_prompt_tokens=self.cached_prompt_tokens,
            tokens=self.new_tokens,
            text=self.text.text,
            finish_reason=reason,
            queue_time=None if self.admitted is None else self.admitted - self.submitted,
            ttft=None if self.first_token is None else self.first_token - self.submitted,
            total_time=time.perf_counter() - self.submitted,
            preemptions=self.preemptions,
            logprobs=None if self.params.logprobs is None else self.logprobs,
        )
