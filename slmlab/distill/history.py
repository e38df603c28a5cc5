"""What a run did so far, and how it says that it cannot go on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from slmlab.distill.batches import Batch


class NonFiniteLoss(FloatingPointError):
    """The loss or its gradient became NaN or infinite; no weight was changed by that step.

    step: counted from 0. rows: (B,) numbers of the batch's rows. ids: (B, T) their tokens.
    checkpoint: the last good one, or None.
    """

    def __init__(self, step: int, batch: Batch, checkpoint: Path | None, what: str) -> None:
        self.step, self.rows, self.ids, self.checkpoint = step, batch.rows, batch.ids, checkpoint
        kept = (
            f"the last good checkpoint is {checkpoint}" if checkpoint else "no checkpoint was kept"
        )
        super().__init__(
            f"{what} at step {step}, on rows {batch.rows.tolist()}: {kept}; lower learning_rate, or "
            "look at these rows"
        )


@dataclass
class History:
    """What a run did so far.

    losses: of every step, nats. tokens: predictions learned from. evaluations: (step, values).
    """

    losses: list[float] = field(default_factory=list)
    tokens: int = 0
    evaluations: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    @property
    def step(self) -> int:
        """Finished steps."""
        return len(self.losses)
