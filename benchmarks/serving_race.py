"""Many requests at once on one thread: the Engine, one after another, transformers, llama.cpp.

Two models in float32: tiny, and random weights of SmolLM2-135M's shape. One seeded trace a model,
prompts and answers of mixed lengths, all there at the start; a number "at once" says how many may
run together. All ways are timed in turns in this run; a ratio says how many times as fast the
Engine is as another way with as many at once, by the clock and by processor time (the one to trust
where others use the core). Greedy answers are compared with the plain loop's. Then the waste of
key-value memory, and what a shared prompt saves. Prints tables; the last line is JSON.

    python benchmarks/serving_race.py            both models, about eight minutes
    python benchmarks/serving_race.py --short    tiny and a few tokens: does it run?
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers.utils import logging

from benchmarks._gguf import write_gguf
from benchmarks._llama_cpp import missing
from benchmarks._serving_engines import BLOCK_SIZE, TOKEN_BUDGET, Ours, Sequential, Way, endless
from benchmarks._serving_memory import (
    measured_waste,
    padded_waste,
    reserved_waste,
    shape_only,
    shared_prompt,
)
from benchmarks._serving_rivals import (
    SLOTS,
    GenerateBatch,
    LlamaServer,
    StaticBatch,
    load_transformers,
)
from benchmarks._serving_rounds import Agreement, Laps, agreement, percentiles, race, rates, ratio
from benchmarks._serving_tables import AT_ONCE, aims_of, show
from benchmarks._serving_trace import ALPACA, SHAREGPT, Asked, mixed, paper_like, poisson
from benchmarks._smollm2 import write_random_model
from slmlab import load
from slmlab.generation import LanguageModel
from slmlab.models import Decoder, model_directory


@dataclass(frozen=True)
class Plan:
    """How much of one model is run.

    at_once: of the Engine. rivals: at_once of all other ways. prompt, new: ranges of lengths; at
    full size answers are twice as long as prompts, as in the ShareGPT data.
    shared: (tokens of a shared prompt, tokens of its own a request, requests), each measured.
    paper_requests: of the paper-like traces, which only one plan needs; 0 leaves them out.
    """

    model: str
    weights: str
    requests: int
    prompt: tuple[int, int]
    new: tuple[int, int]
    rounds: int
    at_once: tuple[int, ...] = (1, 4, 8, 16)
    rivals: tuple[int, ...] = (8,)
    shared: tuple[tuple[int, int, int], ...] = ()
    paper_requests: int = 0
    arrivals: bool = False


FULL = (
    Plan(
        "tiny",
        "trained",
        requests=24,
        prompt=(4, 20),
        new=(8, 40),
        rounds=3,
        rivals=(1, 4, 8, 16),
        shared=((448, 16, 5),),
        paper_requests=64,
        arrivals=True,
    ),
    Plan(
        "smollm2_135m",
        "random",
        requests=16,
        prompt=(4, 12),
        new=(8, 24),
        rounds=3,
        shared=((512, 16, 4), (512, 0, 3)),
    ),
)
SHORT = (
    Plan(
        "tiny",
        "trained",
        requests=4,
        prompt=(4, 9),
        new=(2, 5),
        rounds=1,
        at_once=(1, 2),
        rivals=(2,),
        shared=((32, 4, 2),),
        paper_requests=2,
        arrivals=True,
    ),
)


@contextmanager
def loaded(plan: Plan) -> Iterator[tuple[LanguageModel, Path]]:
    """The model, with no token that ends a text, and its folder."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_directory("tiny")
        lm = load("tiny")
        if plan.weights == "random":
            folder = Path(scratch)
            write_random_model(folder)
            # Ids go in and out. The tokenizer knows some of them; the Engine wants one.
            lm = LanguageModel(Decoder.from_pretrained(folder), lm.tokenizer)
        endless(lm.model)
        lm.model.pack()  # as the Engine does: the plain loop's prefill gains by it too
        yield lm, folder


def ways_of(plan: Plan, lm: LanguageModel, folder: Path, trace: Sequence[Asked]) -> list[Way]:
    """All entrants, llama.cpp where it is installed; those that are compared are neighbours.

    A machine's speed drifts. The plain loop stands beside the Engine that the aims
    speak of.
    """
    theirs = load_transformers(folder)
    server = None
    if missing() is None:
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "model.gguf"
            write_gguf(folder, file, torch.float32, tokenizer="tiny")
            server = LlamaServer.serve(file, llama_slots(trace))
    ways: list[Way] = []
    for at_once in plan.at_once:
        if at_once == _aimed_at(plan):
            ways.append(Sequential(lm.model))
        ways.append(Ours(lm, at_once))
        if at_once in plan.rivals:
            ways += [GenerateBatch(theirs, at_once), StaticBatch(theirs, at_once)]
            ways += [LlamaServer(server, at_once)] if server else []
    return ways


def _aimed_at(plan: Plan) -> int:
    """Requests at once that the aims speak of: 8, or what a smaller plan has."""
    return min(plan.rivals[-1], int(AT_ONCE))


def llama_slots(trace: Sequence[Asked]) -> int:
    """llama.cpp's context: its parallel sequences, each as long as the longest request, in 256s."""
    return SLOTS * 256 * -(-max(asked.tokens for asked in trace) // 256)


def measure_model(plan: Plan) -> dict[str, Any]:
    """One model's part of the JSON object. Raises ValueError where the Engine's answers differ
    from the plain loop's without a near tie."""
    with loaded(plan) as (lm, folder):
        trace = mixed(plan.requests, lm.model.config.vocab_size, plan.prompt, plan.new)
        laps = race(ways_of(plan, lm, folder, trace), trace, plan.rounds)
        tokens = sum(asked.new_tokens for asked in trace)
        result: dict[str, Any] = {
            "plan": dataclasses.asdict(plan),
            "parameters": lm.model.config.parameter_count(),
            "prompt_tokens": sum(len(asked.prompt) for asked in trace),
            "new_tokens": tokens,
            "ways": {},
            "engine_over": _ratios(plan, laps),
            "agreement": _agreements(lm.model, trace, laps),
        }
        for (name, at_once), each in sorted(laps.items()):
            result["ways"].setdefault(name, {})[str(at_once)] = rates(each, tokens)
        result["waste"] = _waste_of_race(lm, trace, laps)
        if plan.arrivals:
            result["arrivals"] = _arrivals(lm, trace, at_once=_aimed_at(plan))
        result["shared_prompt"] = [shared_prompt(lm, *sizes) for sizes in plan.shared]
        if plan.paper_requests:
            result["paper_like"] = _paper_like(lm, plan.paper_requests)
    return result


def _ratios(plan: Plan, laps: dict[tuple[str, int], Laps]) -> dict[str, Any]:
    """{rival: {at once: ratio}}; the plain loop has one speed, whatever the Engine's."""
    rivals: dict[str, Any] = {}
    for (name, at_once), theirs in laps.items():
        if name == "sequential":
            rivals[name] = {str(n): ratio(theirs, laps["engine", n]) for n in plan.at_once}
        elif name != "engine":
            rivals.setdefault(name, {})[str(at_once)] = ratio(theirs, laps["engine", at_once])
    return rivals


def _agreements(
    model: Decoder, trace: Sequence[Asked], laps: dict[tuple[str, int], Laps]
) -> dict[str, Any]:
    wanted = laps["sequential", 1].runs[0].tokens
    assert wanted is not None
    found: dict[str, Agreement] = {}
    for (name, _), each in laps.items():
        for run in each.runs:
            if run.tokens is not None and name != "sequential":
                one = agreement(model, trace, wanted, run.tokens)
                found[name] = found.get(name, Agreement()) + one
    if found["engine"].differing:
        raise ValueError(f"the Engine's answers are not the plain loop's: {found['engine']}")
    return {name: dataclasses.asdict(each) for name, each in found.items()}


def _waste_of_race(
    lm: LanguageModel, trace: Sequence[Asked], laps: dict[tuple[str, int], Laps]
) -> dict[str, Any]:
    positions = lm.model.config.max_position_embeddings
    at_once = max(n for name, n in laps if name == "engine")
    return {
        "at_once": at_once,
        "paged": round(laps["engine", at_once].runs[0].stats["waste"], 4),
        "left_padded": padded_waste(trace, at_once),
        "reserve_to_maximum": reserved_waste(trace, lambda asked: positions),
        "positions": positions,
    }


def _arrivals(lm: LanguageModel, trace: Sequence[Asked], at_once: int) -> dict[str, Any]:
    """The same requests arriving one by one, about as fast as the Engine answers them."""
    steps_between = sum(asked.new_tokens for asked in trace) / len(trace) / at_once
    run = Ours(lm, at_once).run(poisson(trace, steps_between))
    seconds = run.stats["queue_time"]
    return {
        "at_once": at_once,
        "mean_steps_between": round(steps_between, 2),
        "steps": run.stats["steps"],
        "ttft_ms": percentiles(run.ttft or ()),
        "queue_ms": {key: round(1e3 * seconds[key], 1) for key in ("p50", "p99")},
    }


def _paper_like(lm: LanguageModel, requests: int) -> dict[str, Any]:
    """Waste at the paper's 2,048 positions, and with every length a quarter, at 512.

    A block of 16 is then as coarse as one of 64 in the paper; one of 4 is the paper's 16.
    """
    paper = shape_only(lm, 2048)
    scaled = shape_only(lm, 512)
    rows: dict[str, Any] = {}
    for lengths in (SHAREGPT, ALPACA):
        whole = paper_like(lengths, requests, 64, 2048)
        quarter = paper_like(lengths, requests, 64, 512, divide=4)
        rows[lengths.name] = measured_waste(paper, whole, 16, BLOCK_SIZE)
        rows[f"{lengths.name} / 4"] = measured_waste(scaled, quarter, 16, BLOCK_SIZE)
        rows[f"{lengths.name} / 4, block 4"] = measured_waste(scaled, quarter, 16, BLOCK_SIZE // 4)
    return rows


def measure(plans: Sequence[Plan]) -> dict[str, Any]:
    """The JSON object. Raises ValueError where answers that should agree do not."""
    reason = missing()
    measured: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "block_size": BLOCK_SIZE,
        "token_budget": TOKEN_BUDGET,
        "transformers": version("transformers"),
        "llama_cpp": None if reason else f"xllamacpp {version('xllamacpp')}",
        "llama_cpp_left_out": reason,
        "models": {plan.model: measure_model(plan) for plan in plans},
    }
    # The aims are set for the full size; a short run shows only that the race runs.
    measured["aims"] = aims_of(measured) if plans == FULL else []
    return measured


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--short", action="store_true", help="tiny and a few tokens")
    short = parser.parse_args(arguments).short
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    measured = measure(SHORT if short else FULL)
    show(measured, Console(width=120))
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
