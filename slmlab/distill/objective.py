"""The one module that is trained: the student, and whatever weights its method has."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from slmlab.distill.batches import Batch
from slmlab.distill.forward import logits_and_states
from slmlab.distill.methods import Method, hard_label_loss
from slmlab.distill.settings import Settings


class Objective(nn.Module):
    """(1 - hard_weight) * the method's loss + hard_weight * the text's hard-label loss.

    Loss and student are one module, as data parallelism synchronises the gradients of what passes
    through the forward of the module that it wraps.
    """

    def __init__(self, student: nn.Module, method: Method, settings: Settings) -> None:
        super().__init__()
        self.student, self.method = student, method
        self.settings = settings

    def forward(
        self, learned: Batch, given: Batch, target: Any, shares: tuple[float, float]
    ) -> Tensor:
        """A scalar.

        learned: what the method made of the batch ``given``; often the same. target: of the
        teacher. shares: of the counted positions of ``learned`` and ``given`` that lie in this
        process, relative to an equal split: mean losses of unequal parts, averaged over processes,
        give each part the same weight and not each position.
        """
        logits, states = logits_and_states(self.student, learned.inputs, self.method.needs_states)
        hard = self.settings.hard_weight
        distilled = self.method.loss(logits, states, target, learned, self.settings) * shares[0]
        if hard == 0:
            return distilled
        if learned is not given:
            logits = logits_and_states(self.student, given.inputs, states=False)[0]
        return (1 - hard) * distilled + hard * hard_label_loss(logits, given) * shares[1]
