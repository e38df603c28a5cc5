"""kv.bytes: how many bytes of keys and values, with grouped queries and windows."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from slmlab.checking import Case, Exact, Exercise, Mistake
from slmlab.kv import kv_bytes

Config = dict[str, Any]


def cases(seed: int) -> list[Case]:
    """One layer, grouped heads, a window that binds, one that does not, both kinds, a real shape."""
    draw = random.Random(seed)

    def case(
        heads: tuple[int, int, int], windows: list[int | None], tokens: int, batch: int, bits: int
    ) -> Case:
        query_heads, kv_heads, head_dim = heads
        config: Config = {
            "num_attention_heads": query_heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head_dim,
            "windows": windows,
        }
        return Case({"config": config, "tokens": tokens, "batch": batch, "bits": bits})

    few, many = draw.randint(3, 9), draw.randint(3, 9) * 100
    width = draw.choice((32, 64, 128))
    return [
        case((1, 1, 4), [None], few, 1, 8),
        case((4, 2, 8), [None], few, 1, 16),
        case((2, 2, 8), [few], few + 5, 1, 8),
        case((2, 2, 8), [few + 5], few, 1, 8),
        case((2, 2, 8), [None], few, 3, 8),
        case((4, 1, 8), [None, few], 3 * few, 2, 4),
        case((12, 4, width), [many // 10, many // 10, None] * 4, many, 1, 32),
        case((32, 8, width), [None] * draw.choice((16, 28, 32)), 10 * many, 4, 16),
    ]


def reference(config: Config, tokens: int, batch: int, bits: int) -> int:
    """By the package's accounting, which counts one byte a value under int8."""
    shape = SimpleNamespace(
        num_hidden_layers=len(config["windows"]),
        num_attention_heads=config["num_attention_heads"],
        num_key_value_heads=config["num_key_value_heads"],
        head_dim=config["head_dim"],
        layer_windows=config["windows"],
    )
    return kv_bytes(shape, tokens, batch, "int8") * bits // 8


def _counted(
    config: Config,
    tokens: int,
    batch: int,
    bits: int,
    heads: str = "num_key_value_heads",
    tensors: int = 2,
    windowed: Callable[[int, list[int | None]], int] | None = None,
    sequences: bool = True,
) -> int:
    stored = (windowed or _stored)(tokens, config["windows"])
    values = tensors * stored * config[heads] * config["head_dim"]
    return values * (batch if sequences else 1) * bits // 8


def _stored(tokens: int, windows: list[int | None]) -> int:
    return sum(tokens if window is None else min(tokens, window) for window in windows)


def _no_window(tokens: int, windows: list[int | None]) -> int:
    return tokens * len(windows)


def _whole_window(tokens: int, windows: list[int | None]) -> int:
    return sum(tokens if window is None else window for window in windows)


def _newest_left_out(tokens: int, windows: list[int | None]) -> int:
    return sum(tokens if window is None else min(tokens, window - 1) for window in windows)


def _mistaken(**changes: Any) -> Callable[..., int]:
    def answer(config: Config, tokens: int, batch: int, bits: int) -> int:
        return _counted(config, tokens, batch, bits, **changes)

    return answer


def _layer_by_layer(config: Config, tokens: int, batch: int, bits: int) -> int:
    total = 0
    for window in config["windows"]:
        kept = tokens if window is None or window > tokens else window
        one_vector = config["head_dim"] * bits // 8
        for _ in range(batch):
            total += kept * config["num_key_value_heads"] * one_vector  # keys
            total += kept * config["num_key_value_heads"] * one_vector  # values
    return total


CACHE_BYTES = Exercise(
    id="kv.bytes",
    title="Size a cache: grouped queries, windows, bits",
    points=3,
    minutes=8,
    difficulty=1,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "query heads",
            "Too large by query heads over KV heads: several query heads share one key and one "
            "value, and the cache stores the shared ones. Which of the two counts is that?",
            _mistaken(heads="num_attention_heads"),
        ),
        Mistake(
            "keys without values",
            "Half of what is stored: attention scores the keys and then sums the values. How many "
            "tensors does a layer keep?",
            _mistaken(tensors=1),
        ),
        Mistake(
            "window ignored",
            "Right without windows, too large with one: what the newest query no longer sees need "
            "not be kept. How many tokens does it see in such a layer?",
            _mistaken(windowed=_no_window),
        ),
        Mistake(
            "window always full",
            "Right once the window is full, too large before: three tokens do not fill a window of "
            "eight. What is stored while the text is shorter than the window?",
            _mistaken(windowed=_whole_window),
        ),
        Mistake(
            "newest token left out",
            "One token a windowed layer too few: here the newest token counts too. How many tokens "
            "does its query see, itself included?",
            _mistaken(windowed=_newest_left_out),
        ),
        Mistake(
            "batch forgotten",
            "That is one sequence: each of the batch has read another text. Can two texts share "
            "their keys?",
            _mistaken(sequences=False),
        ),
    ),
    hints=(
        "Every layer stores two vectors of head_dim numbers for each KV head, each sequence and "
        "each token that the newest query sees. Which factor is off by the ratio you see?",
        "4 query heads, 2 KV heads of 8, windows [None, 3], 5 tokens, batch 1, 16 bits. Tokens "
        "kept: 5 + 3 = 8. Numbers: 2 (keys, values) * 8 * 2 * 8 = 256. Bytes: 256 * 16 / 8 = 512.",
        "kept = sum over layers of (tokens, or the window where that is smaller)\n"
        "numbers = 2 * kept * num_key_value_heads * head_dim * batch\n"
        "return numbers * bits // 8",
    ),
    compare=Exact(),
    alternatives=(_layer_by_layer,),
    unit="bytes",
)
