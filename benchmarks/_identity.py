"""Do two engines say the same? Identical greedy tokens in float32, close logits in 16 bits.

Identical allows for one thing: where the two largest logits lie closer than 1e-3, the order in
which an engine adds up may decide, and what follows is another text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks._engines import Engine, Slmlab, Transformers

NEAR_TIE = 1e-3
# In units of the format's rounding step at the largest logit: roundings of every layer add up.
ROUNDING_STEPS = 8


@dataclass(frozen=True)
class Identity:
    """engines: who was compared. prompts: how many. tokens, of: new tokens that were equal in all
    engines, of all that were asked for. near_ties: prompts that ended early at nearly equal logits.
    """

    engines: tuple[str, ...]
    prompts: int
    tokens: int
    of: int
    near_ties: int


def same_tokens(
    ours: Slmlab, others: Sequence[Engine], prompts: Sequence[list[int]], new_tokens: int
) -> Identity:
    """Compare greedy continuations.

    A prompt ends early at an end-of-text token, which some engines forbid when no token may end
    the run, and where another engine cannot tell its ids. Raises ValueError at the first
    difference that is no near tie, and where less than half of the tokens could be compared.
    """
    compared = near_ties = 0
    for prompt in prompts:
        wanted = ours.tokens(prompt, new_tokens)
        ends = [wanted.index(e) for e in ours.model.config.eos_token_ids if e in wanted]
        equal = min(ends, default=new_tokens)
        tied = False
        for other in others:
            found = other.tokens(prompt, new_tokens)
            equal = min(equal, len(found))
            at = first_difference(wanted[:equal], found)
            if at is None:
                continue
            gap = _top_two_gap(ours, prompt + wanted[:at])
            if gap >= NEAR_TIE:
                raise ValueError(
                    f"{other.name} differs from slmlab at new token {at}: {found[at]}, not "
                    f"{wanted[at]}, where the two largest logits are {gap:.4f} apart"
                )
            equal, tied = at, True
        compared += equal
        near_ties += tied
    total = len(prompts) * new_tokens
    if compared < total / 2:
        raise ValueError(
            f"only {compared} of {total} tokens could be compared: choose prompts that do not end "
            "at once and lead to plain text"
        )
    names = ("slmlab", *(other.name for other in others))
    return Identity(names, len(prompts), compared, total, near_ties)


def first_difference(wanted: Sequence[int], found: Sequence[int]) -> int | None:
    """Index of the first of the wanted tokens that is missing or another; None for none."""
    for at, token in enumerate(wanted):
        if at >= len(found) or found[at] != token:
            return at
    return None


def logit_difference(ours: Slmlab, theirs: Transformers, prompt: list[int]) -> float:
    """Largest difference of the next token's logits, over the largest logit.

    Raises ValueError where it exceeds what rounding to this format explains.
    """
    mine, other = ours.next_logits(prompt), theirs.next_logits(prompt)
    difference = ((mine - other).abs().max() / other.abs().max()).item()
    bound = ROUNDING_STEPS * torch.finfo(ours.model.dtype).eps
    if not difference <= bound:
        raise ValueError(
            f"logits in {ours.model.dtype} differ by {difference:.2g} of the largest, "
            f"more than {bound:.2g}"
        )
    return difference


def _top_two_gap(ours: Slmlab, tokens: list[int]) -> float:
    first, second = ours.next_logits(tokens).topk(2).values.tolist()
    return float(first - second)
