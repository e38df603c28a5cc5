"""paging.requests_that_fit: how many requests a paged KV memory serves at once, on paper."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from slmlab.checking import Case, Close, Exercise, Invariant, Mistake
from slmlab.checking.numbers_text import quantity
from slmlab.kv import kv_bytes

# What the exercise prints: Llama-3.2-3B's attention, rounded traffic.
LAYERS, QUERY_HEADS, KV_HEADS, HEAD_DIM = 28, 24, 8, 128
POOL_BYTES, TOKENS, LONGEST, BLOCK_SIZE = 6e9, 420, 4096, 32
TOLERANCE = 0.02
SAME_MISTAKE = 0.003


def cases(seed: int) -> list[Case]:
    """One case without arguments: the numbers are fixed, so there is nothing to vary."""
    return [Case({})]


def reference() -> float:
    """Bytes of the pool over the bytes of a request, its half empty block included."""
    config = SimpleNamespace(
        num_hidden_layers=LAYERS,
        num_attention_heads=QUERY_HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM,
    )
    return POOL_BYTES / kv_bytes(config, TOKENS + BLOCK_SIZE // 2, dtype="float16")


def within_tolerance(arguments: dict[str, Any], output: Any) -> str | None:
    """None within 2% of the reference, else how far off, without giving the number away."""
    if type(output) not in (int, float) or not math.isfinite(output):
        return "Return one number of requests: an int or a float such as 12.3."
    if output <= 0:
        return "A number of requests is positive: bytes of the pool over bytes of a request."
    ratio = output / reference()
    if abs(ratio - 1) <= TOLERANCE:
        return None
    how_far = (
        f"Your estimate is {quantity(max(ratio, 1 / ratio), 3)} times too "
        f"{'large' if ratio > 1 else 'small'}."
    )
    if abs(ratio / (2**30 / 1e9) - 1) <= SAME_MISTAKE:
        return f"{how_far} 6 GB here are 6e9 bytes, not 6 * 2**30."
    if any(
        abs(output / wrong() - 1) <= SAME_MISTAKE for m in MISTAKES for wrong in m.implementations
    ):
        return how_far  # The mistake's own question stands before it.
    return f"{how_far} Write the bytes of one token as a product of five numbers: which one is off?"


def _requests(
    *,
    layers: int = LAYERS,
    heads: int = KV_HEADS,
    both: int = 2,
    width: int = 2,
    slots: float = TOKENS + BLOCK_SIZE / 2,
) -> float:
    return POOL_BYTES / (both * layers * heads * HEAD_DIM * width * slots)


def _mistaken(**changes: Any) -> Callable[[], float]:
    return lambda: _requests(**changes)


def _by_blocks() -> float:
    token = 2 * 28 * 8 * 128 * 2
    block = 32 * token
    blocks_in_all = 6e9 / block
    return blocks_in_all / (420 / 32 + 0.5)


def _rounded_on_paper() -> float:
    return 6000 / (0.115 * 436)


MISTAKES = (
    Mistake(
        "query heads counted",
        "You count the query heads: three of them share a KV head here, and only KV heads are "
        "stored. Which of the two numbers goes into the product?",
        _mistaken(heads=QUERY_HEADS),
    ),
    Mistake(
        "keys without values",
        "You store one tensor a layer: every token leaves a key and a value. Where is the factor "
        "of two?",
        _mistaken(both=1),
    ),
    Mistake(
        "four bytes a number",
        "You count four bytes a number, and the cache is in fp16. How many bits is that?",
        _mistaken(width=4),
    ),
    Mistake(
        "reserved to the longest",
        "You give every request room for the longest one: that is the server without paging. How "
        "many tokens does a request hold on average?",
        _mistaken(slots=LONGEST),
    ),
    Mistake(
        "layers forgotten",
        "You count the bytes of one layer: every layer stores its own keys and values. How many "
        "layers are there?",
        _mistaken(layers=1),
    ),
    Mistake(
        "last block not half empty",
        "The bytes of a token are right and the places of a request are not: its last block counts "
        "as half empty, not as full, as lost, or rounded up. What do you add to the average?",
        _mistaken(slots=TOKENS),
        (
            _mistaken(slots=TOKENS + BLOCK_SIZE),
            _mistaken(slots=-(-TOKENS // BLOCK_SIZE) * BLOCK_SIZE),
        ),
    ),
)

REQUESTS_THAT_FIT = Exercise(
    id="paging.requests_that_fit",
    title="On paper: how many requests fit",
    points=2,
    minutes=6,
    difficulty=1,
    cases=cases,
    reference=reference,
    mistakes=MISTAKES,
    hints=(
        "Bytes of the pool = requests * places a request takes * bytes a place. Places are stored "
        "tokens and what is empty behind them. Which factor have you left out, or put in twice?",
        "A smaller one: 2 layers, 1 KV head of 64, fp16: 2 * 2 * 1 * 64 * 2 = 512 bytes a token. "
        "Requests of 85 tokens in blocks of 30: 85 + 15 places, 51,200 bytes. A pool of 1.024 MB "
        "serves 20.",
        "bytes a token = 2 * layers * KV heads * head_dim * 2\n"
        "places a request = tokens on average + half a block\n"
        "return pool bytes / (places * bytes a token)",
    ),
    compare=Invariant(within_tolerance, match=Close(rtol=SAME_MISTAKE, atol=0.0)),
    alternatives=(_by_blocks, _rounded_on_paper),
    unit="requests",
)
