"""Batch-1 decode with quantised weights on one thread: slmlab, llama.cpp and transformers bf16.

Random weights of SmolLM2-135M's shape. slmlab runs int8 (one scale a row) and int4-g32, each with
the head left in float16 and with a head of the same scheme; the head is a fifth of this model.
llama.cpp runs Q8_0 and Q4_0 files from gguf-py's quantiser, all matrices quantised, so its head
is too. Every pair is timed in alternation in this run; a ratio says how many times as fast slmlab
is. Processor time a token stands beside it, since it varies less where others use the core. Bytes
per token are those stored: what a kernel lays out anew in memory is a little larger.
Prints tables; the last line is JSON.

    python benchmarks/quant_decode_race.py            about two minutes
    python benchmarks/quant_decode_race.py --short    tiny and a few tokens: does it run?
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

from benchmarks._engines import Slmlab
from benchmarks._gguf import write_gguf
from benchmarks._llama_cpp import LlamaCpp, missing
from benchmarks._race import Entry, Plan, Race
from benchmarks.decoder_race import Entries
from slmlab.measure import Roofline
from slmlab.models.loading import read_config
from slmlab.quant import QuantizedLinear, model_bytes
from slmlab.quant.kernels import PRECISION

FULL = Plan("smollm2_135m", "random", new_tokens=24, decode_repeats=5, prefill_repeats=0)
SHORT = Plan("tiny", "trained", new_tokens=4, decode_repeats=1, prefill_repeats=0)
# scheme -> llama.cpp's format of as many bits, and the name of ours that stores as much as that
FORMATS = {"int8": ("Q8_0", "int8-g32"), "int4-g32": ("Q4_0", "int4-g32")}
# (scheme, ratio of decode speeds, wanted), each with either head
AIMS = (
    ("int4-g32", "slmlab_over_transformers_bf16", 2.0),
    ("int4-g32", "slmlab_over_llama_cpp", 0.7),
)
# The kernels round thrice a product, PRECISION of its terms; so many layers add up to this much.
LARGEST_DIFFERENCE = 8 * PRECISION


class Contest:
    """The engines of one model, all from the same files, and the pairs they were timed in."""

    def __init__(self, plan: Plan, scratch: Path) -> None:
        self.load = Entries(plan, scratch)
        self.race = Race(plan, read_config(self.load.folder))
        self._scratch = scratch
        self._theirs = Entry("bf16", self.load.transformers("bf16"))

    def run(self) -> dict[str, Any]:
        """{scheme: {head: results}}; rates come later, when the roof is known."""
        results: dict[str, Any] = {}
        for scheme, (quantization, _) in FORMATS.items():
            gguf = self._llama_cpp(quantization)
            results[scheme] = {}
            for head in (None, scheme):
                engine = Slmlab(self.load.folder, torch.float16, scheme, head)
                apart = kernel_difference(engine, self.race.prompt(self.race.plan.prompt_tokens))
                ratios = self.race.compete(
                    Entry(entry_name(scheme, head), engine),
                    {
                        "slmlab_over_transformers_bf16": self._theirs,
                        "slmlab_over_llama_cpp": None
                        if gguf is None
                        else Entry(quantization, gguf),
                    },
                )
                results[scheme]["head_float16" if head is None else "head_same"] = {
                    "head_scheme": head,
                    "decode": ratios["decode"],
                    "stored_bytes": model_bytes(engine.model),
                    "kernel_difference": apart,
                }
        return results

    def engines(self, roof: Roofline) -> dict[str, Any]:
        """{engine and format: bytes per token, rate, share of the ceiling}."""
        stored: dict[str, tuple[str, str | None]] = {"bf16": ("bfloat16", None)}
        for scheme, (quantization, same_bits) in FORMATS.items():
            stored[quantization] = (same_bits, same_bits)
            for head in (None, scheme):
                stored[entry_name(scheme, head)] = (scheme, head)
        rows: dict[str, Any] = {}
        for precision, (scheme, head) in stored.items():
            rates = self.race.rates(precision, roof, scheme, head)
            for engine, row in rates["engines"].items():
                rows[f"{engine} {precision}"] = {"bytes_per_token": rates["bytes_per_token"], **row}
        return rows

    def _llama_cpp(self, quantization: str) -> LlamaCpp | None:
        """None where llama.cpp is not installed."""
        if missing():
            return None
        file = self._scratch / f"{quantization}.gguf"
        # Random weights have no tokenizer; llama.cpp wants one, and ids go in all the same.
        write_gguf(self.load.folder, file, torch.float16, "tiny", quantization)
        return LlamaCpp(file, torch.float16, self.race.plan.most_tokens)


def entry_name(scheme: str, head: str | None) -> str:
    """How the results call one of slmlab's formats."""
    return f"{scheme}, head {head or 'float16'}"


def cpu_ratio(engines: dict[str, Any], scheme: str, head: str | None, ratio: str) -> float | None:
    """The rival's processor time a token over slmlab's; None where one of them has none."""
    rival = "transformers bf16" if "transformers" in ratio else f"llama_cpp {FORMATS[scheme][0]}"
    theirs = engines.get(rival, {}).get("cpu_ms_per_token")
    ours = engines[f"slmlab {entry_name(scheme, head)}"]["cpu_ms_per_token"]
    return round(theirs / ours, 2) if theirs and ours else None


@torch.inference_mode()
def kernel_difference(engine: Slmlab, prompt: list[int]) -> float:
    """Largest difference that the kernels make to the next logits, over the largest logit.

    Compared with the same codes, dequantised and multiplied. Raises ValueError where it exceeds
    what the kernels' rounding explains.
    """
    layers = [layer for layer in engine.model.modules() if isinstance(layer, QuantizedLinear)]
    fast = engine.next_logits(prompt)
    for layer in layers:
        layer.exact = True
    exact = engine.next_logits(prompt)
    for layer in layers:
        layer.exact = False
    difference = ((fast - exact).abs().max() / exact.abs().max()).item()
    if not difference <= LARGEST_DIFFERENCE:
        raise ValueError(
            f"the kernels of {layers[0].scheme.name} change logits by {difference:.2g} of the "
            f"largest, more than {LARGEST_DIFFERENCE:.2g}"
        )
    return round(difference, 5)


def measure(plan: Plan, roof_seconds: float) -> dict[str, Any]:
    """The JSON object. Raises ValueError where the kernels are off."""
    before = Roofline.measure(roof_seconds)
    with tempfile.TemporaryDirectory() as scratch:
        contest = Contest(plan, Path(scratch))
        results = contest.run()
    after = Roofline.measure(roof_seconds)
    # Other programs only take bandwidth away, so the fastest of the run is the roof.
    roof = max(before, after, key=lambda each: each.bandwidth_gb_s)
    reason = missing()
    engines = contest.engines(roof)
    aims = [
        {
            "scheme": scheme,
            "head_scheme": of["head_scheme"],
            "decode": ratio,
            "wanted": wanted,
            "measured": found["ratio"] if (found := of["decode"][ratio]) else None,
            "measured_cpu": cpu_ratio(engines, scheme, of["head_scheme"], ratio),
        }
        for scheme, ratio, wanted in AIMS
        for of in results[scheme].values()
    ]
    return {
        "threads": torch.get_num_threads(),
        "read_gb_s": round(roof.bandwidth_gb_s, 1),
        "llama_cpp": None if reason else f"xllamacpp {version('xllamacpp')}",
        "llama_cpp_left_out": reason,
        "transformers": version("transformers"),
        "parameters": contest.race.config.parameter_count(),
        "plan": dataclasses.asdict(plan),
        "schemes": results,
        "engines": engines,
        # The aims are set for the full size; a short run shows only that the race runs.
        "aims": aims if plan == FULL else [],
    }


def show(measured: dict[str, Any], console: Console) -> None:
    """The tables: every ratio, every engine, the aims."""
    ratios = Table("scheme", "head", "ratio of decode speeds", "ratio", "low", "high", "n")
    for scheme, heads in measured["schemes"].items():
        for result in heads.values():
            for name, ratio in result["decode"].items():
                numbers = [str(ratio[k]) if ratio else "-" for k in ("ratio", "low", "high", "n")]
                ratios.add_row(scheme, result["head_scheme"] or "float16", name, *numbers)
    engines = Table("engine", "MB per token", "decode/s", "of the ceiling", "CPU ms a token")
    for name, row in measured["engines"].items():
        share = row["fraction_of_bandwidth_ceiling"]
        engines.add_row(
            name,
            f"{row['bytes_per_token'] / 1e6:.1f}",
            str(row["decode_tokens_per_second"] or "-"),
            "-" if share is None else f"{share:.0%}",
            str(row["cpu_ms_per_token"] or "-"),
        )
    console.print(ratios, engines)
    for aim in measured["aims"]:
        console.print(
            f"{entry_name(aim['scheme'], aim['head_scheme'])}: {aim['decode']} "
            f"{aim['measured'] or 'absent'} ({aim['measured_cpu'] or 'absent'} by processor time), "
            f"wanted {aim['wanted']}"
        )
    console.print(f"one thread reads {measured['read_gb_s']} GB/s here")
    if measured["llama_cpp_left_out"]:
        console.print(measured["llama_cpp_left_out"], markup=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--short", action="store_true", help="tiny and a few tokens")
    short = parser.parse_args(arguments).short
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    measured = measure(SHORT, roof_seconds=0.2) if short else measure(FULL, roof_seconds=2.0)
    show(measured, Console(width=110))
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
