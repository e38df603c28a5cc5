"""Round to nearest under every kind of scheme: size, damage and speed of one model in one table.

Quality and speed are those of the same object: the float32 model with its linear layers replaced.
Decode steps alternate with those of the float32 model, in processor seconds: others who use the
core slow both alike. Tokens a second are the ratio times float32's undisturbed rate. File bytes are those of the checkpoint that `save_quantized` writes with everything else in fp16.

    python benchmarks/quantization_table.py [--tasks 200] [--repeats 60]

SLMLAB_MODEL names another model than "tiny". Prints a table; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import slmlab
from slmlab.data import evaluation_set
from slmlab.generation import LanguageModel
from slmlab.measure import (
    Roofline,
    interleaved,
    kl_to_reference,
    perplexity,
    predict_decode,
)
from slmlab.measure.tasks import exact_match
from slmlab.quant import linear_layers, model_bytes, parse_scheme, quantize_model, save_quantized

SCHEMES = (
    "float32",
    "float16",
    "int8",
    "int8-g32",
    "int4-row",
    "int4-g128",
    "int4-g64",
    "int4-g32",
    "int4-g32-asym",
    "nf4-g64",
    "nf4-g64-dq",
    "fp4-g64",
    "int3-g32",
    "int2-g32",
)
TEXT, TOKENS = "prose", 2048
CONTEXT = 144  # tokens in the cache where a decode step is timed


def bits_per_weight(model: torch.nn.Module, name: str) -> float:
    """Bits a weight of the linear layers together, metadata included."""
    scheme = parse_scheme(name)
    shapes = [tuple(layer.weight.shape) for layer in linear_layers(model).values()]
    bits = sum(scheme.matrix_bits(rows, columns) for rows, columns in shapes)
    return bits / sum(rows * columns for rows, columns in shapes)


def file_bytes(half: torch.nn.Module, name: str, full: torch.nn.Module) -> int:
    """Bytes of the checkpoint: written and looked at; counted for the two float formats."""
    if parse_scheme(name).is_float:
        return model_bytes(full if name == "float32" else half)
    with tempfile.TemporaryDirectory() as scratch:
        save_quantized(quantize_model(half, name), scratch)
        return sum(path.stat().st_size for path in Path(scratch).glob("*.safetensors"))


def stepper(model: Any) -> Callable[[], None]:
    """One decode step behind ``CONTEXT`` cached tokens, the same one at each call."""
    config = model.config
    cache = slmlab.kv.ContiguousCache(config, max_length=CONTEXT + 1, dtype=model.dtype)
    with torch.inference_mode():
        model(torch.zeros(1, CONTEXT, dtype=torch.int64), cache)
    token = torch.zeros(1, 1, dtype=torch.int64)

    @torch.inference_mode()
    def step() -> None:
        model(token, cache)
        cache.truncate(CONTEXT)

    return step


def speed_over(base: Any, model: Any, repeats: int) -> tuple[float, float, float, float]:
    """Median ratio of processor seconds, its quartiles, and base's fastest step in seconds."""
    timed = interleaved(stepper(base), stepper(model), repeats=repeats, warmup=3)
    ratios = sorted(a / b for a, b in zip(timed.a.process, timed.b.process, strict=True))
    low, high = ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]
    median = statistics.median(timed.a.process) / statistics.median(timed.b.process)
    return median, low, high, min(timed.a.wall)


def row(
    lm: LanguageModel,
    half: torch.nn.Module,
    ids: list[int],
    name: str,
    roof: Roofline,
    options: Any,
) -> dict[str, Any]:
    """Everything about one scheme; tokens a second still as ratios to float32."""
    is_float = parse_scheme(name).is_float
    if name == "float16":
        model: Any = half
    else:
        model = lm.model if is_float else quantize_model(lm.model, name)
    judged = LanguageModel(model, lm.tokenizer)
    kl = kl_to_reference(model, lm.model, ids)
    ratio, low, high, base_seconds = speed_over(lm.model, model, options.repeats)
    predicted = predict_decode(
        lm.model.config,
        name,
        # The ceiling of the bytes: no peak rate, so that arithmetic never limits it.
        (roof.bandwidth_gb_s, None),
        context=CONTEXT,
        kv_dtype="float16" if name == "float16" else "float32",
        head_scheme=name if is_float else "float32",
    )
    tasks = exact_match(judged, "tool_calls", limit=options.tasks)
    return {
        "scheme": name,
        "bits_per_weight": round(bits_per_weight(lm.model, name), 4),
        "file_bytes": file_bytes(half, name, lm.model),
        "kl_nats": kl.mean_kl_nats,
        "argmax_flip_share": kl.argmax_flip_share,
        "perplexity": perplexity(model, ids),
        "tool_calls_right": tasks.right,
        "tool_calls_n": tasks.n,
        "tokens_per_second_predicted": round(predicted.tokens_per_second, 1),
        "speed_over_float32": round(ratio, 3),
        "speed_over_float32_quartiles": [round(low, 3), round(high, 3)],
        "speed_n": options.repeats,
        "float32_step_seconds": base_seconds,
    }


def with_rates(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with tokens a second: each ratio times float32's fastest step of the whole run."""
    base = 1 / min(row["float32_step_seconds"] for row in rows)
    finished = []
    for row in rows:
        low, high = row["speed_over_float32_quartiles"]
        rates = {
            "tokens_per_second_measured": round(base * row["speed_over_float32"], 1),
            "tokens_per_second_low": round(base * low, 1),
            "tokens_per_second_high": round(base * high, 1),
        }
        finished.append({k: v for k, v in row.items() if k != "float32_step_seconds"} | rates)
    return finished


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--tasks", type=int, default=200, help="tool calls to answer")
    parser.add_argument("--repeats", type=int, default=60, help="timed decode steps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lm, half = slmlab.load(), slmlab.load(dtype=torch.float16).model
    text = evaluation_set(TEXT).texts[0]
    ids = list(lm.tokenizer.encode(text))[:TOKENS]
    roof = Roofline.measure()
    rows = []
    for name in SCHEMES:
        rows.append(row(lm, half, ids, name, roof, options))
        last = rows[-1]
        print(
            f"{name:14} {last['bits_per_weight']:7.3f} bits {last['file_bytes'] / 1e6:7.2f} MB  "
            f"KL {last['kl_nats']:9.3g}  flips {last['argmax_flip_share']:6.1%}  "
            f"ppl {last['perplexity']:8.2f}  tools {last['tool_calls_right']}/"
            f"{last['tool_calls_n']}  at most {last['tokens_per_second_predicted']:8.0f} "
            f"tokens/s  {last['speed_over_float32']:5.2f} times float32's speed",
            flush=True,
        )
    measured = {
        "model": os.environ.get("SLMLAB_MODEL") or "tiny",
        "text": TEXT,
        "text_tokens": len(ids),
        "bandwidth_gb_s": round(roof.bandwidth_gb_s, 2),
        "rows": with_rates(rows),
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
