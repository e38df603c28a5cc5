"""Lesson 03's table: what each scheme and each calibrated method makes of the embedded teacher.

For every row: bits a weight of the quantised layers (metadata included), bytes of the checkpoint
as written, KL to the float32 model and flips of its likeliest token on held-out documentation and
code, perplexity on the same text, exact tool calls, tokens/s that the bandwidth allows, and
tokens/s measured. Quality is that of the exact product; speed that of the kernel in use. Methods
are calibrated on calibration_text, which no judge has seen. The last line is JSON.

A method chooses codes, and the time of a decode step does not depend on them. So speed is measured
once a format, on the copy rounded to nearest, in turns with float32 as in quantization_table, and
all methods of the format carry that figure. SmoothQuant's layers round their inputs as well: that
is a format of its own.
"""

from __future__ import annotations

import copy
import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import slmlab
from benchmarks.quantization_table import CONTEXT, speed_over
from slmlab.data import calibration_text, evaluation_set
from slmlab.generation import LanguageModel
from slmlab.kv import kv_bytes
from slmlab.measure import Roofline, position_kl_nats
from slmlab.measure.tasks import exact_match
from slmlab.models.projection import Projection
from slmlab.quant import (
    QuantizedLinear,
    linear_layers,
    model_bytes,
    quantize_model,
    save_quantized,
)
from slmlab.quant.smoothquant import W8A8Linear
from slmlab.widgets.calibrated_quantization_bench import layer_options, mixed_plan

CALIBRATION_BYTES = 16_384
HELD_OUT_TOKENS = 1024  # of each domain
TOOL_CALLS = 30
MIXED_BITS = 3.5
TIMED_STEPS = 60
UNIFORM = (
    ("int8", "rtn"),
    ("int8", "smoothquant"),
    ("int4-g32", "rtn"),
    ("int4-g32", "awq"),
    ("int4-g32", "gptq"),
    ("int3-g32", "rtn"),
    ("int3-g32", "awq"),
    ("int3-g32", "gptq"),
    ("int2-g32", "rtn"),
    ("int2-g32", "gptq"),
)


@dataclass(frozen=True)
class Speed:
    """Decode steps of one format against float32's: the median ratio, its quartiles, and the
    fastest float32 step of that run in seconds. bytes_read: in a step, weights and cache."""

    ratio: float
    low: float
    high: float
    float32_step_seconds: float
    bytes_read: int


@dataclass(frozen=True)
class Row:
    """One copy of the model. kl_nats: a token; flips: share of positions; tool_calls: share of
    ``tool_calls_n`` answered exactly; quantising_seconds: calibration included. bytes_read, all
    tokens_per_second: of the format, behind ``CONTEXT`` cached tokens."""

    scheme: str
    method: str
    bits_per_weight: float
    file_bytes: int
    kl_nats: float
    flips: float
    perplexity: float
    tool_calls: float
    tool_calls_n: int
    bytes_read: int
    tokens_per_second_predicted: float
    tokens_per_second_measured: float
    tokens_per_second_low: float
    tokens_per_second_high: float
    quantising_seconds: float


class Table:
    """The teacher, the texts and the machine that all rows share."""

    def __init__(self) -> None:
        self.lm = slmlab.load("tiny")
        encode = self.lm.tokenizer.encode
        self.calibration = torch.tensor(encode(calibration_text(size_bytes=CALIBRATION_BYTES)))
        texts = ["".join(evaluation_set(name).texts) for name in ("stdlib-docs", "stdlib-code")]
        self.held_out = torch.tensor([encode(text)[:HELD_OUT_TOKENS] for text in texts])
        # In rows that the context of the model holds.
        self.held_out = self.held_out.view(-1, 512)
        self.reference = self.logits(self.lm.model)
        self.roof = Roofline.measure()
        self.speeds: dict[str, Speed] = {}

    @torch.inference_mode()
    def logits(self, model: nn.Module) -> Tensor:
        """(rows, time, vocabulary) on the held-out text."""
        logits: Tensor = model(self.held_out)
        return logits

    def time(self, kind: str, quantised: nn.Module) -> None:
        """Time decode steps of one format in turns with float32's."""
        read = model_bytes(quantised) + kv_bytes(self.lm.model.config, CONTEXT, 1, "float32")
        ratio, low, high, base = speed_over(self.lm.model, quantised, TIMED_STEPS)
        self.speeds[kind] = Speed(ratio, low, high, base, read)

    def rate(self, ratio: float) -> float:
        """Tokens/s of a ratio to float32: float32's fastest step of the whole run times it."""
        return ratio / min(speed.float32_step_seconds for speed in self.speeds.values())

    def row(self, scheme: str, method: str, make: Callable[[], nn.Module]) -> Row:
        """Make a copy and judge it; its format has been timed."""
        start = time.perf_counter()
        quantised = make()
        seconds = time.perf_counter() - start
        exact = LanguageModel(exactly(quantised), self.lm.tokenizer)  # type: ignore[arg-type]
        logits = self.logits(exact.model)
        kl = position_kl_nats(logits.flatten(0, 1), self.reference.flatten(0, 1))
        nll = nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), self.held_out[:, 1:].flatten()
        )
        calls = exact_match(exact, "tool_calls", limit=TOOL_CALLS)
        speed = self.speeds[decode_format(scheme, method)]
        return Row(
            scheme=scheme,
            method=method,
            bits_per_weight=bits_per_weight(self.lm.model, quantised),
            file_bytes=file_bytes(quantised),
            kl_nats=float(kl.mean()),
            flips=float((logits.argmax(-1) != self.reference.argmax(-1)).float().mean()),
            perplexity=math.exp(float(nll)),
            tool_calls=calls.accuracy,
            tool_calls_n=calls.n,
            bytes_read=speed.bytes_read,
            tokens_per_second_predicted=self.roof.bandwidth_gb_s * 1e9 / speed.bytes_read,
            tokens_per_second_measured=self.rate(speed.ratio),
            tokens_per_second_low=self.rate(speed.low),
            tokens_per_second_high=self.rate(speed.high),
            quantising_seconds=seconds,
        )


def decode_format(scheme: str, method: str) -> str:
    """What a decode step's time depends on: the scheme, and whether inputs are rounded too."""
    return f"{scheme}, int8 inputs" if method == "smoothquant" else scheme


def exactly(model: nn.Module) -> nn.Module:
    """The same function with float weights: what the codes stand for, without a kernel's rounding."""
    exact = copy.deepcopy(model)
    for name, module in list(exact.named_modules()):
        # SmoothQuant's layers round their inputs too: they run as they are.
        owner = exact.get_submodule(name.rpartition(".")[0])
        if isinstance(module, QuantizedLinear) and not isinstance(owner, W8A8Linear):
            layer = Projection(module.in_features, module.out_features, bias=False)
            layer.weight = nn.Parameter(module.weight.dequantize(), requires_grad=False)
            exact.set_submodule(name, layer.lay_out())
    return exact


def bits_per_weight(original: nn.Module, quantised: nn.Module) -> float:
    """Bits stored for each weight of the layers that are quantised."""
    layers = linear_layers(original)
    weights = sum(layer.weight.numel() for layer in layers.values())
    left = sum(layer.weight.nbytes for layer in layers.values())
    return 8 * (model_bytes(quantised) - (model_bytes(original) - left)) / weights


def file_bytes(model: nn.Module) -> int:
    """Size of the checkpoint; where none can be written (float32, W8A8), bytes of the tensors."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            save_quantized(model, folder)
        except ValueError:
            return model_bytes(model)
        return sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))


def line(row: Row) -> str:
    """One line of the printed table."""
    return (
        f"{row.scheme:10} {row.method:11} {row.bits_per_weight:6.3f} {row.file_bytes / 1e6:7.2f} "
        f"{row.kl_nats:8.5f} {row.flips:6.1%} {row.perplexity:8.2f} {row.tool_calls:6.0%} "
        f"{row.tokens_per_second_predicted:9.0f} {row.tokens_per_second_measured:8.0f} "
        f"({row.tokens_per_second_low:.0f} to {row.tokens_per_second_high:.0f}) "
        f"{row.quantising_seconds:7.1f}"
    )


def main() -> None:
    torch.set_num_threads(1)
    table = Table()
    model, ids = table.lm.model, table.calibration
    print(
        "scheme     method      bits/w      MB       KL  flips      ppl  tools  predicted measured (quartiles) quant s"
    )
    options = layer_options(model, ids)
    plan = mixed_plan(model, options, MIXED_BITS)
    wanted: list[tuple[str, str, Callable[[], nn.Module]]] = [
        ("float32", "-", lambda: copy.deepcopy(model))
    ]
    for scheme, method in UNIFORM:
        text = None if method == "rtn" else ids

        def make(
            scheme: str = scheme, method: str = method, text: Tensor | None = text
        ) -> nn.Module:
            return quantize_model(model, scheme, method, text)

        wanted.append((scheme, method, make))
    wanted.append((f"mixed-{MIXED_BITS:g}", "rtn", lambda: quantize_model(model, plan)))
    wanted.append(
        (f"mixed-{MIXED_BITS:g}", "gptq", lambda: quantize_model(model, plan, "gptq", ids))
    )
    for scheme, method, make_copy in wanted:
        if decode_format(scheme, method) not in table.speeds:
            table.time(decode_format(scheme, method), make_copy())
    rows = []
    for scheme, method, make_copy in wanted:
        rows.append(table.row(scheme, method, make_copy))
        print(line(rows[-1]), flush=True)
    print(
        json.dumps(
            {
                "model": "tiny",
                "calibration_tokens": ids.numel(),
                "held_out_tokens": table.held_out.numel(),
                "bandwidth_gb_s": table.roof.bandwidth_gb_s,
                "context": CONTEXT,
                "timed_steps": TIMED_STEPS,
                "mixed_plan": plan,
                "rows": [asdict(row) for row in rows],
            }
        )
    )


if __name__ == "__main__":
    main()
