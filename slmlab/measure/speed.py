"""Tokens a second of a model: prefill and decode apart, warmed up, one thread by default."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from slmlab.kv import ContiguousCache
from slmlab.measure.forward import (
    Ids,
    as_ids,
    device_of,
    evaluating,
    unwrap,
    vocabulary_size,
)
from slmlab.measure.timing import (
    Times,
    as_times,
    check_count,
    check_threads,
    synchronize,
    threads,
    time_once,
)


class Stepper(Protocol):
    """A model with its cache: ``restart()`` empties it, ``feed(ids)`` reads on.

    feed takes (1, t) ids and returns the logits (1, V) after the last of them.
    """

    def restart(self) -> None: ...

    def feed(self, ids: Tensor) -> Tensor: ...


class DecoderStepper:
    """A slmlab Decoder over one preallocated ContiguousCache, as `generate` runs it."""

    def __init__(self, model: Any, max_length: int) -> None:
        self._model = model
        self._cache = ContiguousCache(
            model.config, max_length=max_length, dtype=model.dtype, device=model.device
        )

    def restart(self) -> None:
        self._cache.truncate(0)

    def feed(self, ids: Tensor) -> Tensor:
        return self._model.lm_head(self._model.hidden(ids, self._cache)[:, -1])


class TransformersStepper:
    """A transformers model with the cache it makes itself, head at the last position only."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._options: dict[str, Any] = {"use_cache": True}
        if "logits_to_keep" in inspect.signature(model.forward).parameters:
            self._options["logits_to_keep"] = 1
        self._past: Any = None

    def restart(self) -> None:
        self._past = None

    def feed(self, ids: Tensor) -> Tensor:
        output = self._model(ids, past_key_values=self._past, **self._options)
        self._past = output.past_key_values
        return output.logits[:, -1]


def stepper(model: Any, max_length: int) -> Stepper:
    """The right Stepper for a model; raises TypeError for one that has no cache we know."""
    if isinstance(model, nn.Module):
        if callable(getattr(model, "hidden", None)) and hasattr(model, "lm_head"):
            return DecoderStepper(model, max_length)
        if "past_key_values" in inspect.signature(model.forward).parameters:
            return TransformersStepper(model)
    raise TypeError(
        f"model of type {type(model).__name__} cannot decode with a cache here: pass a "
        "LanguageModel, a slmlab Decoder or a transformers causal LM"
    )


@dataclass(frozen=True)
class Speed:
    """Measured rates. Prefill: one pass over the prompt, head at its last position. Decode:
    passes of one token each, greedy choice included.

    prompt_tokens, new_tokens: tokens of one prefill, of one timed decode. prefill, decode:
    `Times` of the repeats, wall and processor seconds. num_threads: torch's intra-op threads.
    """

    prompt_tokens: int
    new_tokens: int
    prefill: Times
    decode: Times
    num_threads: int

    @property
    def n(self) -> int:
        """Timed repeats."""
        return self.decode.n

    @property
    def prefill_tokens_per_second(self) -> float:
        """Prompt tokens a second, median repeat."""
        return self.prompt_tokens / self.prefill.median_seconds

    @property
    def decode_tokens_per_second(self) -> float:
        """New tokens a second, median repeat."""
        return self.new_tokens / self.decode.median_seconds

    @property
    def best_prefill_tokens_per_second(self) -> float:
        """Prompt tokens a second, fastest repeat."""
        return self.prompt_tokens / self.prefill.min_seconds

    @property
    def best_decode_tokens_per_second(self) -> float:
        """New tokens a second, fastest repeat."""
        return self.new_tokens / self.decode.min_seconds

    def __str__(self) -> str:
        return (
            f"prefill {self.prefill_tokens_per_second:.1f} tokens/s "
            f"({self.prompt_tokens} tokens), decode {self.decode_tokens_per_second:.1f} tokens/s "
            f"({self.new_tokens} tokens), median of {self.n}, {self.num_threads} thread(s)"
        )


def tokens_per_second(
    model_or_lm: Any,
    *,
    prompt_tokens: int = 128,
    new_tokens: int = 32,
    repeats: int = 5,
    warmup: int = 1,
    num_threads: int | None = 1,
    prompt_ids: Ids | None = None,
) -> Speed:
    """Measure prefill and greedy decode with a KV cache, batch 1.

    model_or_lm: LanguageModel, Decoder, or transformers causal LM. prompt_tokens: length of a
    prompt of evenly spread ids (speed does not depend on which); prompt_ids: a prompt of your
    own, prompt_tokens is then its length. new_tokens: single-token passes timed together.
    repeats: timed rounds of one prefill and one decode. warmup: rounds before, untimed.
    num_threads: torch threads while it runs, None leaves them. Stop tokens do not stop it.
    Raises ValueError for a count below 1 (warmup: 0), more threads than the machine
    has cores, more tokens than the model has positions, ids outside the vocabulary; TypeError for wrong types.
    """
    model = unwrap(model_or_lm)
    check_count("new_tokens", new_tokens, 1)
    check_count("prompt_tokens", prompt_tokens, 1)
    check_count("repeats", repeats, 1)
    check_count("warmup", warmup, 0)
    if num_threads is not None:
        check_threads("num_threads", num_threads)
    vocabulary = vocabulary_size(model)
    if prompt_ids is None:
        prompt_ids = (torch.arange(prompt_tokens) * 7919) % (vocabulary or prompt_tokens)
    prompt = as_ids(prompt_ids, vocab_size=vocabulary).to(device_of(model))[None]  # (1, T)
    total = prompt.shape[1] + new_tokens
    room = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if room is not None and total > room:
        raise ValueError(
            f"prompt_tokens ({prompt.shape[1]}) + new_tokens ({new_tokens}) exceed the model's "
            f"{room} positions: ask for {total - room} fewer"
        )
    runner = stepper(model, total)
    rounds_prefill: list[tuple[float, float]] = []
    rounds_decode: list[tuple[float, float]] = []
    with threads(num_threads) as active, evaluating(model):
        for turn in range(warmup + repeats):
            prefill, decode = _round(runner, prompt, new_tokens)
            if turn >= warmup:
                rounds_prefill.append(prefill)
                rounds_decode.append(decode)
    return Speed(
        prompt_tokens=prompt.shape[1],
        new_tokens=new_tokens,
        prefill=as_times(rounds_prefill),
        decode=as_times(rounds_decode),
        num_threads=active,
    )


def _round(
    runner: Stepper, prompt: Tensor, new_tokens: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    token = prompt[:, -1:]

    def timed(work: Callable[[], None]) -> tuple[float, float]:
        def finished() -> None:
            work()
            synchronize(prompt.device)

        return time_once(finished)

    def prefill() -> None:
        nonlocal token
        token = runner.feed(prompt).argmax(dim=-1, keepdim=True)

    def decode() -> None:
        nonlocal token
        for _ in range(new_tokens):
            token = runner.feed(token).argmax(dim=-1, keepdim=True)

    runner.restart()
    synchronize(prompt.device)
    return timed(prefill), timed(decode)
