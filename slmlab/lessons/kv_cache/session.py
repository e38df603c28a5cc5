"""A decoding session that can take tokens back: lesson 04 compares its own, broken one with this."""

from __future__ import annotations

import torch
from torch import Tensor

from slmlab.kv import ContiguousCache
from slmlab.models import Decoder


class RewindableSession:
    """Feeds tokens, and takes back what was rejected. The cache's length is the only counter, so
    positions follow it wherever it goes."""

    def __init__(self, model: Decoder, max_length: int) -> None:
        self.model = model
        self.cache = ContiguousCache(model.config, max_length=max_length)

    @torch.inference_mode()
    def feed(self, new: list[int]) -> Tensor:
        """(vocabulary,): logits after the last of ``new``, which follow what is held."""
        at = torch.arange(self.cache.length, self.cache.length + len(new))
        logits: Tensor = self.model(torch.tensor([new]), self.cache, positions=at)
        return logits[0, -1]

    def rewind(self, n: int) -> None:
        """Keep the first ``n`` tokens. Raises as the cache's ``truncate``."""
        self.cache.truncate(n)
