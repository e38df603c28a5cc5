"""Training a student on its teacher: any pair of causal models, interruptible at any moment."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from slmlab.distill.batches import Batch, Rows
from slmlab.distill.checkpoint import all_finite, load_checkpoint, save_checkpoint
from slmlab.distill.forward import device_of, guiding
from slmlab.distill.history import History, NonFiniteLoss
from slmlab.distill.interrupt import interrupts_held
from slmlab.distill.losses import LogitsNotFinite
from slmlab.distill.methods import Method, Step, method_of
from slmlab.distill.objective import Objective
from slmlab.distill.pair import check_pair, check_room, fingerprint
from slmlab.distill.processes import OneProcess, Processes
from slmlab.distill.settings import Settings
from slmlab.distill.vocabulary import check_same_tokenizer
from slmlab.generation import LanguageModel
from slmlab.models.fields import check_whole

Evaluate = Callable[[Any, int], Mapping[str, float] | float | None]


class Distiller:
    """Train ``student`` to follow ``teacher``.

    Args:
        student, teacher: Decoder, transformers causal model, or LanguageModel, whose tokenizers are
            then compared too. The student is trained in place; its parameters that require
            gradients are. teacher may be None for a method that asks none.
        rows: token ids (N, T) int64; position i predicts token i + 1. Padding on the right.
        mask: (N, T - 1) bool, the predictions that count; None counts all.
        method: "hard", "logits", "topk", "sequence", "on_policy", or an object of
            `slmlab.distill.methods`.
        checkpoint: a .safetensors file to keep the state in. A run that finds it there goes on.
        checkpoint_every: steps between two of them; one is written at the end and at an interrupt
            too.
        evaluate: called with the student, in evaluation mode and without gradients, and the number
            of finished steps; what it returns is recorded. On several processes the first calls it.
        evaluate_every: steps between evaluations; it is also called before the first step and
            behind the last. 0: only there.
        progress: show a bar.
        accelerator: an ``accelerate.Accelerator`` for several processes or devices; None trains
            where the student is.
        settings: fields of `Settings`: steps, batch_size, learning_rate, hard_weight, ...

    Raises:
        ValueError: models of different vocabularies or tokenizers, a student without trainable
            parameters, in float16, or sharing weights with its teacher, rows that the models cannot
            read, a batch that the processes cannot share equally, a bad setting.
        TypeError: no models, an unknown setting, another wrong type.
    """

    def __init__(
        self,
        student: Any,
        teacher: Any,
        rows: Tensor,
        mask: Tensor | None = None,
        *,
        method: str | Method = "logits",
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 100,
        evaluate: Evaluate | None = None,
        evaluate_every: int = 0,
        progress: bool = True,
        accelerator: Processes | None = None,
        **settings: Any,
    ) -> None:
        if isinstance(student, LanguageModel) and isinstance(teacher, LanguageModel):
            check_same_tokenizer(student.tokenizer, teacher.tokenizer)
        self.student: nn.Module = student.model if isinstance(student, LanguageModel) else student
        self.teacher: nn.Module | None = (
            teacher.model if isinstance(teacher, LanguageModel) else teacher
        )
        self.method = method_of(method)
        self.settings = _settings(settings)
        if self.teacher is None and self.method.needs_teacher:
            raise ValueError(
                f"method {type(self.method).__name__} asks a teacher at every step: pass one"
            )
        vocabulary = check_pair(self.student, self.teacher)
        self.rows = Rows(rows, mask, vocabulary)
        check_room(self.rows.ids.shape[1] - 1, student=self.student, teacher=self.teacher)
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self._checkpoint_every = check_whole("checkpoint_every", checkpoint_every)
        if evaluate is not None and not callable(evaluate):
            raise TypeError("evaluate must be a function of the student and the step, or None")
        self._evaluate = evaluate
        self._evaluate_every = check_whole("evaluate_every", evaluate_every, at_least=0)
        self._progress = progress
        self.processes: Processes = accelerator or OneProcess(device_of(self.student))
        if self.settings.batch_size % self.processes.num_processes:
            raise ValueError(
                f"batch_size={self.settings.batch_size} must be a multiple of the "
                f"{self.processes.num_processes} processes, which share each batch equally"
            )
        self.history = History()
        self._learned_rows: Rows | None = None  # what the method made of the rows
        self._identity = {
            **asdict(self.settings),
            **self.method.describe(),
            "rows": self.rows.digest(),
            "teacher": fingerprint(self.teacher),
        }
        objective = Objective(self.student, self.method, self.settings)
        self._objective = objective
        self._optimizer = _optimizer(objective, self.settings)
        self._wrapped, self._stepper = self.processes.prepare(objective, self._optimizer)
        if self.teacher is not None and accelerator is not None:
            self.teacher.to(self.processes.device)

    def train(self, until: int | None = None) -> History:
        """Train to the last step, or to step ``until``; calling it again goes on.

        Returns what was done so far. A KeyboardInterrupt is raised again with everything kept: in
        this object, and in the checkpoint where one is named.

        Raises:
            NonFiniteLoss: NaN or infinity.
            ValueError: a checkpoint that cannot be read or belongs to another run.
        """
        last = self.settings.steps
        if until is not None:
            last = min(last, check_whole("until", until, at_least=0))
        if self.history.step == 0 and self.checkpoint is not None and self.checkpoint.is_file():
            self._restore(self.checkpoint)
        if self._learned_rows is None:
            used = self._rows_used()
            with guiding(self.teacher):
                self._learned_rows = self.method.prepare(
                    self.rows, used, self.teacher, self.settings
                )
        training = self.student.training
        self._torn = False
        with tqdm(
            total=self.settings.steps,
            initial=self.history.step,
            desc="distil",
            unit="step",
            disable=not (self._progress and self.processes.is_main_process),
        ) as bar:
            try:
                self._wrapped.train()
                while True:
                    self._evaluate_if_due()
                    if self.history.step >= last:
                        break
                    bar.set_postfix(loss=f"{self._advance():.4f}", refresh=False)
                    bar.update()
                    if self.history.step % self._checkpoint_every == 0:
                        self._save()
            finally:
                self._wrapped.train(training)
                self._optimizer.zero_grad(set_to_none=True)
                self._save()
        return self.history

    def _advance(self) -> float:
        """One step; its loss over all processes."""
        assert self._learned_rows is not None
        processes, settings, number = self.processes, self.settings, self.history.step
        step = Step(number, settings, processes.process_index, processes.num_processes)
        numbers = self.rows.numbers(number, settings.batch_size, settings.seed)
        whole = self._learned_rows.of(numbers)
        self._optimizer.zero_grad(set_to_none=True)
        part = whole.part(step.part, step.parts).to(processes.device)
        with _own_randomness(settings.seed, step, processes.device):
            loss, tokens = self._loss(part, step)
        value = torch.full((), math.nan) if loss is None else loss.detach()
        mean = float(processes.reduce(value.double().to(processes.device), reduction="mean"))
        if loss is None or not math.isfinite(mean):
            raise NonFiniteLoss(number, whole, self._last_checkpoint(), f"the loss is {mean}")
        processes.backward(loss)
        norm = float(
            processes.clip_grad_norm_(self._objective.parameters(), settings.max_gradient_norm)
        )
        if not math.isfinite(norm):
            what = f"the gradient's norm is {norm} (loss {mean:.4g})"
            raise NonFiniteLoss(number, whole, self._last_checkpoint(), what)
        for group in self._optimizer.param_groups:
            group["lr"] = settings.learning_rate * settings.rate(number)
        with interrupts_held():
            # A step that fails half-way leaves weights that no checkpoint may hold.
            self._torn = True
            self._stepper.step()
            self.history.losses.append(mean)
            self.history.tokens += tokens
            self._torn = False
        return mean

    def _loss(self, given: Batch, step: Step) -> tuple[Tensor | None, int]:
        """This process's loss, None where the logits are NaN, and the counted tokens of all.

        Every process asks for the same sums, also the one whose logits are NaN: the others wait.
        """
        try:
            learned = self.method.batch(given, self.student, step)
        except LogitsNotFinite:
            learned = None
        if self._learned_rows is not self.rows:
            given = self.rows.of(given.rows).to(self.processes.device)
        counted = given if learned is None else learned
        counts = torch.stack((counted.mask.sum(), given.mask.sum()))
        totals = self.processes.reduce(counts, reduction="sum").tolist()
        if learned is None:
            return None, 0
        shares = tuple(step.parts * ours / total for ours, total in zip(counts.tolist(), totals))
        try:
            with guiding(self.teacher):
                target = self.method.target(self.teacher, learned, step)
            return self._wrapped(learned, given, target, shares), totals[0]
        except LogitsNotFinite:
            return None, 0

    def _evaluate_if_due(self) -> None:
        step, every = self.history.step, self._evaluate_every
        if self._evaluate is None or not self.processes.is_main_process:
            return
        due = step in (0, self.settings.steps) or (every and step % every == 0)
        if not due or any(at == step for at, _ in self.history.evaluations):
            return
        with guiding(self.student):
            values = self._evaluate(self.student, step)
        if values is None:
            values = {}
        elif not isinstance(values, Mapping):
            values = {"value": float(values)}
        self.history.evaluations.append((step, {k: float(v) for k, v in values.items()}))

    def _rows_used(self) -> Tensor:
        """Numbers of the rows that some step meets, ascending."""
        needed = self.settings.steps * self.settings.batch_size
        if needed >= len(self.rows):
            return torch.arange(len(self.rows))
        return self.rows.numbers(0, needed, self.settings.seed).sort().values

    def _save(self) -> None:
        if self.checkpoint is None or self._torn or not self.processes.is_main_process:
            return
        if self.history.step and all_finite(self._objective):
            record = {"identity": self._identity, **asdict(self.history)}
            save_checkpoint(self.checkpoint, self._objective, self._optimizer, record)

    def _restore(self, path: Path) -> None:
        record = load_checkpoint(path, self._objective, self._optimizer, self._identity)
        self.history = History(
            losses=record["losses"],
            tokens=record["tokens"],
            evaluations=[(step, values) for step, values in record["evaluations"]],
        )

    def _last_checkpoint(self) -> Path | None:
        """Written on the way out by `_save`, which keeps finite weights only."""
        if self.checkpoint is None:
            return None
        good = self.history.step > 0 and all_finite(self._objective)
        return self.checkpoint if good or self.checkpoint.is_file() else None


def _settings(values: dict[str, Any]) -> Settings:
    known = Settings.__dataclass_fields__
    if unknown := sorted(set(values) - set(known)):
        raise TypeError(f"Distiller knows no setting {unknown[0]!r}: use {', '.join(known)}")
    return Settings(**values)


def _optimizer(objective: Objective, settings: Settings) -> torch.optim.Optimizer:
    """AdamW, weight decay on matrices only: gains and biases have no scale to hold down."""
    trained = [p for p in objective.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.dim() > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=(0.9, 0.95),
    )


@contextmanager
def _own_randomness(seed: int, step: Step, device: torch.device) -> Iterator[None]:
    """Dropout from the step's own seed: what came before, or an interrupt, does not matter."""
    own = np.random.SeedSequence([seed, step.number, step.part]).generate_state(1)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(own[0]))
        yield
