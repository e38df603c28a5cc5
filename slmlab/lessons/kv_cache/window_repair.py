"""kv.window_repair: sliding-window attention over chunks, where a chunk evicts what it needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor

from slmlab.checking import Case, Close, Exercise, Mistake
from slmlab.kv import SlidingWindowCache
from slmlab.models.attend import attend
from slmlab.models.masks import LayerMasks


def cases(seed: int) -> list[Case]:
    """Queries of zero average what they see; then real ones, chunks longer than the window too."""
    random = torch.Generator().manual_seed(seed)

    def averaging(chunks: list[int], window: int) -> Case:
        total = sum(chunks)
        values = torch.randint(1, 10, (total, 1), generator=random).float().cumsum(dim=0)
        zeros = torch.zeros(total, 1)
        return Case(
            {"q": zeros, "k": zeros.clone(), "v": values, "chunks": chunks, "window": window}
        )

    def real(chunks: list[int], window: int, width: int) -> Case:
        q, k, v = (torch.randn(sum(chunks), width, generator=random) for _ in range(3))
        return Case({"q": q, "k": k, "v": v, "chunks": chunks, "window": window})

    return [
        averaging([1, 1], 2),
        averaging([1, 2], 2),
        averaging([2, 1], 2),
        averaging([1, 1, 1], 2),
        averaging([2, 2, 2], 3),
        real([3, 1, 1, 2], 3, 2),
        real([2, 5, 1], 3, 4),
        real([1] * 6 + [4, 3], 4, 4),
    ]


def reference(q: Tensor, k: Tensor, v: Tensor, chunks: list[int], window: int) -> Tensor:
    """The package's ring buffer, mask and attention."""
    shape = SimpleNamespace(
        num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, head_dim=q.shape[1]
    )
    cache = SlidingWindowCache(shape, window=window)
    outputs = []
    for q_, k_, v_ in zip(q.split(chunks), k.split(chunks), v.split(chunks), strict=True):
        masks = LayerMasks(cache.layer_windows, len(q_), cache.length, None, q.device)
        keys, values = cache.append(0, k_[None, None], v_[None, None])
        mask, causal = masks.of_layer(0, keys.shape[2])
        outputs.append(attend(q_[None, None], keys, values, mask, causal)[0, 0])
    return torch.cat(outputs)


def _by_chunk(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    chunks: list[int],
    window: int,
    first_key: Callable[[int, int, int], int] = lambda start, end, window: start - window + 1,
    sees: Callable[[Tensor, Tensor, int], Tensor] = lambda query, key, window: (
        (key <= query) & (key > query - window)
    ),
) -> Tensor:
    """Attention chunk by chunk over the keys from ``first_key`` to the chunk's end."""
    outputs, start = [], 0
    for size in chunks:
        end = start + size
        first = max(0, first_key(start, end, window))
        query_at, key_at = torch.arange(start, end)[:, None], torch.arange(first, end)[None]
        scores = q[start:end] @ k[first:end].T / math.sqrt(q.shape[1])
        scores = scores.masked_fill(~sees(query_at, key_at, window), -math.inf)
        outputs.append(scores.softmax(dim=-1) @ v[first:end])
        start = end
    return torch.cat(outputs)


def _as_given(q: Tensor, k: Tensor, v: Tensor, chunks: list[int], window: int) -> Tensor:
    return _by_chunk(q, k, v, chunks, window, first_key=lambda start, end, w: end - w)


def _one_too_many(q: Tensor, k: Tensor, v: Tensor, chunks: list[int], window: int) -> Tensor:
    return _by_chunk(q, k, v, chunks, window + 1)


def _one_too_few(q: Tensor, k: Tensor, v: Tensor, chunks: list[int], window: int) -> Tensor:
    return _by_chunk(q, k, v, chunks, window - 1)


def _future_seen(q: Tensor, k: Tensor, v: Tensor, chunks: list[int], window: int) -> Tensor:
    return _by_chunk(q, k, v, chunks, window, sees=lambda query, key, w: key > query - w)


def _old_seen(q: Tensor, k: Tensor, v: Tensor, chunks: list[int], window: int) -> Tensor:
    return _by_chunk(q, k, v, chunks, window, sees=lambda query, key, w: key <= query)


def _past_lost(q: Tensor, k: Tensor, v: Tensor, chunks: list[int], window: int) -> Tensor:
    return _by_chunk(q, k, v, chunks, window, first_key=lambda start, end, w: start)


def _token_by_token(q: Tensor, k: Tensor, v: Tensor, chunks: list[int], window: int) -> Tensor:
    rows = []
    for i in range(sum(chunks)):
        first = max(0, i - window + 1)
        scores = [float(q[i] @ k[j]) / math.sqrt(q.shape[1]) for j in range(first, i + 1)]
        largest = max(scores)
        weights = [math.exp(score - largest) for score in scores]
        total = sum(weights)
        rows.append(sum(w / total * v[first + j] for j, w in enumerate(weights)))
    return torch.stack([torch.as_tensor(row) for row in rows])


def _one_mask(q: Tensor, k: Tensor, v: Tensor, chunks: list[int], window: int) -> Tensor:
    at = torch.arange(sum(chunks))
    distance = at[:, None] - at[None]
    scores = q @ k.T / math.sqrt(q.shape[1])
    scores[(distance < 0) | (distance >= window)] = -math.inf
    return scores.softmax(dim=-1) @ v


WINDOW_REPAIR = Exercise(
    id="kv.window_repair",
    title="Repair this: a window that forgets too early",
    points=3,
    minutes=10,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "the given bug",
            "The bug is still there: the chunk pushes old keys out before its own first query has "
            "seen them. One token at a time is right, a chunk is not. What has to happen first, "
            "attending or evicting?",
            _as_given,
        ),
        Mistake(
            "window one too wide",
            "Your queries see one key too many: a window of 2 is the token itself and one before "
            "it. Is the token itself in your count?",
            _one_too_many,
        ),
        Mistake(
            "window one too narrow",
            "Your queries see one key too few: a window of 2 is the token itself and one before "
            "it. How many earlier keys must stay for the next query?",
            _one_too_few,
        ),
        Mistake(
            "future seen",
            "A query in the middle of a chunk attends to the tokens behind it: they came in the "
            "same call and lie in the future. Which keys does the mask have to hide?",
            _future_seen,
        ),
        Mistake(
            "old keys seen by late queries",
            "The first query of a chunk is right, later ones see further back than the window: what "
            "was kept for the first is too old for the last. What does the mask hide of old keys?",
            _old_seen,
        ),
        Mistake(
            "past lost",
            "Each chunk attends to itself alone: its first queries may look back into the chunk "
            "before. How many earlier keys do they need?",
            _past_lost,
        ),
    ),
    hints=(
        "However a text is cut into chunks, the outputs are the same. Compare chunks [1, 1, 1] "
        "with [1, 2]: which output differs, and which key did its query miss?",
        "Window 2, values 10, 20, 40, all scores equal, chunks [1, 2]. Outputs: 10; the mean of 10 "
        "and 20 = 15; the mean of 20 and 40 = 30. The given code drops 10 when the chunk arrives "
        "and says 20 for the second.",
        "for each chunk: join kept and new keys and values; do not cut yet\n"
        "    key j is seen by query i where i - window < j <= i (positions in the text)\n"
        "    attend\n"
        "    now keep the newest window - 1 for the next chunk",
    ),
    compare=Close(rtol=1e-4, atol=1e-5),
    alternatives=(_token_by_token, _one_mask),
)
