"""The runs of lesson 06: real texts of three kinds, written plainly and with a draft.

Seconds are the process's own processor time, prompts not counted: other programs disturb it less.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

import slmlab
from slmlab.data import evaluation_set
from slmlab.generation import LanguageModel, generate_tokens
from slmlab.measure import interleaved
from slmlab.speculative import (
    ModelDraft,
    Proposal,
    Round,
    acceptance_interval,
    expected_speedup,
    layer_skip_draft,
    speculative_generate,
)

DOMAINS = {"documentation": "stdlib-docs", "code": "stdlib-code", "tool calls": "tool_calls"}
PROMPT_TOKENS = 48
# Windows counts processor time in steps of 16 ms, longer than a step of a small model.
_COARSE = time.get_clock_info("process_time").resolution > 1e-4
_clock = time.perf_counter if _COARSE else time.process_time
_FEWEST = 4  # a text shorter than this measures nothing


def draft_for(lm: LanguageModel) -> tuple[str, Any]:
    """A name and a smaller model that speaks of the same tokens.

    "tiny-draft" where it shares the tokenizer and is smaller, else the first third of the model's
    own layers, else the model itself (which guesses right and gains nothing).
    """
    layers = len(lm.model.layers)
    small = slmlab.load("tiny-draft")
    if small.tokenizer.get_vocab() == lm.tokenizer.get_vocab() and layers > len(small.model.layers):
        return "tiny-draft", small.model
    if layers == 1:
        return "the model itself", lm.model
    taken = max(1, layers // 3)
    return f"its first {taken} of {layers} layers", layer_skip_draft(lm.model, taken).model


def prompts(lm: LanguageModel, domain: str, count: int, new_tokens: int = 40) -> list[list[int]]:
    """``count`` prompts of held-out text, each with room for ``new_tokens``.

    Documentation and code are what came with this Python, cut at even distances; a tool call has
    its own prompt. Raises ValueError for another domain.
    """
    if domain not in DOMAINS:
        raise ValueError(f"domain {domain!r} is unknown: choose one of {', '.join(DOMAINS)}")
    data = evaluation_set(DOMAINS[domain])
    if data.samples:
        return [lm.encode(sample.prompt) for sample in data.samples[:count]]
    room = lm.model.config.max_position_embeddings - new_tokens
    length = min(PROMPT_TOKENS, max(1, room))
    ids = [token for text in data.texts for token in lm.encode(text[:4000])]
    stride = max(1, (len(ids) - length) // count)
    return [ids[start : start + length] for start in range(0, stride * count, stride)]


@dataclass(frozen=True)
class Text:
    """What the target writes greedily: token ids, the end token with them where it came."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    stops: tuple[int, ...]


def write(lm: LanguageModel, draft: Any, prompt: Sequence[int], new_tokens: int = 40) -> Text:
    """The target's greedy text, written with the draft's help. An answer too short to measure is
    written again without an end."""
    ids = torch.tensor([list(prompt)])
    for stops in (tuple(lm.model.config.eos_token_ids), ()):
        tokens = speculative_generate(lm.model, draft, ids, new_tokens, stop_ids=stops).tokens
        if stops and len(tokens) < new_tokens:
            tokens = [*tokens, stops[0]]
        if len(tokens) >= _FEWEST:
            break
    return Text(tuple(prompt), tuple(tokens), stops)


@torch.inference_mode()
def agreement(model: Any, text: Text) -> list[bool]:
    """For each token of the text: whether ``model`` names it as the most likely next one."""
    ids = torch.tensor([[*text.prompt, *text.tokens[:-1]]])
    guesses = model(ids)[0, len(text.prompt) - 1 :].argmax(-1).tolist()
    return [guess == token for guess, token in zip(guesses, text.tokens, strict=True)]


@dataclass(frozen=True)
class Race:
    """Some texts at one draft length, against plain decoding of the same tokens.

    speedup: tokens a second over plain decoding's, the median of ``turns`` (the lower of two), which holds it for each repeat; seconds, draft_seconds (of the whole, in the draft) and plain_step_seconds are those of
    the same repeat. replays: the rounds of each text.
    """

    length: int
    speedup: float
    seconds: float
    draft_seconds: float
    plain_step_seconds: float
    tokens: int
    replays: tuple[tuple[Round, ...], ...]
    turns: tuple[float, ...]

    @property
    def rounds(self) -> int:
        return sum(map(len, self.replays))

    @property
    def tokens_per_round(self) -> float:
        return self.tokens / self.rounds

    @property
    def round_steps(self) -> float:
        """Time of a round in plain steps of the target."""
        return self.seconds / self.rounds / self.plain_step_seconds


class _Clocked:
    """A draft that notes the processor time: the first proposal is where decoding begins."""

    def __init__(self, draft: Any) -> None:
        self.inner = draft if hasattr(draft, "propose") else ModelDraft(draft)
        if hasattr(self.inner, "vocabulary"):
            self.vocabulary, self.model = self.inner.vocabulary, self.inner.model

    def start(self, *arguments: Any) -> None:
        self.inner.start(*arguments)
        self.began, self.seconds = -1.0, 0.0

    def propose(self, tokens: Sequence[int], count: int) -> Proposal:
        begin = _clock()
        if self.began < 0:
            self.began = begin
        proposal = self.inner.propose(tokens, count)
        self.seconds += _clock() - begin
        return proposal


def _plain(lm: LanguageModel, text: Text) -> float:
    """Processor seconds of one step after the first token."""
    steps = generate_tokens(
        lm.model, list(text.prompt), max_new_tokens=len(text.tokens), stop_ids=text.stops
    )
    next(steps)
    began = _clock()
    for _ in steps:
        pass
    return (_clock() - began) / (len(text.tokens) - 1)


def race(
    lm: LanguageModel, draft: Any, texts: Sequence[Text], lengths: Sequence[int], repeats: int = 1
) -> dict[int, Race]:
    """Draft length -> what it gave. In each repeat every text is written once with each length, and
    plainly before or after, in turns; all must agree in every token.

    Raises ValueError for repeats < 1, RuntimeError where a text differs.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats} must be at least 1")
    turns = [_turn(lm, _Clocked(draft), texts, lengths, turn) for turn in range(repeats)]
    found = {}
    for length in lengths:
        ordered = sorted((turn[length] for turn in turns), key=lambda run: run.speedup)
        middle = ordered[(repeats - 1) // 2]
        found[length] = replace(middle, turns=tuple(turn[length].speedup for turn in turns))
    return found


def _turn(
    lm: LanguageModel, clocked: _Clocked, texts: Sequence[Text], lengths: Sequence[int], turn: int
) -> dict[int, Race]:
    """One repeat; every other one tries the lengths from the longest."""
    plain: list[float] = []
    found: dict[int, list[tuple[float, float, tuple[Round, ...]]]] = {n: [] for n in lengths}
    for place, text in enumerate(texts, start=turn):
        if place % 2 == 0:
            plain.append(_plain(lm, text))
        for length in lengths if turn % 2 == 0 else reversed(lengths):
            result = speculative_generate(
                lm.model,
                clocked,
                torch.tensor([text.prompt]),
                len(text.tokens),
                length,
                stop_ids=text.stops,
            )
            seconds = _clock() - clocked.began
            if tuple(result.tokens) != text.tokens[: len(result.tokens)]:
                raise RuntimeError(f"draft length {length} wrote another text: please report it")
            found[length].append((seconds, clocked.seconds, tuple(result.stats.rounds)))
        if place % 2 == 1:
            plain.append(_plain(lm, text))
    step = sum(plain) / len(plain)
    tokens = sum(len(text.tokens) for text in texts)
    races = {}
    for length, rows in found.items():
        seconds, drafting = sum(row[0] for row in rows), sum(row[1] for row in rows)
        replays, speedup = tuple(row[2] for row in rows), step * tokens / seconds
        races[length] = Race(length, speedup, seconds, drafting, step, tokens, replays, (speedup,))
    return races


def undecided(races: Mapping[int, Race], close: float = 0.97) -> list[int]:
    """The draft lengths that cannot be told from the fastest: at least ``close`` times its speed-up
    in the median or in some repeat, where both had the same machine. The fastest is among them."""
    best = max(races.values(), key=lambda run: run.speedup)
    return [
        length
        for length, run in races.items()
        if run.speedup >= close * best.speedup
        or any(mine >= close * its for mine, its in zip(run.turns, best.turns, strict=True))
    ]


def relative_time(a: Callable[[], Any], b: Callable[[], Any], repeats: int = 12) -> float:
    """The time of ``a`` over that of ``b``, run in turns: sums, not minima.

    The fastest of many runs finds its weights in the processor's cache, which a round that runs two
    models does not.
    """
    timed = interleaved(a, b, repeats=repeats)
    if _COARSE:
        return sum(timed.a.wall) / sum(timed.b.wall)
    return sum(timed.a.process) / sum(timed.b.process)


@dataclass(frozen=True)
class Costs:
    """Of a pair of models, in plain steps of the target.

    c: one step of the draft. verify: draft length -> a pass over it and one token more.
    overhead: what else a round takes.
    """

    c: float
    verify: Mapping[int, float]
    overhead: float = 0.0

    def speedup(self, alpha: float, length: int) -> float:
        """The formula's, with these costs; 1 for length 0."""
        if length == 0:
            return 1.0
        return expected_speedup(alpha, length, self.c, self.verify[length], self.overhead)


@dataclass(frozen=True)
class Bench:
    """All that the widget shows: by domain, its races, its texts and the draft's guesses for them.

    guesses: domain -> (agreed, of how many), over all texts of that domain. decode: ids -> text.
    """

    races: Mapping[str, Mapping[int, Race]]
    texts: Mapping[str, Sequence[Text]]
    guesses: Mapping[str, tuple[int, int]]
    costs: Costs
    decode: Callable[[list[int]], str]

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(self.races)

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(next(iter(self.races.values())))

    def alpha(self, domain: str) -> float:
        accepted, checked = self.guesses[domain]
        return accepted / checked

    def interval(self, domain: str) -> tuple[float, float]:
        """Wilson's, 95%."""
        return acceptance_interval(*self.guesses[domain])
