"""Which positions each forward pass of a sliding window predicts: each exactly once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

DEFAULT_WINDOW_TOKENS = 1024


@dataclass(frozen=True)
class Window:
    """One forward pass: read inputs ``[begin, end)``, keep predictions from ``fresh`` on.

    The prediction at input position p is about token p + 1 and has seen p + 1 - begin tokens.
    """

    begin: int
    end: int
    fresh: int


def resolve(
    model: Any, predictions: int, window: int | None, stride: int | None
) -> tuple[int, int]:
    """Window and stride in tokens, defaults filled in and checked.

    Default window: the model's ``max_position_embeddings``, at most 1024 (logits of a window
    are held at once), at most the text. Default stride: half the window. Raises TypeError for
    a value that is no int, ValueError where window < 2, stride < 1 or stride > window, or
    where window exceeds the positions that the model has.
    """
    config = getattr(model, "config", None)
    longest = getattr(config, "max_position_embeddings", None)
    for name, value in (("window", window), ("stride", stride)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise TypeError(f"{name} must be an int (tokens), got {type(value).__name__}")
    if window is None:
        window = max(2, min(predictions, longest or DEFAULT_WINDOW_TOKENS, DEFAULT_WINDOW_TOKENS))
    elif window < 2:
        raise ValueError(f"window must be at least 2 tokens, got {window}")
    elif longest is not None and min(window, predictions) > longest:
        raise ValueError(
            f"window is {window} tokens, the model has {longest} positions: "
            f"pass window={longest} or less"
        )
    if stride is None:
        stride = max(1, window // 2)
    if stride < 1:
        raise ValueError(f"stride must be at least 1 token, got {stride}")
    if stride > window:
        raise ValueError(
            f"stride ({stride}) exceeds window ({window}): tokens between windows would never "
            "be scored; pass stride <= window"
        )
    return window, stride


def sliding_windows(predictions: int, window: int, stride: int) -> Iterator[Window]:
    """Windows that cover input positions 0 .. predictions-1, each fresh in exactly one.

    After the first window, a fresh prediction has seen at least window - stride + 1 tokens.
    """
    begin, fresh = 0, 0
    while fresh < predictions:
        end = min(begin + window, predictions)
        yield Window(begin=begin, end=end, fresh=fresh)
        fresh = end
        begin += stride
