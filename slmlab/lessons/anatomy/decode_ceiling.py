"""anatomy.decode_ceiling: tokens a second from a datasheet, on paper."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from slmlab.checking import Case, Close, Exercise, Invariant, Mistake
from slmlab.kv import kv_bytes

# The datasheet that the exercise prints. The shape is that of a published 1.24-billion model.
PARAMETERS, BITS_PER_WEIGHT = 1.24e9, 4.5
BANDWIDTH_BYTES_S, CONTEXT = 50e9, 8192
SHAPE = SimpleNamespace(
    num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8, head_dim=64
)
TOLERANCE = 0.03
# An empty cache and one layer's cache differ by 2.4%: a mistake is matched more closely.
SAME_MISTAKE = 0.01
IN_MILLISECONDS = (
    "That is the time of one token in milliseconds, and the answer is a rate in tokens a second. "
    "How many such times fit into one second?"
)


def cases(seed: int) -> list[Case]:
    """One case without arguments: the datasheet is fixed, so there is nothing to vary."""
    return [Case({})]


def _tokens_a_second(weight_bytes: float, cache_bytes: float) -> float:
    return BANDWIDTH_BYTES_S / (weight_bytes + cache_bytes)


def reference() -> float:
    """Bandwidth over the bytes of all weights and of the cache."""
    return _tokens_a_second(PARAMETERS * BITS_PER_WEIGHT / 8, kv_bytes(SHAPE, CONTEXT))


def within_tolerance(arguments: dict[str, Any], output: Any) -> str | None:
    """None within 3% of the reference, else how far off, without giving the number away."""
    if type(output) not in (int, float) or not math.isfinite(output):
        return "Return one number, in tokens a second: a float such as 12.3."
    if output <= 0:
        return "A rate is positive: bytes a second over bytes a token."
    ratio = output / reference()
    if abs(ratio - 1) <= TOLERANCE:
        return None
    if abs(output / _milliseconds() - 1) <= SAME_MISTAKE:
        # No term is off here: only the unit is.
        return IN_MILLISECONDS
    way = "high" if ratio > 1 else "low"
    return (
        f"Your estimate is {max(ratio, 1 / ratio):.3g} times too {way}. Write the bytes of one "
        "token as a sum: which term is off?"
    )


def _mistaken(weight_bytes: float, cache_bytes: float) -> Callable[[], float]:
    return lambda: _tokens_a_second(weight_bytes, cache_bytes)


def _milliseconds() -> float:
    return 1000 / reference()


def _counted_by_hand() -> float:
    weights = 1.24e9 * 4.5 / 8
    cache = 2 * 16 * 8 * 64 * 2 * 8192
    return 50e9 / (weights + cache)


def _rounded_on_paper() -> float:
    return 50 / (0.70 + 0.27)


_WEIGHTS, _CACHE = PARAMETERS * BITS_PER_WEIGHT / 8, float(kv_bytes(SHAPE, CONTEXT))

DECODE_CEILING = Exercise(
    id="anatomy.decode_ceiling",
    title="On paper: the decode ceiling of a phone",
    points=2,
    minutes=6,
    difficulty=1,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "bits treated as bytes",
            "About six times too slow: 4.5 is in bits, bandwidth is in bytes. How large is the "
            "model in gigabytes?",
            _mistaken(PARAMETERS * BITS_PER_WEIGHT, _CACHE),
        ),
        Mistake(
            "KV cache forgotten",
            "That is the ceiling of an empty context: what else is read for each token once 8,192 "
            "of them are cached?",
            _mistaken(_WEIGHTS, 0.0),
        ),
        Mistake(
            "KV cache of query heads",
            "Your cache is four times too large: 32 query heads share 8 KV heads. Whose keys and "
            "values are stored?",
            _mistaken(_WEIGHTS, 4 * _CACHE),
        ),
        Mistake(
            "keys without values",
            "Your cache is half of what it should be: attention scores the keys, and then sums "
            "what?",
            _mistaken(_WEIGHTS, _CACHE / 2),
        ),
        Mistake(
            "cache of one layer",
            "Your cache is 16 times too small: every layer has one. Which factor of the cache "
            "counts them?",
            _mistaken(_WEIGHTS, _CACHE / SHAPE.num_hidden_layers),
        ),
        Mistake(
            "milliseconds a token",
            IN_MILLISECONDS,
            _milliseconds,
        ),
    ),
    hints=(
        "No token comes out before every weight and every cached key and value has been read once. "
        "What are those bytes, and how often a second can the memory deliver them?",
        "A smaller one in three steps, 0.5e9 parameters at 8 bits, 10 layers, 4 KV heads of 64, "
        "1,000 tokens in fp16, 20 GB/s: weights 0.5 GB; cache 2*10*4*64*2*1,000 bytes = 0.01024 GB; "
        "20 / 0.51024 = 39.2 tokens a second.",
        "weights = parameters * bits / 8\n"
        "cache = 2 (keys, values) * layers * kv_heads * head_dim * 2 bytes * tokens\n"
        "return bandwidth / (weights + cache)",
    ),
    compare=Invariant(within_tolerance, match=Close(rtol=SAME_MISTAKE, atol=0.0)),
    alternatives=(_counted_by_hand, _rounded_on_paper),
    unit="tok/s",
)
