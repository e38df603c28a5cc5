"""The ways to continue a prompt that race each other, ours and transformers'.

All get ids and give as many new ones as they are asked for; no token ends a run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from benchmarks._engines import Transformers
from benchmarks._serving_trace import Asked
from slmlab.generation import generate_tokens
from slmlab.models import Decoder, model_directory
from slmlab.speculative import AdaptiveLength, SpeculativeStats, speculative_generate


@dataclass(frozen=True)
class Answer:
    """tokens: the new ids, None where an engine gives text. step_seconds: the clock's mean time of
    a token after the first, of plain decoding. stats: of speculation. text: in place of ids."""

    tokens: list[int] | None = None
    step_seconds: float | None = None
    stats: SpeculativeStats | None = None
    text: str | None = None


class Way(Protocol):
    """Continues one prompt; the whole call is timed, as its users make it."""

    name: str

    def run(self, asked: Asked, temperature: float, seed: int) -> Answer: ...


class Plain:
    """Our own loop, one token a pass."""

    name = "plain"

    def __init__(self, model: Decoder) -> None:
        self.model = model

    def run(self, asked: Asked, temperature: float, seed: int) -> Answer:
        tokens = []
        stamps = []
        for token in generate_tokens(
            self.model,
            list(asked.prompt),
            max_new_tokens=asked.new_tokens,
            temperature=temperature,
            generator=_generator(temperature, seed),
        ):
            tokens.append(token)
            stamps.append(time.perf_counter())
        step = (stamps[-1] - stamps[0]) / (len(stamps) - 1)
        return Answer(tokens, step_seconds=step)


class Speculative:
    """`speculative_generate` with one draft and one draft length.

    gamma: the length, None where it adapts: then `length` carries what it learnt from one answer
    to the next.
    """

    def __init__(
        self, name: str, target: Decoder, draft: Any, length: int | AdaptiveLength
    ) -> None:
        self.name, self.target, self.draft, self.length = name, target, draft, length

    @property
    def gamma(self) -> int | None:
        return None if isinstance(self.length, AdaptiveLength) else self.length

    def run(self, asked: Asked, temperature: float, seed: int) -> Answer:
        result = speculative_generate(
            self.target,
            self.draft,
            torch.tensor([asked.prompt]),
            max_new_tokens=asked.new_tokens,
            num_draft_tokens=self.length,
            temperature=temperature,
            generator=_generator(temperature, seed),
            stop_ids=(),
        )
        return Answer(result.tokens, stats=result.stats)


class Generate:
    """transformers' ``generate``; ``more`` selects its speculation."""

    def __init__(self, name: str, engine: Transformers, **more: Any) -> None:
        self.name, self.model, self.more = name, engine.model, more

    def run(self, asked: Asked, temperature: float, seed: int) -> Answer:
        ids = torch.tensor([asked.prompt])
        drawn: dict[str, Any] = {"do_sample": temperature > 0}
        if temperature > 0:
            torch.manual_seed(seed)
            drawn |= {"temperature": temperature, "top_k": 0}
        output = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=asked.new_tokens,
            **drawn,
            **self.more,
        )
        return Answer([int(token) for token in output[0, ids.shape[1] :]])


def assistant(name: str, tokens: int | None = None) -> Any:
    """A draft for ``generate(assistant_model=...)``: as it comes, or with a fixed length.

    tokens: proposed every round; otherwise transformers' own settings hold, up to 20 while the
    draft is confident.
    """
    model = Transformers(model_directory(name), torch.float32).model
    if tokens is not None:
        settings = model.generation_config
        settings.num_assistant_tokens = tokens
        settings.num_assistant_tokens_schedule = "constant"
        settings.assistant_confidence_threshold = 0.0
    return model


def load_transformers(folder: Path) -> Transformers:
    """The target in float32, without a token that ends or pads."""
    engine = Transformers(folder, torch.float32)
    engine.model.generation_config.pad_token_id = 0
    return engine


def _generator(temperature: float, seed: int) -> torch.Generator | None:
    return torch.Generator().manual_seed(seed) if temperature else None
