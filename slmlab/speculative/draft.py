"""Where proposals come from: the protocol, and a draft model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from slmlab.generation import next_token_probabilities, sample
from slmlab.speculative.runner import Runner, vocabulary_size


@dataclass(frozen=True)
class Sampling:
    """How both sides turn logits into the distribution they draw from; the same for both, or the
    accepted tokens follow neither."""

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0

    def probabilities(self, logits: Tensor) -> Tensor:
        """(..., V) logits -> (..., V) float32 probabilities."""
        return next_token_probabilities(logits, self.temperature, self.top_k, self.top_p)


@dataclass(frozen=True)
class Proposal:
    """tokens: up to the number asked for, possibly none. probs: (tokens, V), what each was drawn
    from; None where each was certain (greedy, or copied from the text)."""

    tokens: list[int]
    probs: Tensor | None = None


class Draft(Protocol):
    """What `speculative_generate` needs of a source of proposals.

    It is given the whole text every time, so it alone knows what it has to take back.
    """

    def start(self, max_length: int, sampling: Sampling, generator: Any) -> None:
        """A new text begins, at most ``max_length`` tokens long."""

    def propose(self, tokens: Sequence[int], count: int) -> Proposal:
        """At most ``count`` tokens that may follow ``tokens``."""


class ModelDraft:
    """A smaller model with the target's vocabulary (`Decoder` or transformers)."""

    def __init__(self, model: Any) -> None:
        self.vocabulary = vocabulary_size(model)
        self.model = model

    def start(self, max_length: int, sampling: Sampling, generator: Any) -> None:
        self._runner = Runner(self.model, max_length)
        self._sampling, self._generator = sampling, generator

    @torch.inference_mode()
    def propose(self, tokens: Sequence[int], count: int) -> Proposal:
        """Decode ``count`` tokens; what the target did not take is rolled back first."""
        step = self._runner.rewind_to(tokens)
        proposed: list[int] = []
        probs = []
        for _ in range(count):
            logits = self._runner.feed(step)  # (1, V)
            if self._sampling.greedy:
                proposed.append(int(logits.argmax(-1)))
            else:
                probs.append(self._sampling.probabilities(logits))
                proposed.append(int(sample(probs[-1], self._generator)))
            step = proposed[-1:]
        return Proposal(proposed, torch.cat(probs) if probs else None)
