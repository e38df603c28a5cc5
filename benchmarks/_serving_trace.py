"""Seeded requests for the serving race: prompts, lengths, and when they arrive."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

_FIRST_ID = 8  # the ids before it are special in the tiny tokenizer


@dataclass(frozen=True)
class Asked:
    """One request. arrival: the engine step before which it is submitted."""

    prompt: tuple[int, ...]
    new_tokens: int
    arrival: int = 0

    @property
    def tokens(self) -> int:
        """Prompt and answer together."""
        return len(self.prompt) + self.new_tokens


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of a data set's requests.

    Kwon et al. 2023, arXiv:2309.06180, figure 11, prints the means. That lengths are log-normal
    with a sigma of 1 is this benchmark's own assumption.
    """

    name: str
    prompt_mean: float
    new_mean: float


SHAREGPT = Lengths("ShareGPT", 161.31, 337.99)
ALPACA = Lengths("Alpaca", 19.31, 58.45)


def mixed(
    requests: int, vocabulary: int, prompt: tuple[int, int], new: tuple[int, int], seed: int = 0
) -> list[Asked]:
    """Requests with lengths drawn evenly from both ranges, ends included; all arrive at once."""
    draw = random.Random(seed)
    return [
        Asked(_ids(draw, vocabulary, draw.randint(*prompt)), draw.randint(*new))
        for _ in range(requests)
    ]


def paper_like(
    lengths: Lengths, requests: int, vocabulary: int, positions: int, divide: int = 1, seed: int = 0
) -> list[Asked]:
    """Requests with a data set's lengths, each divided by ``divide`` and cut to ``positions``.

    A request that is too long keeps its prompt up to half the positions; its answer gets the rest.
    """
    # Lengths and ids are drawn apart, so that another ``divide`` scales the very same requests.
    draw, draw_ids = random.Random(seed), random.Random(seed + 1)

    def length(mean: float) -> int:
        # exp(mu + 1/2) is the mean of a log-normal with a sigma of 1.
        return max(1, round(mean / divide * draw.lognormvariate(-0.5, 1.0)))

    trace = []
    for _ in range(requests):
        asked, answer = length(lengths.prompt_mean), length(lengths.new_mean)
        if asked + answer > positions:
            asked = min(asked, positions // 2)
            answer = min(answer, positions - asked)
        trace.append(Asked(_ids(draw_ids, vocabulary, asked), answer))
    return trace


def poisson(trace: Sequence[Asked], steps_between: float, seed: int = 0) -> list[Asked]:
    """The same requests, arriving one by one: times between are exponential, in engine steps."""
    draw = random.Random(seed)
    at, arriving = 0.0, []
    for asked in trace:
        arriving.append(replace(asked, arrival=int(at)))
        at += draw.expovariate(1 / steps_between)
    return arriving


def distinct_ids(vocabulary: int, tokens: int, seed: int) -> list[int]:
    """Seeded prompt ids, none of them special."""
    return list(_ids(random.Random(seed), vocabulary, tokens))


def _ids(draw: random.Random, vocabulary: int, tokens: int) -> tuple[int, ...]:
    return tuple(draw.randrange(_FIRST_ID, vocabulary) for _ in range(tokens))
