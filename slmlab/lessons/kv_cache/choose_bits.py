"""kv.choose_bits: bits for keys and bits for values under one budget of bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from slmlab.checking import Case, Exact, Exercise, Invariant, Mistake
from slmlab.lessons.kv_cache.quantize_cache import CHANNEL, TOKEN, back

Choice = tuple[int, int]
WIDTHS = (2, 4, 8)
PAIRS: tuple[Choice, ...] = tuple((keys, values) for keys in WIDTHS for values in WIDTHS)
GROUP_BYTES = 4  # an fp16 scale and an fp16 minimum
# Two choices whose errors differ by less are equally good.
CLOSE = 1.1


def cases(seed: int) -> list[Case]:
    """Nothing fits; keys decide; values decide; room for both; a larger matrix, twice."""
    random = torch.Generator().manual_seed(seed)

    def drawn(
        shape: tuple[int, int], focus: float, spread: float, pair: Choice, spare: int = 0
    ) -> Case:
        """focus: how much scores differ between keys; spread: of the values between tokens.

        The budget is what ``pair`` takes, and that pair is the best within it.
        """
        tokens, width = shape
        budget = stored_bytes(shape, pair) + spare
        for _ in range(2000):
            k = torch.randn(tokens, width, generator=random).round(decimals=2)
            v = (spread * torch.randn(tokens, width, generator=random)).round(decimals=2)
            q = (focus * torch.randn(2, width, generator=random)).round(decimals=2)
            arguments: dict[str, Any] = {"q": q, "k": k, "v": v, "budget_bytes": budget}
            if reference(**arguments) == (None if spare else pair) and _clear(arguments):
                return Case(arguments)
        raise RuntimeError(f"seed {seed}: no clear case with focus {focus} and the best {pair}")

    small, large = (4, 4), (16, 8)
    return [
        drawn(small, 3.0, 1.0, (2, 2), spare=-1),
        drawn(small, 6.0, 1.0, (4, 2)),
        drawn(small, 0.02, 4.0, (2, 4)),
        drawn(small, 3.0, 1.0, (4, 4)),
        drawn(large, 8.0, 1.0, (8, 2)),
        drawn(large, 0.02, 4.0, (2, 8)),
    ]


def stored_bytes(shape: Sequence[int], pair: Choice, group_bytes: int = GROUP_BYTES) -> int:
    """Codes of both tensors, and what each key channel and each token's values store besides."""
    tokens, width = shape
    return tokens * width * sum(pair) // 8 + group_bytes * (tokens + width)


def _size(arguments: dict[str, Any], choice: Choice) -> int:
    return stored_bytes(arguments["k"].shape, choice)


def _attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.T / math.sqrt(q.shape[1])).softmax(dim=-1) @ v


def _error(q: Tensor, k: Tensor, v: Tensor, choice: Choice) -> float:
    """Sum of squared changes of the attention's output."""
    rough = _attended(q, back(k, choice[0], CHANNEL), back(v, choice[1], TOKEN))
    return float((rough - _attended(q, k, v)).square().sum())


def _tensor_error(q: Tensor, k: Tensor, v: Tensor, choice: Choice) -> float:
    rough = back(k, choice[0], CHANNEL), back(v, choice[1], TOKEN)
    return sum(float((a - b).square().sum()) for a, b in zip(rough, (k, v), strict=True))


def _clear(arguments: dict[str, Any]) -> bool:
    """The best that fits is ahead of the next by a factor, so that rounding decides nothing."""
    q, k, v, budget = arguments.values()
    errors = sorted(_error(q, k, v, c) for c in PAIRS if _size(arguments, c) <= budget)
    return len(errors) < 2 or (errors[0] > 1e-7 and errors[1] > CLOSE**2 * errors[0])


def least_error_that_fits(arguments: dict[str, Any], output: Any) -> str | None:
    """None where `output` fits the budget and no pair that fits has a clearly smaller error."""
    q, k, v, budget = (arguments[name] for name in ("q", "k", "v", "budget_bytes"))
    fitting = [c for c in PAIRS if _size(arguments, c) <= budget]
    if output is None:
        return f"You return None, and {fitting[0]} fits the budget." if fitting else None
    if not isinstance(output, tuple | list) or tuple(output) not in PAIRS:
        return "Return a pair (bits of keys, bits of values), each 2, 4 or 8, or None."
    chosen = (int(output[0]), int(output[1]))
    needed = _size(arguments, chosen)
    if needed > budget:
        return f"{chosen} takes {needed:,} bytes, and the budget is {budget:,}."
    best = min(fitting, key=lambda c: _error(q, k, v, c))
    yours, least = _error(q, k, v, chosen), _error(q, k, v, best)
    if yours > CLOSE * least:
        return (
            f"{chosen} fits and changes the output by {yours:.3g} (sum of squares); {best} fits "
            f"too and changes it by {least:.3g}."
        )
    return None


def _least(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    fitting: list[Choice],
    error: Callable[[Tensor, Tensor, Tensor, Choice], float] = _error,
) -> Choice | None:
    return min(fitting, key=lambda c: error(q, k, v, c), default=None)


def _fitting(k: Tensor, budget_bytes: int, group_bytes: int = GROUP_BYTES) -> list[Choice]:
    return [c for c in PAIRS if stored_bytes(k.shape, c, group_bytes) <= budget_bytes]


def reference(q: Tensor, k: Tensor, v: Tensor, budget_bytes: int) -> Choice | None:
    """Every pair that fits, tried."""
    return _least(q, k, v, _fitting(k, budget_bytes))


def _metadata_free(q: Tensor, k: Tensor, v: Tensor, budget_bytes: int) -> Choice | None:
    return _least(q, k, v, _fitting(k, budget_bytes, group_bytes=0))


def _same_bits(q: Tensor, k: Tensor, v: Tensor, budget_bytes: int) -> Choice | None:
    return _least(q, k, v, [c for c in _fitting(k, budget_bytes) if c[0] == c[1]])


def _error_of_tensors(q: Tensor, k: Tensor, v: Tensor, budget_bytes: int) -> Choice | None:
    return _least(q, k, v, _fitting(k, budget_bytes), _tensor_error)


def _keys_first(q: Tensor, k: Tensor, v: Tensor, budget_bytes: int) -> Choice | None:
    return max(_fitting(k, budget_bytes), default=None)


def _values_first(q: Tensor, k: Tensor, v: Tensor, budget_bytes: int) -> Choice | None:
    return max(_fitting(k, budget_bytes), key=lambda c: (c[1], c[0]), default=None)


def _fewest_bytes(q: Tensor, k: Tensor, v: Tensor, budget_bytes: int) -> Choice | None:
    return min(_fitting(k, budget_bytes), key=sum, default=None)


def _one_tensor_at_a_time(q: Tensor, k: Tensor, v: Tensor, budget_bytes: int) -> Choice | None:
    tokens, width = k.shape
    left = budget_bytes - 4 * tokens - 4 * width
    tried = {}
    for key_bits in WIDTHS:
        for value_bits in WIDTHS:
            if tokens * width * (key_bits + value_bits) <= 8 * left:
                tried[_error(q, k, v, (key_bits, value_bits))] = (key_bits, value_bits)
    return tried[min(tried)] if tried else None


CHOOSE_BITS = Exercise(
    id="kv.choose_bits",
    title="Decide: bits for keys, bits for values",
    points=4,
    minutes=15,
    difficulty=3,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "metadata not counted",
            "You compare the codes alone with the budget: each key channel and each token's values "
            "store a scale and a minimum besides. How many bytes is that?",
            _metadata_free,
        ),
        Mistake(
            "the same bits for both",
            "You give keys and values the same bits: the budget can be split otherwise, and one of "
            "the two may need more. How many pairs are there to try?",
            _same_bits,
        ),
        Mistake(
            "error of keys and values",
            "You minimise how far keys and values move, and what counts is the output: an error in "
            "a key that no query looks at costs nothing. What do you compare after attention?",
            _error_of_tensors,
        ),
        Mistake(
            "keys always first",
            "You spend the budget on keys before you look: where all scores are nearly equal, the "
            "output is a mean of values and keys hardly matter. What decides here?",
            _keys_first,
        ),
        Mistake(
            "values always first",
            "You spend the budget on values before you look: where the scores are sharp, a small "
            "error in a key picks another token. What decides here?",
            _values_first,
        ),
        Mistake(
            "fewest bytes",
            "Your choice fits and leaves more error than it must: bytes below the budget earn "
            "nothing. Which of the pairs that fit changes the output least?",
            _fewest_bytes,
        ),
    ),
    hints=(
        "Your pair fits the budget, and every other pair that fits changes the output of the "
        "attention at least as much. Check both halves of that sentence.",
        "4 tokens, head_dim 4, keys 4 bits, values 2: codes 16 * (4 + 2) / 8 = 12 bytes; 4 key "
        "channels and 4 tokens, 4 bytes each: 32. Together 44. With a budget of 44 three pairs fit: "
        "(2, 2), (2, 4), (4, 2). Try each.",
        "wanted = softmax(q k^T / sqrt(head_dim)) v\n"
        "for each pair: bytes = tokens * head_dim * (key_bits + value_bits) / 8\n"
        "               + 4 * (tokens + head_dim); skip where above the budget\n"
        "    attend with keys and values as they come back; error = sum of squares\n"
        "return the pair with the least error, None where all were skipped",
    ),
    compare=Invariant(least_error_that_fits, match=Exact()),
    alternatives=(_one_tensor_at_a_time,),
)
