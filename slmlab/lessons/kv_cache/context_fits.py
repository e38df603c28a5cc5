"""kv.context_fits: tokens of context that fit beside the weights, on paper."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from slmlab.checking import Case, Close, Exercise, Invariant, Mistake
from slmlab.kv import kv_bytes

# What the exercise prints. The shape is that of Llama-3.2-3B (huggingface.co/meta-llama/
# Llama-3.2-3B, config.json; parameters as in its model card).
MEMORY_BYTES, PARAMETERS, BITS_PER_WEIGHT = 4e9, 3.21e9, 4.5
CONVERSATIONS = 4
SHAPE = SimpleNamespace(
    num_hidden_layers=28, num_attention_heads=24, num_key_value_heads=8, head_dim=128
)
TOLERANCE = 0.03
SAME_MISTAKE = 0.005


def cases(seed: int) -> list[Case]:
    """One case without arguments: the numbers are fixed, so there is nothing to vary."""
    return [Case({})]


def _tokens(
    memory: float = MEMORY_BYTES,
    weights: float = PARAMETERS * BITS_PER_WEIGHT / 8,
    conversations: int = CONVERSATIONS,
    factor: float = 1.0,
) -> float:
    return (memory - weights) / (kv_bytes(SHAPE, 1, conversations) * factor)


def reference() -> float:
    """What the weights leave, over the bytes that one more token of each conversation takes."""
    return _tokens()


def within_tolerance(arguments: dict[str, Any], output: Any) -> str | None:
    """None within 3% of the reference, else how far off, without giving the number away."""
    if type(output) not in (int, float) or not math.isfinite(output):
        return "Return one number, in tokens: a float such as 1234.5."
    if output <= 0:
        return "Some context fits: the weights are smaller than the memory. By how much?"
    ratio = output / reference()
    if abs(ratio - 1) <= TOLERANCE:
        return None
    for mistake in CONTEXT_FITS.mistakes:
        # The sentence itself, so that a named mistake is not followed by its factor again.
        if abs(output / mistake.implementation() - 1) <= SAME_MISTAKE:
            return mistake.sentence
    way = "many" if ratio > 1 else "few"
    return (
        f"{output:,.0f} tokens are {max(ratio, 1 / ratio):.3g} times too {way}. Write down the bytes "
        "that are left and the bytes of one token: which of the two is off?"
    )


def _mistaken(**changes: Any) -> Callable[[], float]:
    return lambda: _tokens(**changes)


def _counted_by_hand() -> float:
    left = 4e9 - 3.21e9 * 4.5 / 8
    a_token = 2 * 28 * 8 * 128 * 2
    return left / a_token / 4


def _rounded_on_paper() -> float:
    return 2.2e9 / (4 * 115e3)


CONTEXT_FITS = Exercise(
    id="kv.context_fits",
    title="On paper: the context that still fits",
    points=2,
    minutes=7,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "query heads",
            "Three times too few: 24 query heads share 8 KV heads. Whose keys and values lie in "
            "the cache?",
            _mistaken(factor=3.0),
        ),
        Mistake(
            "keys without values",
            "Twice too many: you make room for keys alone. What does attention sum up once the "
            "keys are scored?",
            _mistaken(factor=0.5),
        ),
        Mistake(
            "weights forgotten",
            "You give all of the memory to the cache: the weights lie there too. How many GB are "
            "3.21e9 weights of 4.5 bits?",
            _mistaken(weights=0.0),
        ),
        Mistake(
            "one conversation",
            "That is the context of one conversation alone: four of them grow side by side. How "
            "many bytes does one step of all four add?",
            _mistaken(conversations=1),
        ),
        Mistake(
            "one layer",
            "28 times too many: every layer keeps keys and values of its own. Which factor counts "
            "the layers?",
            _mistaken(factor=1 / 28),
        ),
        Mistake(
            "GiB for GB",
            "You take a GB as 2**30 bytes and so find room that is not there: the table counts "
            "10**9. How many bytes are left beside the weights?",
            _mistaken(memory=4 * 2**30),
        ),
    ),
    hints=(
        "Weights and cache together fill the memory exactly. Which bytes are there before the "
        "first token, and how many does one more token of every conversation add?",
        "A smaller one: 1 GB, 1e9 weights of 4 bits, 10 layers, 4 KV heads of 64, 16 bits, 2 "
        "conversations. Left: 1e9 - 0.5e9 = 0.5e9 bytes. A token: 2 * 10 * 4 * 64 * 2 = 10,240 "
        "bytes, two of them 20,480. 0.5e9 / 20,480 = 24,414 tokens.",
        "left = memory - parameters * bits / 8\n"
        "a token = 2 (keys, values) * layers * kv_heads * head_dim * 2 bytes\n"
        "return left / (conversations * a token)",
    ),
    compare=Invariant(within_tolerance, match=Close(rtol=SAME_MISTAKE, atol=0.0)),
    alternatives=(_counted_by_hand, _rounded_on_paper),
    unit="tokens",
)
