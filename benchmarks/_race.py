"""Timing of engines in pairs, and what their rates are of the ceiling that bandwidth sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks._engines import Engine
from benchmarks._llama_cpp import LlamaCpp
from slmlab.measure import Interleaved, Roofline, interleaved, predict_decode
from slmlab.models import ModelConfig

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Plan:
    """How much of one model is run. Decode: new_tokens after prompt_tokens; prefill: one new token
    after prefill_tokens. repeats: timed pairs of each; 0 leaves prefill out. identity_tokens:
    compared a prompt."""

    model: str
    weights: str
    new_tokens: int
    decode_repeats: int
    prefill_repeats: int
    prompt_tokens: int = 16
    prefill_tokens: int = 256
    identity_tokens: int = 48

    @property
    def most_tokens(self) -> int:
        """The longest sequence of any run."""
        longest_answer = max(self.new_tokens, self.identity_tokens)
        return max(self.prompt_tokens + longest_answer, self.prefill_tokens + 1)


@dataclass(frozen=True)
class Entry:
    """An engine and its precision: one of DTYPES, or any name whose scheme `Race.rates` gets."""

    precision: str
    engine: Engine


@dataclass
class Laps:
    """Fastest seconds of one entry over all of its pairs: disturbances only slow a run down.

    The ones named cpu are the process's own, which other programs on the core hardly touch.
    """

    decode: float = float("inf")
    first_token: float = float("inf")
    prefill: float = float("inf")
    decode_cpu: float = float("inf")
    first_token_cpu: float = float("inf")
    prefill_cpu: float = float("inf")
    own_tokens_per_second: float | None = None


@dataclass
class Race:
    """One model's race: runs pairs, and keeps the laps of every (precision, engine)."""

    plan: Plan
    config: ModelConfig
    laps: dict[tuple[str, str], Laps] = field(default_factory=dict)

    def prompt(self, tokens: int, start: int = 0) -> list[int]:
        """Evenly spread ids, none of them special; speed does not depend on which."""
        first = 8
        return [
            first + (start + 7919 * i) % (self.config.vocab_size - first) for i in range(tokens)
        ]

    def compete(self, ours: Entry, rivals: dict[str, Entry | None]) -> dict[str, Any]:
        """{"decode": {name: ratio}, "prefill": {name: ratio}}; null for a rival that is not here.

        A ratio is how many times as fast ``ours`` is, the whole call timed as a user makes it.
        """
        plan = self.plan
        short, long = self.prompt(plan.prompt_tokens), self.prompt(plan.prefill_tokens)
        decode: dict[str, Any] = dict.fromkeys(rivals)
        prefill: dict[str, Any] = dict.fromkeys(rivals)
        for name, rival in rivals.items():
            if rival is None:
                continue
            pair = (rival, ours)
            decode[name] = _ratio(
                self._timed("decode", pair, short, plan.new_tokens, plan.decode_repeats)
            )
            self._timed("first_token", pair, short, 1, plan.decode_repeats)
            if plan.prefill_repeats:
                prefill[name] = _ratio(self._timed("prefill", pair, long, 1, plan.prefill_repeats))
        return {"decode": decode, "prefill": prefill}

    def _timed(
        self, what: str, pair: tuple[Entry, Entry], prompt: list[int], tokens: int, repeats: int
    ) -> Interleaved:
        def run(entry: Entry) -> Callable[[], object]:
            return lambda: entry.engine.complete(prompt, tokens)

        timed = interleaved(run(pair[0]), run(pair[1]), repeats=repeats, warmup=1)
        for entry, times in zip(pair, (timed.a, timed.b), strict=True):
            laps = self.laps.setdefault((entry.precision, entry.engine.name), Laps())
            setattr(laps, what, min(getattr(laps, what), times.min_seconds))
            cpu = f"{what}_cpu"
            setattr(laps, cpu, min(getattr(laps, cpu), *times.process))
            if isinstance(entry.engine, LlamaCpp):
                laps.own_tokens_per_second = entry.engine.fastest_own_tokens_per_second
        return timed

    def rates(
        self,
        precision: str,
        roof: Roofline,
        scheme: str | None = None,
        head_scheme: str | None = None,
    ) -> dict[str, Any]:
        """Of every engine in a precision: rates, and decode's share of what bandwidth allows.

        scheme, head_scheme: how the weights are stored, where it is not one of DTYPES. The share may exceed 1 where the weights fit into the processor's cache. Decode is null
        where a disturbed run took longer for one token than for all of them.
        """
        plan = self.plan
        middle = plan.prompt_tokens + plan.new_tokens // 2
        if scheme is None:
            scheme = str(DTYPES[precision]).removeprefix("torch.")
        ceiling = predict_decode(self.config, scheme, roof, context=middle, head_scheme=head_scheme)
        engines: dict[str, Any] = {}
        for (of, name), laps in self.laps.items():
            if of != precision:
                continue
            # The first token comes out of the prompt's pass; what is left is decode alone.
            seconds = (laps.decode - laps.first_token) / (plan.new_tokens - 1)
            share = ceiling.bandwidth_utilisation(1 / seconds) if seconds > 0 else None
            engines[name] = {
                "decode_tokens_per_second": None if share is None else round(1 / seconds, 1),
                "fraction_of_bandwidth_ceiling": None if share is None else round(share, 3),
            }
            cpu_seconds = (laps.decode_cpu - laps.first_token_cpu) / (plan.new_tokens - 1)
            engines[name]["cpu_ms_per_token"] = (
                round(1e3 * cpu_seconds, 2) if 0 < cpu_seconds < float("inf") else None
            )
            if plan.prefill_repeats:
                rate = round(plan.prefill_tokens / laps.prefill, 1)
                engines[name]["prefill_tokens_per_second"] = rate
            if laps.own_tokens_per_second is not None:
                engines[name]["own_tokens_per_second"] = round(laps.own_tokens_per_second, 1)
        return {"bytes_per_token": ceiling.weight_bytes + ceiling.kv_bytes, "engines": engines}


def _ratio(timed: Interleaved) -> dict[str, Any]:
    return {
        "ratio": round(timed.ratio, 2),
        "low": round(timed.ratio_low, 2),
        "high": round(timed.ratio_high, 2),
        "n": timed.n,
    }
