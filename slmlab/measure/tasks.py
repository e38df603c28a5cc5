"""How many of the grammar's tasks a model solves, and how close it comes to their entropy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slmlab.data import evaluation_set
from slmlab.generation import generate_tokens
from slmlab.measure.perplexity import score
from slmlab.measure.timing import check_count

if TYPE_CHECKING:
    from slmlab.generation import LanguageModel

ANSWERED_TASKS = ("tool_calls", "recall", "sums")
LONGEST_ANSWER_TOKENS = 64


@dataclass(frozen=True)
class TaskScore:
    """Exact matches of one task. ``wrong`` holds (prompt, wanted, got) of the failures."""

    task: str
    right: int
    n: int
    wrong: tuple[tuple[str, str, str], ...]

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0 .. 1."""
        return self.right / self.n

    @property
    def standard_error(self) -> float:
        """Of the accuracy, as a binomial share."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.n)


@dataclass(frozen=True)
class EntropyGap:
    """A model's loss on fresh draws of a task against the entropy of the grammar.

    bits_per_token: the model's, over all tokens of the documents and their end.
    floor_bits_per_token: the documents' own information content over the same tokens.
    """

    task: str
    bits_per_token: float
    floor_bits_per_token: float
    tokens: int
    n: int

    @property
    def gap_bits_per_token(self) -> float:
        """How far the model is above the floor."""
        return self.bits_per_token - self.floor_bits_per_token


def exact_match(lm: LanguageModel, task: str, limit: int | None = None) -> TaskScore:
    """Greedy answers to the first ``limit`` held-out samples of ``task``, compared as text.

    task: tool_calls, recall or sums. An answer ends at the end of the text, and in recall and
    sums at the end of the line. Raises ValueError for another task or a limit below 1.
    """
    if task not in ANSWERED_TASKS:
        raise ValueError(f"task is {task!r}: choose one of {', '.join(ANSWERED_TASKS)}")
    samples = evaluation_set(task).samples
    if limit is not None:
        samples = samples[: check_count("limit", limit, 1)]
    wrong = []
    for sample in samples:
        got = _answer(lm, sample.prompt)
        if task != "tool_calls":
            got = got.split("\n", 1)[0]
        if got.strip() != sample.answer.strip():
            wrong.append((sample.prompt, sample.answer.strip(), got.strip()))
    return TaskScore(task, len(samples) - len(wrong), len(samples), tuple(wrong))


def entropy_gap(lm: LanguageModel, task: str = "stories", limit: int | None = None) -> EntropyGap:
    """Bits a token on fresh draws of ``task``, and the floor that no model can beat on average.

    The floor is that of the very documents scored (their summed -log2 probability), so that the
    luck of the draw is on both sides. Raises ValueError for an unknown task, and for a tokenizer
    without a token that ends a document.
    """
    end = lm.tokenizer.eos_token_id
    if end is None:
        raise ValueError(
            "the tokenizer has no eos token to put before and after a document: set its "
            "eos_token to what stood between documents in training"
        )
    samples = evaluation_set(task, split="training").samples
    if limit is not None:
        samples = samples[: check_count("limit", limit, 1)]
    nats, tokens = 0.0, 0
    for sample in samples:
        ids = [end, *_encoded(lm, sample.text), end]
        result = score(lm.model, ids)
        nats += result.nll_nats
        tokens += result.tokens
    return EntropyGap(
        task,
        bits_per_token=nats / math.log(2) / tokens,
        floor_bits_per_token=sum(sample.bits for sample in samples) / tokens,
        tokens=tokens,
        n=len(samples),
    )


def _encoded(lm: LanguageModel, text: str) -> list[int]:
    """The text's own ids: no token is put before it that the caller does not ask for."""
    return list(lm.tokenizer.encode(text, add_special_tokens=False))


def _answer(lm: LanguageModel, prompt: str) -> str:
    ids = _encoded(lm, prompt)
    tokens = generate_tokens(
        lm.model,
        ids,
        max_new_tokens=LONGEST_ANSWER_TOKENS,
        stop_ids=lm.model.config.eos_token_ids,
    )
    # Some tokenizers put a space before a text that stands alone; the line break comes last.
    spelled = _encoded(lm, "\n")
    newline = None if prompt.endswith("\n") or not spelled else spelled[-1]
    answer: list[int] = []
    for token in tokens:
        if token == newline:
            break
        answer.append(token)
    return str(lm.tokenizer.decode(answer, clean_up_tokenization_spaces=False))
