"""A language of a few tokens, small enough to add up every way a round can go."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product

import torch
from torch import Tensor

from slmlab.speculative import acceptance_probabilities, residual_distribution

Prefix = tuple[int, ...]
Table = Callable[[Prefix], Tensor]  # text -> distribution of the next token, (V,) float64


def random_table(vocabulary: int, seed: int, sharpness: float = 1.5) -> Table:
    """A distribution for every text, by a seed: no two texts have the same."""

    @cache
    def next_token(prefix: Prefix) -> Tensor:
        number = seed
        for token in prefix:
            number = number * 31 + token + 1
        generator = torch.Generator().manual_seed(number % 2**31)
        logits = torch.randn(vocabulary, generator=generator, dtype=torch.float64) * sharpness
        return logits.softmax(-1)

    return next_token


def joint(p: Table, vocabulary: int, length: int) -> dict[Prefix, float]:
    """Probability of every text of this length under plain sampling."""
    texts = {}
    for text in product(range(vocabulary), repeat=length):
        chance = 1.0
        for i, token in enumerate(text):
            chance *= float(p(text[:i])[token])
        texts[text] = chance
    return texts


def rounds(p: Table, q: Table, vocabulary: int, gamma: int, prefix: Prefix) -> dict[Prefix, float]:
    """Probability of every outcome of one round: the accepted tokens and one more.

    Adds up all proposals and all places of the first rejection, with the package's own acceptance
    probabilities and residual.
    """
    outcomes: dict[Prefix, float] = {}

    def add(text: Prefix, chance: float) -> None:
        outcomes[text] = outcomes.get(text, 0.0) + chance

    for proposal in product(range(vocabulary), repeat=gamma):
        chance = 1.0
        for i, token in enumerate(proposal):
            before = prefix + proposal[:i]
            target, draft = p(before), q(before)
            drawn = chance * float(draft[token])
            if drawn == 0.0:  # never proposed
                chance = 0.0
                break
            keep = float(
                acceptance_probabilities(torch.tensor([token]), draft[None], target[None])[0]
            )
            residual = residual_distribution(draft, target)
            # Everything behind position i is summed over: it was proposed in vain.
            share = drawn * (1 - keep) / vocabulary ** (gamma - 1 - i)
            for other in range(vocabulary):
                add((*proposal[:i], other), share * float(residual[other]))
            chance = drawn * keep
        target = p(prefix + proposal)
        for other in range(vocabulary):
            add((*proposal, other), chance * float(target[other]))
    return outcomes


def speculative_joint(
    p: Table, q: Table, vocabulary: int, gamma: int, length: int
) -> dict[Prefix, float]:
    """Probability of every text of this length, written in rounds and cut where it is too long."""
    done: dict[Prefix, float] = {}
    open_: dict[Prefix, float] = {(): 1.0}
    while open_:
        prefix, chance = open_.popitem()
        for outcome, share in rounds(p, q, vocabulary, gamma, prefix).items():
            text = (prefix + outcome)[:length]
            into = done if len(text) == length else open_
            into[text] = into.get(text, 0.0) + chance * share
    return done


def length_distribution(p: Table, q: Table, vocabulary: int, gamma: int) -> list[float]:
    """Chance that a round from the start gives 1, 2, .. gamma + 1 tokens."""
    chances = [0.0] * (gamma + 1)
    for outcome, chance in rounds(p, q, vocabulary, gamma, ()).items():
        chances[len(outcome) - 1] += chance
    return chances
