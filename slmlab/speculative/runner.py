"""A model and its cache, as speculation uses them: feed tokens, look back, take tokens back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from slmlab.kv import ContiguousCache, as_transformers_cache
from slmlab.models import Decoder


class Runner:
    """One text in one model: `Decoder` or a transformers causal model.

    Attributes:
        tokens: ids whose keys and values are stored.
        fed: tokens that went through the model since the start, those taken back included.
    """

    def __init__(self, model: Any, max_length: int) -> None:
        self.model = model
        self.tokens: list[int] = []
        self.fed = 0
        self.device = model.device
        self._cache = ContiguousCache(
            model.config, max_length=max_length, dtype=model.dtype, device=model.device
        )
        self._theirs = None if isinstance(model, Decoder) else as_transformers_cache(self._cache)

    def feed(self, tokens: Sequence[int], logits: int = 1) -> Tensor:
        """Append tokens; the logits (logits, V) behind the last ``logits`` of them."""
        ids = torch.tensor([tokens], device=self.device)
        self.fed += len(tokens)
        self.tokens += tokens
        if self._theirs is None:
            hidden = self.model.hidden(ids, self._cache)[:, len(tokens) - logits :]
            return self.model.lm_head(hidden)[0]
        start = self._cache.length
        out = self.model(
            ids,
            past_key_values=self._theirs,
            use_cache=True,
            cache_position=torch.arange(start, start + len(tokens), device=self.device),
            logits_to_keep=logits or 1,
        )
        return out.logits[0, out.logits.shape[1] - logits :]

    def truncate(self, n: int) -> None:
        """Keep the first ``n`` tokens."""
        self._cache.truncate(n)
        del self.tokens[n:]

    def rewind_to(self, tokens: Sequence[int]) -> list[int]:
        """Take back what is not a beginning of ``tokens``; returns those still to be fed."""
        shared = min(len(self.tokens), len(tokens))
        while self.tokens[:shared] != list(tokens[:shared]):
            shared -= 1
        self.truncate(shared)
        return list(tokens[shared:])


def vocabulary_size(model: Any) -> int:
    """Rows of the model's logits. TypeError for what is neither a Decoder nor one of transformers'."""
    config = getattr(model, "config", None)
    size = getattr(config, "vocab_size", None)
    if size is None or not callable(model):
        raise TypeError(
            f"a Decoder or a transformers causal model is needed, not {type(model).__name__}"
        )
    return int(size)
