"""The same submission gets the same grade, whatever it draws its random numbers from."""

from __future__ import annotations

from tests.grading.inside.host import Host, ends

DRAWS = """
import os, random, secrets, uuid
import numpy as np
import torch
g = torch.Generator()
print(random.random(), random.Random().random(), random.SystemRandom().random(), secrets.token_hex(4))
print(np.random.rand(), np.random.default_rng().random(), np.random.RandomState().rand())
print(os.urandom(3), uuid.uuid4(), torch.rand(()), g.seed(), torch.rand((), generator=g), torch.seed())
random.seed(); np.random.seed()
print(random.random(), np.random.rand(), isinstance(torch.default_generator, torch.Generator))
print(random.Random(5).random(), torch.Generator().manual_seed(5).initial_seed())
"""


def test_all_random_numbers_come_from_the_seed(host: Host) -> None:
    def drawn(seed: int) -> list[str]:
        (end,) = ends(host.run([DRAWS], seed=seed)[0])
        assert end["state"] == "ran", end
        text: str = end["printed"]
        return text.split()

    first, other = drawn(1), drawn(2)
    assert drawn(1) == first
    same = [a for a, b in zip(first, other, strict=True) if a == b]
    assert same == ["True", "0.6229016948897019", "5"]
