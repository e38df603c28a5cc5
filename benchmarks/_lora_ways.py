"""Four ways to a model for one domain, each from `tiny` and from the same rows."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slmlab.distill import Distiller, student_from_layers
from slmlab.distill.forward import guiding, logits_of
from slmlab.models import Decoder, model_directory
from slmlab.models.layout import from_hf_names

RANK, ALPHA = 8, 16
BATCH = 4
STUDENT_LAYERS = 2
STORED_BYTES = 2  # a weight, as tiny is stored: float16


@dataclass(frozen=True)
class Tuned:
    """model: what answers, adapters merged. trained: parameters that learned. stored_bytes: what one
    more domain adds on disk. cpu_seconds: of its own training; teacher_cpu_seconds: of the teacher's
    before that."""

    model: Decoder
    trained: int
    stored_bytes: int
    cpu_seconds: float
    teacher_cpu_seconds: float = 0.0

    @property
    def optimizer_bytes(self) -> int:
        """AdamW's two float32 moments."""
        return 2 * 4 * self.trained


def tiny_in_transformers() -> Any:
    """tiny as transformers' LlamaForCausalLM, float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model_directory("tiny"), dtype=torch.float32)


def with_lora(model: Any, seed: int) -> Any:
    """Adapters of rank RANK on every linear layer but the head; B starts at zero, so that the first
    output is the model's own (Hu et al. 2021, arXiv:2106.09685, section 4.1)."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(model, config)


def as_decoder(model: Any) -> Decoder:
    """A Decoder with the weights of a transformers model of tiny's config."""
    made = Decoder.from_pretrained("tiny")
    tensors = {name: t.detach().clone() for name, t in model.state_dict().items()}
    made.load_state_dict(from_hf_names(tensors, made.config))
    return made


def merged(adapted: Any) -> Decoder:
    """W + (alpha / r) B A in place of each W: as fast as tiny. Takes the adapters off."""
    return as_decoder(adapted.merge_and_unload())


def trained_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def learn(model: nn.Module, teacher: Decoder | None, rows: Tensor, rate: float, seed: int) -> float:
    """One pass over the rows; processor seconds. Hard labels without a teacher, its logits with."""
    steps = len(rows) // BATCH
    distiller = Distiller(
        model,
        teacher,
        rows,
        method="hard" if teacher is None else "logits",
        progress=False,
        steps=steps,
        batch_size=BATCH,
        learning_rate=rate,
        warmup_steps=max(1, steps // 10),
        seed=seed,
    )
    start = time.process_time()
    distiller.train()
    return time.process_time() - start


def lora(rows: Tensor, seed: int, rate: float) -> Tuned:
    adapted = with_lora(tiny_in_transformers(), seed)
    trained = trained_parameters(adapted)
    seconds = learn(adapted, None, rows, rate, seed)
    return Tuned(merged(adapted), trained, STORED_BYTES * trained, seconds)


def full(rows: Tensor, seed: int, rate: float) -> Tuned:
    model = tiny_in_transformers().requires_grad_()
    trained = trained_parameters(model)
    seconds = learn(model, None, rows, rate, seed)
    return Tuned(as_decoder(model), trained, STORED_BYTES * trained, seconds)


def student(rows: Tensor, seed: int, teacher: Tuned, keep: Sequence[int], rate: float) -> Tuned:
    """Distilled from a tuned teacher on the same rows."""
    model = student_from_layers(teacher.model, keep)
    trained = trained_parameters(model)
    seconds = learn(model, teacher.model, rows, rate, seed)
    model.eval().requires_grad_(False)
    spent = teacher.cpu_seconds + teacher.teacher_cpu_seconds
    return Tuned(model, trained, STORED_BYTES * trained, seconds, spent)


def best_layers(teacher: Decoder, rows: Tensor) -> list[int]:
    """The first layer and the one more that leaves the smallest loss on some training rows."""
    pairs = [[0, other] for other in range(1, teacher.config.num_hidden_layers)]

    def loss(keep: list[int]) -> float:
        cut = student_from_layers(teacher, keep)
        with guiding(cut), torch.no_grad():
            logits = logits_of(cut, rows[:BATCH, :-1]).flatten(0, 1)
            return float(nn.functional.cross_entropy(logits, rows[:BATCH, 1:].flatten()))

    return min(pairs, key=loss)


def quietly(work: Callable[[], Any]) -> Any:
    """peft and transformers warn of what is meant here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return work()
