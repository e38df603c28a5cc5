"""distillation.stored_logits: what a teacher's top-k logits take on disk, on paper."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from slmlab.checking import Case, Close, Exercise, Invariant, Mistake
from slmlab.distill import top_k_logits

# What the exercise prints.
TOKENS, VOCABULARY, K = 120_000_000, 49_152, 16
GB = 1e9
TOLERANCE = 0.01
SAME_MISTAKE = 0.003


def cases(seed: int) -> list[Case]:
    """There is one table: nothing to vary."""
    return [Case({})]


def reference() -> float:
    """What the package stores for one position, times the positions."""
    one = torch.zeros(1, VOCABULARY, dtype=torch.float16)
    return TOKENS * top_k_logits(one, K).nbytes / GB


def _stored(value: int = 2, index: int = 4, rest: int = 4, k: int = K, gb: float = GB) -> float:
    return TOKENS * (k * (value + index) + rest) / gb


def within_tolerance(arguments: dict[str, Any], output: Any) -> str | None:
    """None within 1% of the reference, else how far off, without giving the number away."""
    if type(output) not in (int, float) or not math.isfinite(output):
        return "Return one number, the size in GB: a float such as 1.5."
    if output <= 0:
        return "A size is above 0: how many bytes does one position take?"
    ratio = output / reference()
    if abs(ratio - 1) <= TOLERANCE:
        return None
    if abs(ratio / GB - 1) <= TOLERANCE:
        return "You return bytes, and asked is GB: how many bytes are in one of them?"
    way = "high" if ratio > 1 else "low"
    off = f"Your size is {max(ratio, 1 / ratio):.4g} times too {way}."
    # Only the unit is wrong: to ask for the parts would mislead.
    if any(abs(ratio / unit - 1) <= SAME_MISTAKE for unit in (GB / 2**30, 8.0)):
        return off
    return f"{off} Write down the bytes of one position: which parts does it have?"


def _mistaken(**changes: Any) -> Callable[[], float]:
    return lambda: _stored(**changes)


def _in_bits() -> float:
    return 8 * _stored()


def _tensor_by_tensor() -> float:
    values, indices, rest = 120e6 * 16 * 2, 120e6 * 16 * 4, 120e6 * 4
    return (values + indices + rest) / 1e9


def _whole_number() -> int:
    return 12


STORED_LOGITS = Exercise(
    id="distillation.stored_logits",
    title="On paper: a teacher's logits on disk",
    points=2,
    minutes=5,
    difficulty=1,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "ids forgotten",
            "You count the logits and not which tokens they belong to: a value without its id is "
            "worth nothing. How many bytes are the k ids of one position?",
            _mistaken(index=0),
            (_mistaken(index=0, rest=0),),
        ),
        Mistake(
            "rest forgotten",
            "You are 4% low: each position has one number more, the mass of all other tokens. What "
            "does it take?",
            _mistaken(rest=0),
        ),
        Mistake(
            "ids of 64 bits",
            "You count eight bytes for an id, torch's int64: stored are 32 bits, which is plenty for "
            "any vocabulary. How many bytes is that?",
            _mistaken(index=8),
        ),
        Mistake(
            "logits of 32 bits",
            "You count four bytes for a logit: the table says fp16. How many bytes is that?",
            _mistaken(value=4),
        ),
        Mistake(
            "GiB or bits",
            "The bytes are right and the unit is not: a GB here is 10^9 bytes, a GiB is 2^30, and a "
            "byte has 8 bits. Which did you divide by?",
            _mistaken(gb=2.0**30),
            (_in_bits,),
        ),
        Mistake(
            "every logit kept",
            "You store the whole vocabulary: that is the size which nobody wants to pay. How many "
            "logits of a position stay?",
            _mistaken(k=VOCABULARY, index=0, rest=0),
            (_mistaken(k=VOCABULARY), _mistaken(k=VOCABULARY, rest=0)),
        ),
    ),
    hints=(
        "Bytes a position times positions, over 10^9. What does the reader of the file need to know "
        "about one position, item by item?",
        "A smaller one: 1 million tokens, k = 4. Values 4 * 2 = 8 bytes, ids 4 * 4 = 16, rest 4: 28 "
        "bytes a position, 0.028 GB.",
        "bytes = k * (bytes of a logit + bytes of an id) + bytes of the rest\n"
        "return tokens * bytes / 1e9",
    ),
    compare=Invariant(within_tolerance, match=Close(rtol=SAME_MISTAKE, atol=0.0)),
    alternatives=(_tensor_by_tensor, _whole_number),
    unit="GB",
)
