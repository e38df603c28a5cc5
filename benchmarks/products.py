"""The products with the weights in one decode step, by every library at hand, on one thread.

Each way multiplies the same rows by every matrix of a model, in the order of a step, and is timed
in alternation with torch's fp32 product: a ratio says how many times as fast it is. One row is
plain decoding; eight are what verifying a draft costs. Prints a table; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import linear

from benchmarks._smollm2 import SMOLLM2_135M
from slmlab.measure import Roofline, interleaved
from slmlab.models import Decoder, ModelConfig, model_directory
from slmlab.models.loading import read_config
from slmlab.models.packed import PackedWeight
from slmlab.models.projection import Projection

ROWS = (1, 8)


@dataclass(frozen=True)
class Way:
    """One way to compute ``x @ weight.T``. prepare: from the (out, in) fp32 weight to what it
    stores; dtype: of x. bytes_per_value: of the stored weight. tolerance: of the result, relative
    to its largest value. only_one_row: it knows no other product."""

    name: str
    prepare: Callable[[Tensor], Any]
    product: Callable[[Tensor, Any], Tensor]
    dtype: torch.dtype = torch.float32
    bytes_per_value: int = 4
    tolerance: float = 1e-5
    only_one_row: bool = False


def _by_column(weight: Tensor) -> Tensor:
    return weight.t().contiguous().t()


def _all_columns(x: Tensor, weight: Tensor) -> Tensor:
    """One matrix-vector product by numpy's BLAS."""
    product = np.dot(x.view(-1).numpy(), weight.t().numpy())
    return torch.from_numpy(product).view(1, -1)


def _row_by_row(x: Tensor, weight: Tensor) -> Tensor:
    """A dot product a row of the weight, each by numpy's BLAS."""
    product = np.vecdot(weight.numpy(), x.view(-1).numpy())
    return torch.from_numpy(product).view(1, -1)


def _onednn_pack(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.bfloat16(), 1)


def _onednn(x: Tensor, packed: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")


def _packed(x: Tensor, weight: PackedWeight) -> Tensor:
    return weight.product(x, None)


def _fbgemm_pack(weight: Tensor) -> Any:
    return torch.ops.quantized.linear_prepack_fp16(weight, None)


def _fbgemm(x: Tensor, packed: Any) -> Tensor:
    return torch.ops.quantized.linear_dynamic_fp16(x, packed)


BASELINE = Way("linear_fp32_rows", Tensor.contiguous, linear)
WAYS = (
    Way("linear_fp32_columns", _by_column, linear),
    Way("numpy_fp32_columns", _by_column, _all_columns, only_one_row=True),
    Way("numpy_fp32_rows", Tensor.contiguous, _row_by_row, only_one_row=True),
    Way("onednn_fp32_prepacked", PackedWeight, _packed),
    Way("linear_fp16", Tensor.half, linear, torch.float16, 2, 2e-3),
    Way("linear_bf16", Tensor.bfloat16, linear, torch.bfloat16, 2, 2e-2),
    Way("onednn_bf16_prepacked", _onednn_pack, _onednn, torch.bfloat16, 2, 2e-2),
    Way("fbgemm_fp16_prepacked", _fbgemm_pack, _fbgemm, torch.float32, 2, 2e-3),
)


def left_out(way: Way) -> str | None:
    """Why this build of torch cannot do it, in one line; None where it can."""
    try:
        way.product(torch.ones(1, 8, dtype=way.dtype), way.prepare(torch.ones(8, 8)))
    except (AttributeError, RuntimeError) as error:  # NotImplementedError is a RuntimeError
        return str(error).splitlines()[0]
    return None


def weights_of(config: ModelConfig) -> list[Tensor]:
    """One random fp32 matrix for each product of a decode step, the head included."""
    with torch.device("meta"):
        decoder = Decoder(config)
    shapes = [m.weight.shape for m in decoder.modules() if isinstance(m, Projection)]
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=generator).mul_(s[1] ** -0.5) for s in shapes]


def step(
    way: Way, stored: Sequence[Any], inputs: Sequence[Tensor]
) -> Callable[[], Sequence[Tensor]]:
    """All products of one step, as a callable."""
    xs = [x.to(way.dtype) for x in inputs]
    return lambda: [way.product(x, weight) for x, weight in zip(xs, stored)]


def measure(config: ModelConfig, repeats: int) -> dict[str, Any]:
    """{way: {rows: figures}}. Raises ValueError where a way computes something else."""
    weights = weights_of(config)
    values = sum(weight.numel() for weight in weights)
    results: dict[str, Any] = {}
    for way in WAYS:
        reason = left_out(way)
        if reason:
            results[way.name] = {"left_out": reason} | {f"rows_{n}": None for n in ROWS}
            continue
        stored = [way.prepare(weight) for weight in weights]
        results[way.name] = {}
        for rows in ROWS:
            if way.only_one_row and rows > 1:
                results[way.name][f"rows_{rows}"] = None
                continue
            inputs = [torch.randn(rows, weight.shape[1]) for weight in weights]
            plain, other = step(BASELINE, weights, inputs), step(way, stored, inputs)
            _check(way, plain(), other())
            race = interleaved(plain, other, repeats=repeats, warmup=1)
            results[way.name][f"rows_{rows}"] = {
                "ratio": round(race.ratio, 2),
                "low": round(race.ratio_low, 2),
                "high": round(race.ratio_high, 2),
                "n": race.n,
                "ms": round(1e3 * race.b.min_seconds, 2),
                "gb_s": round(values * way.bytes_per_value / race.b.min_seconds / 1e9, 1),
                "linear_fp32_rows_ms": round(1e3 * race.a.min_seconds, 2),
                "linear_fp32_rows_gb_s": round(values * 4 / race.a.min_seconds / 1e9, 1),
            }
    return results


def _check(way: Way, wanted: Sequence[Tensor], found: Sequence[Tensor]) -> None:
    for right, got in zip(wanted, found, strict=True):
        difference = ((got.float() - right).abs().max() / right.abs().max()).item()
        if not difference <= way.tolerance:
            raise ValueError(f"{way.name} is off by {difference:.2g} of the largest value")


def show(measured: dict[str, Any], console: Console) -> None:
    table = Table("model", "way", "rows", "ratio", "low", "high", "n", "ms", "GB/s", "fp32 GB/s")
    for model, ways in measured["models"].items():
        for way, result in ways.items():
            for rows in ROWS:
                row = result[f"rows_{rows}"]
                keys = ("ratio", "low", "high", "n", "ms", "gb_s", "linear_fp32_rows_gb_s")
                cells = [str(row[key]) if row else "-" for key in keys]
                table.add_row(model, way, str(rows), *cells)
            if "left_out" in result:
                console.print(f"{way} is left out: {result['left_out']}", markup=False)
    console.print(table)
    console.print(f"one thread reads {measured['read_gb_s']} GB/s here")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--short", action="store_true", help="tiny only, one pair of each")
    short = parser.parse_args(arguments).short
    torch.set_num_threads(1)
    torch.manual_seed(0)
    models = {"tiny": read_config(model_directory("tiny"))}
    if not short:
        models["smollm2_135m"] = SMOLLM2_135M
    with torch.inference_mode():
        roof = Roofline.measure(0.3 if short else 2.0)
        measured = {
            "threads": torch.get_num_threads(),
            "read_gb_s": round(roof.bandwidth_gb_s, 1),
            "models": {
                name: measure(config, 1 if short else 15) for name, config in models.items()
            },
        }
    show(measured, Console(width=110))
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
