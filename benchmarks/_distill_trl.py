"""trl's DistillationTrainer as one more way to take a step, on given rows.

It is made for text that the student samples itself. Here `_generate` hands out the rows instead, so
that all ways learn from the same tokens and none pays for sampling; all else is trl's own: its
data loader, loop, chunked loss, clipping and optimizer. Its prompt is a row's first token. It
feeds the last token too, 257 for 256 predictions. Its loss has no factor T^2; what depends on the
gradient's length (clipping, AdamW's epsilon) is divided by T^2 to take the same steps.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._distill_ways import BETAS, LEARNING_RATE, LONGEST_GRADIENT, TEMPERATURE

_PACKAGES = ("trl", "datasets")


def missing() -> str | None:
    """Why trl cannot take part, in one line; None where it can."""
    absent = [package for package in _PACKAGES if find_spec(package) is None]
    if not absent:
        return None
    return (
        f"trl is left out: {' and '.join(absent)} not installed, "
        'get it with pip install -c constraints.txt -e ".[distill-peers]"'
    )


class Trl:
    """The trainer owns the loop: :meth:`run` calls back between its steps.

    ``beta`` is trl's: 0 is KL(teacher || student).
    """

    name, scale = "trl", TEMPERATURE**2

    def __init__(
        self, student: Any, teacher: Any, rows: Tensor, tokenizer: Any, beta: float = 0.0
    ) -> None:
        """student, teacher: transformers models. rows: (B, T + 1) int64, all in every batch."""
        from datasets import Dataset
        from transformers import PrinterCallback, TrainerCallback
        from trl import DistillationConfig, DistillationTrainer

        way = self

        class OnGivenRows(DistillationTrainer):  # type: ignore[misc]
            def _generate(self, prompts: list[Any]) -> Any:
                return [row[:1] for row in prompts], [row[1:] for row in prompts], None, None, []

            def _compute_loss(self, *arguments: Any) -> Any:
                found = super()._compute_loss(*arguments)
                way._loss = found[0].detach()
                return found

        class BetweenSteps(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                way._between(float(way._loss) * way.scale)

        self.student: nn.Module = copy.deepcopy(student)
        self._loss = torch.zeros(())
        self._between: Callable[[float], None] = lambda loss: None
        self._folder = tempfile.TemporaryDirectory()  # it wants one, and writes nothing
        self._trainer = OnGivenRows(
            model=self.student,
            teacher_model=teacher,
            args=DistillationConfig(
                output_dir=self._folder.name,
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,  # memory for time: off is the faster
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                per_device_train_batch_size=len(rows),
                max_steps=1,
                learning_rate=LEARNING_RATE,
                lr_scheduler_type="constant",
                weight_decay=0.0,
                adam_beta1=BETAS[0],
                adam_beta2=BETAS[1],
                adam_epsilon=1e-8 / self.scale,
                max_grad_norm=LONGEST_GRADIENT / self.scale,
                beta=beta,
                temperature=TEMPERATURE,
                max_completion_length=rows.shape[1] - 1,
            ),
            train_dataset=Dataset.from_dict({"prompt": rows.tolist()}),
            processing_class=tokenizer,
            callbacks=[BetweenSteps()],
        )
        self._trainer.remove_callback(PrinterCallback)

    def step(self) -> float:
        """One step, with all that starting a training run costs: to compare results, not times."""
        losses: list[float] = []
        self.run(1, losses.append)
        return losses[0]

    def run(self, steps: int, between: Callable[[float], None]) -> None:
        """Train, and call ``between`` with the loss whenever a step has ended."""
        self._between = between
        self._trainer.args.max_steps = steps
        self._trainer.train()
