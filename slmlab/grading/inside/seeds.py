"""Gives everything that draws random numbers a seed, also what takes its own from the system.

The same submission must get the same grade twice. A `torch.Generator` whose seed() is called on
the object takes it from the processor and is out of reach.
"""

from __future__ import annotations

import os
import random
import secrets
import sys
from typing import Any


def sow(seed: int) -> None:
    """Seeds random, numpy and torch, and puts one stream of bytes in place of the system's."""
    stream = random.Random(f"system {seed}")
    _replace_system(stream)
    random.seed(seed)
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        numpy.random.seed(seed % 2**32)
        # What SeedSequence() asks, and so default_rng() and every bit generator.
        sys.modules["numpy.random.bit_generator"].randbits = secrets.randbits  # type: ignore[attr-defined]
    if torch is not None:
        torch.manual_seed(seed % 2**63)
        _replace_torch(torch, stream)


def _replace_system(stream: random.Random) -> None:
    """os.urandom, with it uuid4(), SystemRandom and secrets; Random() and random.seed()."""
    drawn, seeded = stream.randbytes, random.Random.seed

    def urandom(size: int, /) -> bytes:
        return drawn(size)

    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        seeded(self, drawn(32) if a is None else a, version)

    os.urandom = random._urandom = urandom  # type: ignore[attr-defined]
    random.Random.seed = seed  # type: ignore[method-assign, assignment]
    random.seed = random._inst.seed  # type: ignore[attr-defined]


def _replace_torch(torch: Any, stream: random.Random) -> None:
    """torch.seed(), and seed() of a generator that is made from here on."""
    original = torch.Generator

    class Kind(type(original)):  # type: ignore[misc]
        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, original)

    class Generator(original, metaclass=Kind):  # type: ignore[misc, valid-type]
        def seed(self) -> int:
            number: int = stream.getrandbits(63)
            self.manual_seed(number)
            return number

    def seed() -> int:
        number: int = stream.getrandbits(63)
        torch.manual_seed(number)
        return number

    Generator.__module__, Generator.__qualname__ = "torch", "Generator"
    torch.Generator = Generator
    torch.seed = torch.random.seed = seed
