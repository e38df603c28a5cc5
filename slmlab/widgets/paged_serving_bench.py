"""The runs of lesson 05: one seeded trace through a real engine, and through static batches.

Seconds are the process's own processor time: other programs on the machine do not count.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from slmlab.data import evaluation_set
from slmlab.generation import LanguageModel
from slmlab.kv import ContiguousCache
from slmlab.serving import Engine
from slmlab.serving.snapshot import RequestSnapshot, Snapshot, counted_step, snapshot


@dataclass(frozen=True)
class Ask:
    """One request of a trace: token ids, and how many more are wanted."""

    prompt: tuple[int, ...]
    max_new_tokens: int


def trace(lm: LanguageModel, requests: int = 40, seed: int = 0, longest: int = 512) -> list[Ask]:
    """Requests of very different lengths, as people send them: a few are long, most are short.

    Lengths are lognormal, prompts are pieces of held-out prose. No request stores more than
    ``longest`` tokens.
    """
    draw = random.Random(seed)
    text = lm.tokenizer.encode(evaluation_set("prose").texts[0])

    def length(middle: int, most: int) -> int:
        return min(max(round(draw.lognormvariate(math.log(middle), 0.9)), 4), most)

    asks = []
    for _ in range(requests):
        prompt, new = length(24, longest // 3), length(12, longest // 5)
        start = draw.randrange(len(text) - prompt)
        asks.append(Ask(tuple(text[start : start + prompt]), new))
    return asks


@dataclass
class Recording:
    """What a run did. frames: the state after each forward pass. used: blocks in use during each
    pass, before those that ended gave theirs back. tokens: new ids of each request, in the order
    asked. seconds: processor time from the start to the end of each pass. first_pass: in which pass
    each request got its first token, from 0."""

    name: str
    frames: list[Snapshot] = field(default_factory=list)
    used: list[int] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    first_pass: list[int] = field(default_factory=list)
    computed_tokens: int = 0

    @property
    def passes(self) -> int:
        return len(self.frames)

    @property
    def tokens_per_second(self) -> float:
        """New tokens a second of processor time, all requests together."""
        return sum(map(len, self.tokens)) / self.seconds[-1]

    def ttft(self, share: float = 0.5) -> float:
        """Seconds until the first token, all asked at time 0: the quantile ``share`` of it."""
        times = sorted(self.seconds[at] for at in self.first_pass)
        return times[min(int(share * len(times)), len(times) - 1)]

    @property
    def held(self) -> float:
        """Of all KV memory, over all passes: the share that held a token."""
        size = self.frames[0].block_size * len(self.frames[0].references)
        return sum(sum(frame.filled()) for frame in self.frames) / (size * len(self.frames))

    @property
    def waste(self) -> float:
        """Of the places reserved for requests, over all passes: the share that held no token."""
        places = sum(frame.num_used * frame.block_size for frame in self.frames)
        return 1 - sum(sum(frame.filled()) for frame in self.frames) / places


def record(engine: Engine, asks: Sequence[Ask], name: str = "", *, every: int = 0) -> Recording:
    """Submit the requests and step the engine to the end, with a frame after each pass.

    every: passes from one request's arrival to the next one's; 0 for all at once. A request that
    finishes in a pass has given its blocks back in the frame after it.
    """
    place: dict[int, int] = {}
    run = Recording(name, first_pass=[-1] * len(asks))
    started, computed = time.process_time(), engine.stats["computed_tokens"]
    while len(place) < len(asks) or not engine.idle:
        while len(place) < len(asks) and len(place) * every <= len(run.frames):
            ask = asks[len(place)]
            place[engine.submit(ask.prompt, max_new_tokens=ask.max_new_tokens)] = len(place)
        outputs, used = counted_step(engine)
        for output in outputs:
            at = place[output.request_id]
            if run.first_pass[at] < 0:
                run.first_pass[at] = len(run.frames)
        run.seconds.append(time.process_time() - started)
        reading = time.process_time()
        run.frames.append(snapshot(engine))
        run.used.append(used)
        started += time.process_time() - reading  # Looking at the engine is not its work.
    run.tokens = [engine.result(request_id).tokens for request_id in place]
    run.computed_tokens = engine.stats["computed_tokens"] - computed
    return run


def static_batches(asks: Sequence[Ask], slots: int) -> list[list[Ask]]:
    """The requests in order, in batches of as many rows as ``slots`` tokens of KV memory hold.

    A batch is as wide as its longest prompt plus its longest answer. A request that alone needs
    more than ``slots`` is a batch of its own.
    """
    batches: list[list[Ask]] = []
    for ask in asks:
        if batches and _size([*batches[-1], ask]) <= slots:
            batches[-1].append(ask)
        else:
            batches.append([ask])
    return batches


@torch.inference_mode()
def record_static(lm: LanguageModel, asks: Sequence[Ask], slots: int, name: str = "") -> Recording:
    """Serve the same requests in static batches on the same weights.

    Batches are those of ``static_batches``. Prompts are padded on the left; a batch ends when its
    last request does, and only then the next one starts.

    In a frame every place of the memory is a block of its own: row after row, then what no row uses.
    """
    run = Recording(name)
    started, at = time.process_time(), 0
    ends = set(lm.model.config.eos_token_ids)
    for rows in static_batches(asks, slots):
        started = _serve_batch(lm, rows, at, slots, ends, run, started)
        at += len(rows)
    return run


def _width(rows: Sequence[Ask]) -> int:
    return max(len(r.prompt) for r in rows) + max(r.max_new_tokens for r in rows) - 1


def _size(rows: Sequence[Ask]) -> int:
    return len(rows) * _width(rows)


def _serve_batch(
    lm: LanguageModel,
    rows: Sequence[Ask],
    first: int,
    slots: int,
    ends: set[int],
    run: Recording,
    started: float,
) -> float:
    """One batch to its end; the moment that ``run.seconds`` counts from, moved by what looking cost."""
    width, longest = _width(rows), max(len(r.prompt) for r in rows)
    cache = ContiguousCache(
        lm.model.config,
        batch=len(rows),
        max_length=width,
        dtype=lm.model.dtype,
        device=lm.model.device,
    )
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, longest - len(row.prompt) :] = torch.tensor(row.prompt)
        mask[i, longest - len(row.prompt) :] = True
    new: list[list[int]] = [[] for _ in rows]
    over = [False] * len(rows)
    while not all(over):
        hidden = lm.model.hidden(ids, cache, attention_mask=mask[:, : cache.length + ids.shape[1]])
        run.computed_tokens += ids.numel()
        ids = lm.model.lm_head(hidden[:, -1:]).argmax(-1)  # (rows, 1)
        for i, (token, row) in enumerate(zip(ids[:, 0].tolist(), rows, strict=True)):
            over[i] = over[i] or token in ends
            if not over[i]:
                new[i].append(token)
                over[i] = len(new[i]) >= row.max_new_tokens
        if cache.length == longest:
            run.first_pass += [len(run.frames)] * len(rows)
        run.seconds.append(time.process_time() - started)
        reading = time.process_time()
        run.frames.append(_frame(rows, new, over, first, width, slots, len(run.frames)))
        run.used.append(run.frames[-1].num_used)
        started += time.process_time() - reading
    run.tokens += new
    return started


def _frame(
    rows: Sequence[Ask],
    new: Sequence[list[int]],
    over: Sequence[bool],
    first: int,
    width: int,
    slots: int,
    steps: int,
) -> Snapshot:
    """The batch as a snapshot with one token a block: row after row, then what no row uses."""
    requests = tuple(
        RequestSnapshot(
            id=first + i,
            running=not over[i],
            prompt_tokens=len(row.prompt),
            tokens=len(row.prompt) + len(new[i]),
            stored=len(row.prompt) + max(len(new[i]) - 1, 0),
            blocks=tuple(range(i * width, (i + 1) * width)),
            cached_prompt_tokens=0,
            preemptions=0,
        )
        for i, row in enumerate(rows)
    )
    used = len(rows) * width
    references = (1,) * used + (0,) * (slots - used)
    return Snapshot(steps, 0, 0, 1, references, frozenset(), requests)


def sharing_trace(lm: LanguageModel, requests: int = 9, head: int = 40) -> list[Ask]:
    """A short trace for looking at blocks: every second request begins with the same ``head`` tokens."""
    text = lm.tokenizer.encode(evaluation_set("prose").texts[0])
    draw = random.Random(3)
    asks = []
    for i in range(requests):
        own = draw.randrange(head, len(text) - 64)
        prompt = text[own : own + draw.randrange(6, 30)]
        if i % 2 == 0:
            prompt = text[:head] + prompt[:8]
        asks.append(Ask(tuple(prompt), draw.randrange(12, 44)))
    return asks
