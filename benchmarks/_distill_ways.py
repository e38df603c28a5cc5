"""Ways to take one distillation step, all on the same rows, weights, optimizer and temperature."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks._distill_models import decoder_names
from slmlab.distill import Distiller, Logits, Method
from slmlab.distill.batches import Batch
from slmlab.distill.methods import Step
from slmlab.models import Decoder, ModelConfig

TEMPERATURE = 2.0
LEARNING_RATE, BETAS, LONGEST_GRADIENT = 1e-3, (0.9, 0.95), 1.0
Loss = Callable[[Tensor, Tensor], Tensor]


class Way(Protocol):
    """One whole optimizer step a call of ``step``, which returns the loss.

    ``scale`` is what its loss, and so its gradient, is divided by, relative to the others'.
    """

    name: str
    student: nn.Module
    scale: float

    def step(self) -> float: ...


class StoredLogits(Logits):
    """The method "logits" for a second epoch: the teacher was asked once, in the first."""

    needs_teacher = False

    def __init__(self, stored: Tensor) -> None:
        """stored: (N, T, V) of all rows, the teacher's."""
        super().__init__()
        self._stored = stored

    def target(self, teacher: nn.Module | None, batch: Batch, step: Step) -> Tensor:
        return self._stored[batch.rows]


class Ours:
    """`slmlab.distill.Distiller` as its users run it, a step at a time."""

    scale = 1.0

    def __init__(
        self, student: Decoder, teacher: Decoder, rows: Tensor, stored: bool = False
    ) -> None:
        """rows: (B, T + 1) int64, all of them in every batch. stored: the teacher is asked here,
        and not in the steps."""
        self.name = "slmlab, stored teacher" if stored else "slmlab"
        self.student: nn.Module = copy.deepcopy(student)
        method: Method = Logits()
        if stored:
            with torch.no_grad():
                method = StoredLogits(teacher(rows[:, :-1]))
        self._distiller = Distiller(
            self.student,
            teacher,
            rows,
            method=method,
            progress=False,
            steps=10**6,  # so that the rate stays at its peak
            warmup_steps=0,
            batch_size=len(rows),
            learning_rate=LEARNING_RATE,
            max_gradient_norm=LONGEST_GRADIENT,
            temperature=TEMPERATURE,
        )

    def step(self) -> float:
        return self._distiller.train(until=self._distiller.history.step + 1).losses[-1]


def kl_div_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Forward KL as a training script writes it: logits (B, T, V) -> mean over positions, T^2."""
    log_q = functional.log_softmax(student.flatten(0, 1) / TEMPERATURE, -1)
    log_p = functional.log_softmax(teacher.flatten(0, 1) / TEMPERATURE, -1)
    return functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * TEMPERATURE**2


class PlainLoop:
    """A training loop by hand; `logits` of either library's model."""

    scale = 1.0

    def __init__(
        self, name: str, student: nn.Module, teacher: nn.Module, rows: Tensor, loss: Loss
    ) -> None:
        self.name, self.student, self._teacher = name, copy.deepcopy(student).train(), teacher
        self._inputs, self._loss = rows[:, :-1], loss
        self._optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            self.student.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=0.0
        )

    def step(self) -> float:
        self._optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            wanted = _logits(self._teacher, self._inputs)
        loss = self._loss(_logits(self.student, self._inputs), wanted)
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), LONGEST_GRADIENT)
        self._optimizer.step()
        return float(loss.detach())


def _logits(model: Any, ids: Tensor) -> Tensor:
    return model(ids) if isinstance(model, Decoder) else model(ids, use_cache=False).logits


class Seen:
    """What a step did: the student's gradients before they were clipped, under a Decoder's names.

    Hooks on the parameters see them in every library; use it as a context.
    """

    def __init__(self, way: Way, config: ModelConfig) -> None:
        self._way, self._config = way, config
        self._found: dict[str, Tensor] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> Seen:
        for name, parameter in self._way.student.named_parameters():

            def keep(seen: Tensor, name: str = name) -> None:
                assert seen.grad is not None
                self._found[name] = seen.grad.detach().clone() * self._way.scale

            self._hooks.append(parameter.register_post_accumulate_grad_hook(keep))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    @property
    def gradients(self) -> dict[str, Tensor]:
        return self._named(self._found)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Of the student now."""
        return self._named({n: p.detach().clone() for n, p in self._way.student.named_parameters()})

    def _named(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if isinstance(self._way.student, Decoder):
            return tensors
        return decoder_names(tensors, self._config)
