"""Prompt lookup: the text itself as a draft, for answers that copy from the question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slmlab.models.fields import check_whole
from slmlab.speculative.draft import Proposal, Sampling


class PromptLookup:
    """Propose what followed the last few tokens when they last stood in the text.

    Costs no model: the longest n-gram that ends the text and occurs earlier decides (n from
    ``longest`` down to ``shortest``; Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding).
    Where none occurs, nothing is proposed and the round is a plain step.
    """

    def __init__(self, longest: int = 3, shortest: int = 1) -> None:
        check_whole("longest", longest)
        check_whole("shortest", shortest)
        if shortest > longest:
            raise ValueError(f"shortest={shortest} must be at most longest={longest}")
        self.longest, self.shortest = longest, shortest

    def start(self, max_length: int, sampling: Sampling, generator: Any) -> None:
        self._seen: list[int] = []
        # (n-gram) -> where it last ended, for every n: one look-up a round, whatever the length.
        self._ends: dict[tuple[int, ...], int] = {}

    def propose(self, tokens: Sequence[int], count: int) -> Proposal:
        """What followed the newest earlier occurrence, up to ``count`` tokens."""
        self._index(tokens)
        for n in range(min(self.longest, len(tokens) - 1), self.shortest - 1, -1):
            end = self._ends.get(tuple(tokens[len(tokens) - n :]))
            if end is not None:
                return Proposal(list(tokens[end : end + count]))
        return Proposal([])

    def _index(self, tokens: Sequence[int]) -> None:
        """Note every n-gram that ends before the last token; accepted text is never taken back."""
        for end in range(len(self._seen) + 1, len(tokens)):
            for n in range(self.shortest, min(self.longest, end) + 1):
                self._ends[tuple(tokens[end - n : end])] = end
        self._seen = list(tokens[: max(len(tokens) - 1, 0)])
