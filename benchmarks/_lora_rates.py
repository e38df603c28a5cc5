"""The learning rate of each way, searched over as many values as any other's.

Judged by the loss on commands of the training split that the run did not see: the held-out commands
judge the study and choose nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from benchmarks._lora_text import training_rows
from benchmarks._lora_ways import best_layers, full, lora, quietly, student
from slmlab.distill.forward import guiding, logits_of
from slmlab.models import Decoder

RATES = {"lora": (3e-3, 1e-2, 3e-2), "full": (3e-4, 1e-3, 3e-3), "student": (1e-3, 3e-3, 1e-2)}
TRAINED_SEED, JUDGED_SEED = 90, 91  # of none of the study's runs


def loss_on(model: Decoder, rows: Tensor) -> float:
    """Mean cross-entropy, nats a token."""
    with guiding(model), torch.no_grad():
        found = [
            nn.functional.cross_entropy(logits_of(model, row[None, :-1])[0], row[1:])
            for row in rows
        ]
    return float(torch.stack(found).mean())


def search(
    tokenizer: Any, rows: int, time: int, rates: Mapping[str, Sequence[float]] = RATES
) -> dict[str, dict[str, Any]]:
    """Way -> {"losses": {rate: nats a token}, "chosen": rate}; ``rows`` of ``time`` tokens each."""
    shown = training_rows(tokenizer, rows, time, TRAINED_SEED)
    judged = training_rows(tokenizer, max(2, rows // 10), time, JUDGED_SEED)
    found: dict[str, dict[str, Any]] = {}
    with tqdm(total=sum(map(len, rates.values())), desc="learning rates", unit="run") as bar:

        def best(way: str, run: Any) -> None:
            losses = {}
            for rate in rates[way]:
                bar.set_postfix_str(f"{way} {rate:g}")
                losses[rate] = round(loss_on(quietly(partial(run, rate)).model, judged), 4)
                bar.update()
            found[way] = {"losses": losses, "chosen": min(losses, key=lambda rate: losses[rate])}

        best("lora", lambda rate: lora(shown, TRAINED_SEED, rate))
        best("full", lambda rate: full(shown, TRAINED_SEED, rate))
        teacher = quietly(lambda: lora(shown, TRAINED_SEED, found["lora"]["chosen"]))
        keep = best_layers(teacher.model, shown)
        best("student", lambda rate: student(shown, TRAINED_SEED, teacher, keep, rate))
    return found
