"""What lesson 07 learns from and judges by, and the logits that its widget shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from slmlab.data import Origin, evaluation_set, read_corpus
from slmlab.distill import block_influence, evenly_spaced_layers, loss_increase
from slmlab.generation import LanguageModel
from slmlab.measure import position_kl_nats

# A few packages of the standard library: reading all of them takes seconds.
_PACKAGES = ("asyncio", "email", "json")
_CHARACTERS = 1200  # of a text
PROMPTS = (
    "This method returns",
    "The default value is",
    "If the file does not exist, a",
    "Convert the number to a",
)


@dataclass(frozen=True)
class HeldOut:
    """Documentation that no model here was trained on, and the teacher's answer to it.

    ids: (rows, time + 1) int64. reference: (rows * time, V), the teacher's logits.
    """

    ids: Tensor
    reference: Tensor

    @torch.no_grad()
    def logits(self, model: Any) -> Tensor:
        """(rows * time, V) of a Decoder."""
        logits: Tensor = model(self.ids[:, :-1]).flatten(0, 1)
        return logits

    def kl(self, model: Any) -> float:
        """Mean KL(teacher || model), nats a token."""
        return float(position_kl_nats(self.logits(model), self.reference).mean())

    def perplexity(self, model: Any) -> float:
        """Of the text itself: exp of the mean cross-entropy."""
        targets = self.ids[:, 1:].flatten()
        loss = torch.nn.functional.cross_entropy(self.logits(model).double(), targets)
        return math.exp(float(loss))

    def judge(self, logits: Tensor) -> tuple[float, float]:
        """KL(teacher || softmax(logits)) in nats a token, and perplexity. logits: (rows * time, V)."""
        loss = torch.nn.functional.cross_entropy(logits.double(), self.ids[:, 1:].flatten())
        return float(position_kl_nats(logits, self.reference).mean()), math.exp(float(loss))

    @property
    def uniform_kl(self) -> float:
        """Of a guess that gives every token the same probability: log V - mean entropy, nats."""
        return float(position_kl_nats(torch.zeros_like(self.reference), self.reference).mean())


def held_out(lm: LanguageModel, rows: int = 10, time: int = 64) -> HeldOut:
    """Rows from the held-out documentation of the standard library."""
    ids = [
        token for text in evaluation_set("stdlib-docs").texts for token in lm.encode(text[:1500])
    ]
    tokens = _cut(ids, time + 1)[:rows]
    with torch.no_grad():
        reference = lm.model(tokens[:, :-1]).flatten(0, 1)
    return HeldOut(tokens, reference)


def text_rows(lm: LanguageModel, count: int, time: int = 64, seed: int = 0) -> Tensor:
    """Documentation of the training split to learn from: (count, time + 1) int64.

    Raises ValueError where there is not as much.
    """
    texts = read_corpus("training", (Origin("stdlib", ("docs",), _PACKAGES),)).texts("docs")
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed)).tolist()
    ids: list[int] = []
    for place in order:
        ids += lm.encode(texts[place][:_CHARACTERS])
        if len(ids) >= count * (time + 1):
            return _cut(ids, time + 1)[:count]
    raise ValueError(f"count={count} rows are wanted, there are {len(ids) // (time + 1)}")


def noise_rows(lm: LanguageModel, count: int, time: int = 64, seed: int = 0) -> Tensor:
    """Tokens drawn evenly from the vocabulary, each alone: (count, time + 1) int64."""
    tokens = min(len(lm.tokenizer), lm.model.config.vocab_size)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(tokens, (count, time + 1), generator=generator)


@torch.no_grad()
def one_answer(model: Any, rows: Tensor) -> Tensor:
    """Log of the mean of a model's distributions over all places of rows (count, time + 1): (V,).

    What a student can say that does not look at its input.
    """
    total: Any = 0
    for part in rows.split(16):
        total = total + model(part[:, :-1]).double().softmax(-1).sum((0, 1))
    answer: Tensor = (total / total.sum()).log()
    return answer


def _cut(ids: Sequence[int], length: int) -> Tensor:
    return torch.tensor(ids[: len(ids) // length * length]).reshape(-1, length)


def cuts(model: Any, layers: int, calibration: Tensor) -> dict[str, list[int]]:
    """Rule -> the layers that it keeps, ascending.

    calibration: ids (rows, time) for the two rules that look at the model.
    """
    depth = len(model.layers)
    rules = {
        "evenly spaced": evenly_spaced_layers(depth, layers),
        "the last": list(range(depth - layers, depth)),
        "the first": list(range(layers)),
    }
    for name, measure in (("block influence", block_influence), ("loss", loss_increase)):
        ranked = measure(model, calibration).argsort(descending=True, stable=True)
        rules[name] = sorted(ranked[:layers].tolist())
    return rules


@dataclass(frozen=True)
class Bench:
    """All that the widget shows: prompt -> next-token logits (V,) of both models.

    decode: ids -> text.
    """

    teacher: Mapping[str, Tensor]
    student: Mapping[str, Tensor]
    decode: Callable[[list[int]], str]

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(self.teacher)


@torch.no_grad()
def bench(lm: LanguageModel, student: Any, prompts: Sequence[str] = PROMPTS) -> Bench:
    """Asks both models for the token after each prompt. Raises ValueError without a prompt."""
    if not prompts:
        raise ValueError("prompts is empty: give at least one")
    ids = {prompt: torch.tensor([lm.encode(prompt)]) for prompt in prompts}
    return Bench(
        {prompt: lm.model(row)[0, -1].double() for prompt, row in ids.items()},
        {prompt: student(row)[0, -1].double() for prompt, row in ids.items()},
        lambda tokens: str(lm.tokenizer.decode(tokens)),
    )
