"""kv.choose_bits: bits for keys and bits for values under one budget of bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from slmlab.checking import Case, Exact, Exercise, Invariant, Mistake
from slmlab.lessons.kv_cache.quantize_cache import CHANNEL, TOKEN, back

Choice = tuple[int, int]
Error = Callable[[Tensor, Tensor, Tensor, Choice], float]
WIDTHS = (2, 4, 8)
PAIRS: tuple[Choice, ...] = tuple((keys, values) for keys in WIDTHS for values in WIDTHS)
GROUP_BYTES = 4  # an fp16 scale and an fp16 minimum
# Two choices whose errors differ by less are equally good.
CLOSE = 1.1


def cases(seed: int) -> list[Case]:
    """Nothing fits; keys decide; values decide; room; larger, twice; and three that mislead."""
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
        *_telling(seed),
    ]


@lru_cache(maxsize=16)  # a search: some tenths of a second, and a check asks for it often
def _telling(seed: int) -> tuple[Case, ...]:
    """A case for each group of criteria where they alone mislead: three queries, six bits in sum."""
    random = torch.Generator().manual_seed(seed)
    turned = (_keys_per_token_error, _values_per_channel_error, _both_turned_error)
    groups: tuple[tuple[Error, ...], ...] = ((_undivided_error,), (_largest_error,), turned)
    budget = stored_bytes((6, 4), (4, 2))
    found: dict[int, Case] = {}
    for _ in range(5000):
        q, k, v = (torch.randn(n, 4, generator=random).round(decimals=2) for n in (3, 6, 6))
        arguments: dict[str, Any] = {"q": 2 * q, "k": k, "v": v, "budget_bytes": budget}
        if not _clear(arguments):
            continue
        misled = [[_misleads(arguments, error) for error in group] for group in groups]
        if sum(map(any, misled)) == 1 and any(map(all, misled)):
            found.setdefault([all(group) for group in misled].index(True), Case(arguments))
        if len(found) == len(groups):
            return tuple(found[place] for place in range(len(groups)))
    raise RuntimeError(f"seed {seed}: no cases tell the criteria apart")


def stored_bytes(shape: Sequence[int], pair: Choice, group_bytes: int = GROUP_BYTES) -> int:
    """Codes of both tensors, and what each key channel and each token's values store besides."""
    tokens, width = shape
    return tokens * width * sum(pair) // 8 + group_bytes * (tokens + width)


def _size(arguments: dict[str, Any], choice: Choice) -> int:
    return stored_bytes(arguments["k"].shape, choice)


def _attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.T / math.sqrt(q.shape[1])).softmax(dim=-1) @ v


def _change(
    q: Tensor, k: Tensor, v: Tensor, choice: Choice, keys: int = CHANNEL, values: int = TOKEN
) -> Tensor:
    """Of the attention's output: (queries, head_dim). keys, values: where their groups run."""
    rough = _attended(q, back(k, choice[0], keys), back(v, choice[1], values))
    return rough - _attended(q, k, v)


def _error(q: Tensor, k: Tensor, v: Tensor, choice: Choice) -> float:
    """Sum of squared changes of the attention's output."""
    return float(_change(q, k, v, choice).square().sum())


def _undivided_error(q: Tensor, k: Tensor, v: Tensor, choice: Choice) -> float:
    return _error(q * math.sqrt(q.shape[1]), k, v, choice)


def _largest_error(q: Tensor, k: Tensor, v: Tensor, choice: Choice) -> float:
    return float(_change(q, k, v, choice).abs().max())


def _keys_per_token_error(q: Tensor, k: Tensor, v: Tensor, choice: Choice) -> float:
    return float(_change(q, k, v, choice, keys=TOKEN).square().sum())


def _values_per_channel_error(q: Tensor, k: Tensor, v: Tensor, choice: Choice) -> float:
    return float(_change(q, k, v, choice, values=CHANNEL).square().sum())


def _both_turned_error(q: Tensor, k: Tensor, v: Tensor, choice: Choice) -> float:
    return float(_change(q, k, v, choice, keys=TOKEN, values=CHANNEL).square().sum())


def _values_error(q: Tensor, k: Tensor, v: Tensor, choice: Choice) -> float:
    return float((back(v, choice[1], TOKEN) - v).square().sum())


def _tensor_error(q: Tensor, k: Tensor, v: Tensor, choice: Choice) -> float:
    rough = back(k, choice[0], CHANNEL), back(v, choice[1], TOKEN)
    return sum(float((a - b).square().sum()) for a, b in zip(rough, (k, v), strict=True))


def _clear(arguments: dict[str, Any]) -> bool:
    """The best that fits is ahead of the next by a factor, so that rounding decides nothing."""
    q, k, v, budget = arguments.values()
    errors = sorted(_error(q, k, v, c) for c in PAIRS if _size(arguments, c) <= budget)
    return len(errors) < 2 or (errors[0] > 1e-7 and errors[1] > CLOSE**2 * errors[0])


def _misleads(arguments: dict[str, Any], error: Error) -> bool:
    """Whether the pair with the least ``error`` that fits is clearly worse than the best."""
    q, k, v, budget = arguments.values()
    best, chosen = _least(q, k, v, _fitting(k, budget)), _least(q, k, v, _fitting(k, budget), error)
    if best is None or chosen is None:
        return False
    return _error(q, k, v, chosen) > CLOSE**2 * _error(q, k, v, best)


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
    error: Error = _error,
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


def _by(error: Error) -> Callable[[Tensor, Tensor, Tensor, int], Choice | None]:
    """The pair that fits with the least of another criterion."""

    def answer(q: Tensor, k: Tensor, v: Tensor, budget_bytes: int) -> Choice | None:
        return _least(q, k, v, _fitting(k, budget_bytes), error)

    return answer


def _reversed(q: Tensor, k: Tensor, v: Tensor, budget_bytes: int) -> Choice | None:
    best = reference(q, k, v, budget_bytes)
    return None if best is None else (best[1], best[0])


def _keys_first(q: Tensor, k: Tensor, v: Tensor, budget_bytes: int) -> Choice | None:
    return max(_fitting(k, budget_bytes), default=None)


def _values_first(q: Tensor, k: Tensor, v: Tensor, budget_bytes: int) -> Choice | None:
    return max(_fitting(k, budget_bytes), key=lambda c: (c[1], c[0]), default=None)


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
            "chosen by a rule",
            "You choose before you look: keys first, values first or the same bits for both. Where "
            "scores are nearly equal, keys hardly matter; where they are sharp, a small error in a "
            "key picks another token. How many pairs are there to try?",
            _keys_first,
            variants=(_values_first, _same_bits),
        ),
        Mistake(
            "another error",
            "You minimise another number than the sum of squared changes of the output: not how far "
            "keys or values move, and not the largest change. What do you compare, and when?",
            _by(_tensor_error),
            variants=(_by(_values_error), _by(_largest_error)),
        ),
        Mistake(
            "scores not divided",
            "Your scores are not divided by sqrt(head_dim): they are sharper than the model's, and "
            "errors in keys count too much. What does attention do to q k^T before the softmax?",
            _by(_undivided_error),
        ),
        Mistake(
            "groups along the wrong side",
            "Your keys were grouped per token, or your values per channel: one scale for each "
            "channel of the keys, one for each token of the values. Which dimension does each take?",
            _by(_keys_per_token_error),
            variants=(_by(_values_per_channel_error), _by(_both_turned_error)),
        ),
        Mistake(
            "values first in the pair",
            "Your pair is the right one the other way round: keys come first. Which of your two "
            "numbers are the bits of the keys?",
            _reversed,
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
