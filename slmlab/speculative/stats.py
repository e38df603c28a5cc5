"""What a speculative run did, round by round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slmlab.speculative.formulas import acceptance_interval


@dataclass(frozen=True)
class Round:
    """One round: proposals, how many stayed, the text it gave, and where its time went.

    proposed: draft token ids. accepted: how many of them stayed. extra: the token from the target
    that follows them. Times in seconds; ``overhead`` is what is neither draft nor verification.
    """

    proposed: tuple[int, ...]
    accepted: int
    extra: int
    draft_seconds: float
    verify_seconds: float
    overhead_seconds: float

    @property
    def checked(self) -> int:
        """Tokens that were compared: what follows a rejection was not."""
        return min(self.accepted + 1, len(self.proposed))


@dataclass(frozen=True)
class SpeculativeStats:
    """rounds: in order. prefill_seconds: the prompt's pass through the target. target_tokens:
    tokens that went through the target, prompt included; each accepted token went through once."""

    rounds: Sequence[Round]
    prefill_seconds: float
    target_tokens: int

    @property
    def proposed(self) -> int:
        return sum(len(r.proposed) for r in self.rounds)

    @property
    def accepted(self) -> int:
        return sum(r.accepted for r in self.rounds)

    @property
    def checked(self) -> int:
        return sum(r.checked for r in self.rounds)

    @property
    def acceptance_rate(self) -> float | None:
        """Accepted of checked, the formulas' alpha; None where nothing was proposed."""
        return self.accepted / self.checked if self.checked else None

    def acceptance_interval(self, confidence: float = 0.95) -> tuple[float, float] | None:
        """Wilson's interval of the acceptance rate."""
        if not self.checked:
            return None
        return acceptance_interval(self.accepted, self.checked, confidence)

    @property
    def tokens_per_round(self) -> float:
        """Accepted tokens and the one more, on average."""
        return (self.accepted + len(self.rounds)) / len(self.rounds)

    @property
    def draft_seconds(self) -> float:
        return sum(r.draft_seconds for r in self.rounds)

    @property
    def verify_seconds(self) -> float:
        return sum(r.verify_seconds for r in self.rounds)

    @property
    def overhead_seconds(self) -> float:
        return sum(r.overhead_seconds for r in self.rounds)
