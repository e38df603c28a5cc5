"""A topic with two exercises, one on tensors and one on plain numbers, for the tests of checking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from slmlab.checking import Case, Close, Comparison, Exact, Exercise, Mistake

INT8, BYTES = "fake.absmax_int8", "fake.cache_bytes"


def absmax_int8(w: Tensor) -> Tensor:
    """(rows, columns) float32 -> int8 codes of the same shape, one scale a row."""
    amax = w.abs().amax(dim=1, keepdim=True)
    scale = torch.where(amax > 0, amax / 127, torch.ones_like(amax))
    return (w / scale).round().clamp(-127, 127).to(torch.int8)


def row_by_row(w: Tensor) -> Tensor:
    rows = []
    for row in w:
        top = max(abs(x) for x in row.tolist())
        rows.append([round(x / (top / 127)) if top else 0 for x in row.tolist()])
    return torch.tensor(rows, dtype=torch.int8)


def one_scale(w: Tensor) -> Tensor:
    return (w / (w.abs().max() / 127)).round().to(torch.int8)


def per_column(w: Tensor) -> Tensor:
    return (w / (w.abs().amax(dim=0, keepdim=True) / 127)).round().to(torch.int8)


def truncated(w: Tensor) -> Tensor:
    return (w / (w.abs().amax(dim=1, keepdim=True) / 127)).to(torch.int8)


def matrices(seed: int) -> Sequence[Case]:
    generator = torch.Generator().manual_seed(seed)
    small = torch.tensor([[1.0, 0.5], [10.0, 5.0]])
    larger = [torch.randn(rows, 8, generator=generator) for rows in (3, 5)]
    return [Case({"w": small}), *(Case({"w": w}) for w in larger)]


def cache_bytes(config: dict[str, int], tokens: int) -> int:
    """Bytes of K and V in float16."""
    width = config["kv_heads"] * config["head_dim"]
    return 2 * config["layers"] * width * tokens * 2


def summed(config: dict[str, int], tokens: int) -> int:
    one = sum(2 for _ in range(config["kv_heads"] * config["head_dim"]))
    return sum(one + one for _ in range(config["layers"])) * tokens


def query_heads(config: dict[str, int], tokens: int) -> int:
    return cache_bytes({**config, "kv_heads": config["query_heads"]}, tokens)


def keys_only(config: dict[str, int], tokens: int) -> int:
    return cache_bytes(config, tokens) // 2


def one_layer(config: dict[str, int], tokens: int) -> int:
    return cache_bytes({**config, "layers": 1}, tokens)


def configs(seed: int) -> Sequence[Case]:
    config = {"layers": 3, "query_heads": 8, "kv_heads": 2, "head_dim": 4}
    counts = (1, 5 + seed, 100 + seed)
    return [
        Case({"config": {**config, "layers": 3 + i}, "tokens": n}) for i, n in enumerate(counts)
    ]


EXERCISES = (
    Exercise(
        id=INT8,
        title="Absmax int8, one scale a row",
        points=3,
        minutes=8,
        difficulty=1,
        cases=matrices,
        reference=absmax_int8,
        mistakes=(
            Mistake("one scale", "One scale was used for the whole matrix.", one_scale),
            Mistake("columns", "The scale was taken per column instead of per row.", per_column),
            Mistake("truncated", "The codes are cut towards zero, not rounded.", truncated),
        ),
        hints=("No weight is off by more than half a scale.", "Row [2, -1]: 127, -64.", "round()"),
        compare=Exact(),
        alternatives=(row_by_row,),
    ),
    Exercise(
        id=BYTES,
        title="Bytes of a KV cache",
        points=2,
        minutes=5,
        difficulty=2,
        cases=configs,
        reference=cache_bytes,
        mistakes=(
            Mistake("query heads", "Query heads were counted where KV heads are.", query_heads),
            Mistake("keys only", "Keys were counted and values were left out.", keys_only),
            Mistake("one layer", "One layer was counted instead of all layers.", one_layer),
        ),
        hints=("Every token stores K and V once a layer.", "One layer: 2 x 8 x 2.", "multiply"),
        compare=Exact(),
        alternatives=(summed,),
        unit="B",
    ),
)


def make_exercise(
    reference: Callable[..., Any],
    inputs: Sequence[dict[str, Any]],
    compare: Comparison | None = None,
    wrong: Sequence[Callable[..., Any]] = (),
    **changes: Any,
) -> Exercise:
    """An exercise around any reference; its mistakes return what nobody else returns."""
    fillers = [lambda name=name, **_: f"no answer {name}" for name in "abc"]
    functions = [*wrong, *fillers][: max(3, len(wrong))]
    fields: dict[str, Any] = {
        "id": "made.up",
        "title": "Made up",
        "points": 1,
        "minutes": 5,
        "difficulty": 1,
        "cases": lambda seed: [Case(dict(arguments)) for arguments in inputs],
        "reference": reference,
        "mistakes": tuple(
            Mistake(f"m{i}", f"This is the sentence of mistake {i}.", function)
            for i, function in enumerate(functions)
        ),
        "hints": ("one", "two", "three"),
        "compare": compare or Close(),
        "alternatives": (lambda **arguments: reference(**arguments),),
    }
    return Exercise(**{**fields, **changes})
