"""The only source of randomness of the grammar: choices that keep the account in bits."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

TRAINING = "training"
EVALUATION = "evaluation"
SPLITS = (TRAINING, EVALUATION)
HELD_OUT_ONE_IN = 20


class Chooser:
    """Uniform choices, with `bits` = -log2 of the probability of all of them together.

    Only `random.Random.random()` is called: its stream is the same on every Python version,
    while `choice`, `shuffle` and `randrange` are allowed to change.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.bits = 0.0

    def index(self, count: int) -> int:
        """An integer in [0, count), each with probability 1 / count."""
        if count < 1:
            raise ValueError(f"count is {count}: a choice needs at least one option.")
        self.bits += math.log2(count)
        return int(self._rng.random() * count)

    def between(self, low: int, high: int) -> int:
        """An integer in [low, high], both ends included."""
        return low + self.index(high - low + 1)

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`, which must differ from each other for `bits` to be exact."""
        return options[self.index(len(options))]

    def pick_distinct(self, options: Sequence[T], count: int) -> list[T]:
        """`count` different options in random order (n * (n - 1) * ... equally likely results)."""
        left = list(options)
        return [left.pop(self.index(len(left))) for _ in range(count)]


def stream(name: str, seed: int) -> random.Random:
    """A generator for one purpose: streams of different names never share a seed.

    The name and the seed are hashed together, so that seed 0 of "training" and seed 0 of
    "evaluation" are unrelated.
    """
    digest = hashlib.sha256(f"slmlab/{name}/{int(seed)}".encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


def is_held_out(kind: str, *parts: object) -> bool:
    """Whether a combination is one of the fixed 5% that training never shows."""
    digest = hashlib.sha256("\x1f".join((kind, *map(str, parts))).encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_ONE_IN == 0
