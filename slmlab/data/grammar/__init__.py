"""A seeded grammar of four tasks whose entropy is known exactly.

Every text of a task has exactly one derivation: the choices can be read back from the text. So
the probability of a text is the product of the probabilities of its choices, `Sample.bits` is its
exact information content, and no model can average fewer bits on a task than `entropy_bits(task)`.
The bits cover the whole document, its end included: compare them with the loss over all tokens of
the text and the `<|endoftext|>` after it.

Training and evaluation are disjoint twice over: their random streams have different names, and the
evaluation split contains combinations (a hashed 5%) that training never shows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from slmlab.data.grammar import recall, stories, sums, tool_calls
from slmlab.data.grammar.chooser import SPLITS, TRAINING, Chooser, is_held_out, stream

__all__ = [
    "SPLITS",
    "TASKS",
    "Chooser",
    "Sample",
    "documents",
    "entropy_bits",
    "is_held_out",
    "sample",
    "stream",
]


@dataclass(frozen=True)
class Sample:
    """One document of the grammar. `bits` is -log2 of the probability of the whole text."""

    task: str
    prompt: str
    answer: str
    bits: float

    @property
    def text(self) -> str:
        """The document, without the `<|endoftext|>` that follows it in training."""
        return self.prompt + self.answer


_GENERATORS: Mapping[str, Callable[[Chooser, str], tuple[str, str]]] = {
    "tool_calls": tool_calls.generate,
    "recall": recall.generate,
    "sums": sums.generate,
    "stories": stories.generate,
}
_ENTROPIES: Mapping[str, Callable[[str], float]] = {
    "tool_calls": tool_calls.entropy,
    "recall": recall.entropy,
    "sums": sums.entropy,
    "stories": stories.entropy,
}
TASKS: tuple[str, ...] = tuple(_GENERATORS)


def _check(task: str, split: str) -> None:
    if task not in _GENERATORS:
        raise ValueError(f"task is {task!r}: choose one of {', '.join(TASKS)}.")
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}: choose one of {', '.join(SPLITS)}.")


def sample(task: str, rng: random.Random, split: str = TRAINING) -> Sample:
    """Draw one document of `task`.

    Raises ValueError for an unknown task or split, TypeError if `rng` is not a random.Random.
    """
    _check(task, split)
    if not isinstance(rng, random.Random):
        raise TypeError(f"rng is a {type(rng).__name__}: pass random.Random(seed) or stream(...).")
    chooser = Chooser(rng)
    prompt, answer = _GENERATORS[task](chooser, split)
    return Sample(task, prompt, answer, chooser.bits)


def documents(
    seed: int,
    tasks: Sequence[str] = TASKS,
    weights: Sequence[float] | None = None,
    split: str = TRAINING,
    name: str | None = None,
) -> Iterator[Sample]:
    """An endless mix of samples. Which task comes next is not part of a sample's `bits`.

    `weights` are relative frequencies, one a task (equal if absent). `name` names the random
    stream (the split if absent); two names never share a stream.
    """
    tasks = tuple(tasks)
    if not tasks:
        raise ValueError("tasks is empty: name at least one task.")
    for task in tasks:
        _check(task, split)
    shares = tuple(weights) if weights is not None else (1.0,) * len(tasks)
    if len(shares) != len(tasks) or min(shares) < 0 or not 0 < sum(shares) < float("inf"):
        raise ValueError(
            f"weights is {shares}: give one number >= 0 for each of the {len(tasks)} tasks, "
            "not all of them 0."
        )
    return _mix(stream(name or split, seed), tasks, shares, split)


def _mix(
    rng: random.Random, tasks: tuple[str, ...], shares: tuple[float, ...], split: str
) -> Iterator[Sample]:
    total = sum(shares)
    while True:
        left = rng.random() * total
        chosen = 0
        while left >= shares[chosen] and chosen < len(tasks) - 1:
            left -= shares[chosen]
            chosen += 1
        yield sample(tasks[chosen], rng, split)


def entropy_bits(task: str, split: str = TRAINING) -> float:
    """Mean bits of one document of `task`, in closed form (no sampling)."""
    _check(task, split)
    return _ENTROPIES[task](split)
