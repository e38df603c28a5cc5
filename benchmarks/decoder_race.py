"""Prefill and decode on one thread: slmlab, transformers' generate and llama.cpp, side by side.

Two models: tiny, and random weights of SmolLM2-135M's shape. Every pair is timed in alternation
in this run; a ratio says how many times as fast slmlab is. That the engines say the same is
checked before they are timed. Prints tables; the last line is JSON.

    python benchmarks/decoder_race.py            both models, about five minutes
    python benchmarks/decoder_race.py --short    tiny only and a few tokens: does it run?
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers.utils import logging

from benchmarks._engines import Engine, Slmlab, Transformers
from benchmarks._gguf import write_gguf
from benchmarks._identity import logit_difference, same_tokens
from benchmarks._llama_cpp import LlamaCpp, missing
from benchmarks._race import DTYPES, Entry, Plan, Race
from benchmarks._smollm2 import write_random_model
from slmlab.measure import Roofline
from slmlab.models import model_directory
from slmlab.models.loading import read_config

FULL = (
    Plan("tiny", "trained", new_tokens=128, decode_repeats=9, prefill_repeats=9),
    Plan(
        "smollm2_135m",
        "random",
        new_tokens=40,
        decode_repeats=5,
        prefill_repeats=3,
        identity_tokens=16,
    ),
)
SHORT = (
    Plan(
        "tiny",
        "trained",
        new_tokens=4,
        decode_repeats=1,
        prefill_repeats=1,
        prefill_tokens=32,
        identity_tokens=8,
    ),
)
# (model, precision, name of the decode ratio, wanted)
AIMS = (
    ("tiny", "fp32", "slmlab_over_transformers", 2.0),
    ("smollm2_135m", "fp32", "slmlab_over_transformers", 1.5),
    ("smollm2_135m", "fp16", "slmlab_over_transformers_bf16", 2.5),
)


class Entries:
    """Loads the engines of one model, all from the same files."""

    def __init__(self, plan: Plan, scratch: Path) -> None:
        self.plan = plan
        self.folder = model_directory("tiny") if plan.model == "tiny" else scratch / plan.model
        if plan.weights == "random":
            write_random_model(self.folder)
        self._scratch = scratch

    def slmlab(self, precision: str) -> Slmlab:
        return Slmlab(self.folder, DTYPES[precision])

    def transformers(self, precision: str) -> Transformers:
        return Transformers(self.folder, DTYPES[precision])

    def llama_cpp(self, precision: str) -> LlamaCpp | None:
        """None where llama.cpp is not installed."""
        if missing():
            return None
        file = self._scratch / f"{self.plan.model}-{precision}.gguf"
        # Random weights have no tokenizer; llama.cpp wants one, and ids go in all the same.
        write_gguf(self.folder, file, DTYPES[precision], tokenizer="tiny")
        return LlamaCpp(file, DTYPES[precision], self.plan.most_tokens)


def race_fp32(race: Race, load: Entries) -> dict[str, Any]:
    """Identical tokens, then slmlab against both."""
    ours, hf, gguf = load.slmlab("fp32"), load.transformers("fp32"), load.llama_cpp("fp32")
    prompts = [race.prompt(race.plan.prompt_tokens, start) for start in range(4)]
    others: list[Engine] = [hf] if gguf is None else [hf, gguf]
    identity = same_tokens(ours, others, prompts, race.plan.identity_tokens)
    rivals = {
        "slmlab_over_transformers": Entry("fp32", hf),
        "slmlab_over_llama_cpp": None if gguf is None else Entry("fp32", gguf),
    }
    ratios = race.compete(Entry("fp32", ours), rivals)
    return {"fp32": {**ratios, "identity": dataclasses.asdict(identity)}}


def race_16_bits(race: Race, load: Entries) -> dict[str, Any]:
    """Close logits, then slmlab in both formats against transformers and against llama.cpp."""
    prompt = race.prompt(race.plan.prompt_tokens)
    fp16, bf16 = load.slmlab("fp16"), load.slmlab("bf16")
    hf_fp16, hf_bf16 = load.transformers("fp16"), load.transformers("bf16")
    gguf = load.llama_cpp("fp16")
    apart = {
        "fp16": logit_difference(fp16, hf_fp16, prompt),
        "bf16": logit_difference(bf16, hf_bf16, prompt),
    }
    fp16_rivals = {
        "slmlab_over_transformers": Entry("fp16", hf_fp16),
        "slmlab_over_transformers_bf16": Entry("bf16", hf_bf16),
        "slmlab_over_llama_cpp": None if gguf is None else Entry("fp16", gguf),
    }
    ratios = {
        "fp16": race.compete(Entry("fp16", fp16), fp16_rivals),
        "bf16": race.compete(
            Entry("bf16", bf16), {"slmlab_over_transformers": Entry("bf16", hf_bf16)}
        ),
    }
    return {
        name: {**ratio, "relative_logit_difference": apart[name]} for name, ratio in ratios.items()
    }


def measure(plans: Sequence[Plan], roof_seconds: float) -> dict[str, Any]:
    """The JSON object. Raises ValueError where engines that should agree do not."""
    roofs = [Roofline.measure(roof_seconds)]
    finished: dict[str, tuple[Race, dict[str, Any]]] = {}
    for plan in plans:
        with tempfile.TemporaryDirectory() as scratch:
            load = Entries(plan, Path(scratch))
            race = Race(plan, read_config(load.folder))
            results = {**race_fp32(race, load), **race_16_bits(race, load)}
            finished[plan.model] = (race, results)
        roofs.append(Roofline.measure(roof_seconds))
    # Other programs only take bandwidth away, so the fastest of the run is the roof.
    roof = max(roofs, key=lambda each: each.bandwidth_gb_s)
    reason = missing()
    measured: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "read_gb_s": round(roof.bandwidth_gb_s, 1),
        "read_gb_s_each_time": [round(each.bandwidth_gb_s, 1) for each in roofs],
        "llama_cpp": None if reason else f"xllamacpp {version('xllamacpp')}",
        "llama_cpp_left_out": reason,
        "models": {},
    }
    for name, (race, results) in finished.items():
        for precision in results:
            results[precision].update(race.rates(precision, roof))
        measured["models"][name] = {
            "parameters": race.config.parameter_count(),
            "plan": dataclasses.asdict(race.plan),
            **results,
        }
    measured["aims"] = [
        {
            "model": model,
            "precision": precision,
            "decode": ratio,
            "wanted": wanted,
            "measured": measured["models"][model][precision]["decode"][ratio]["ratio"],
        }
        for model, precision, ratio, wanted in AIMS
        if model in measured["models"]
    ]
    return measured


def show(measured: dict[str, Any], console: Console) -> None:
    """The tables: every ratio, then every engine."""
    ratios = Table("model", "precision", "ratio of speeds", "what", "ratio", "low", "high", "n")
    engines = Table("model", "precision", "engine", "decode/s", "of the ceiling", "prefill/s")
    for model, precisions in measured["models"].items():
        for precision in DTYPES:
            result = precisions[precision]
            for what in ("decode", "prefill"):
                for name, ratio in result[what].items():
                    numbers = [
                        str(ratio[k]) if ratio else "-" for k in ("ratio", "low", "high", "n")
                    ]
                    ratios.add_row(model, precision, name, what, *numbers)
            for name, row in result["engines"].items():
                share = row["fraction_of_bandwidth_ceiling"]
                engines.add_row(
                    model,
                    precision,
                    name,
                    str(row["decode_tokens_per_second"] or "-"),
                    "-" if share is None else f"{share:.0%}",
                    str(row["prefill_tokens_per_second"]),
                )
    console.print(ratios, engines)
    console.print(f"one thread reads {measured['read_gb_s']} GB/s here")
    if measured["llama_cpp_left_out"]:
        console.print(measured["llama_cpp_left_out"], markup=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--short", action="store_true", help="tiny only and a few tokens")
    short = parser.parse_args(arguments).short
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    measured = measure(SHORT, roof_seconds=0.2) if short else measure(FULL, roof_seconds=2.0)
    show(measured, Console(width=110))
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
