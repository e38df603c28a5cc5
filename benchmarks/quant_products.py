"""One row times a quantised matrix: every scheme against float layers, peers and the memory floor.

Each way multiplies the same row by the same weights and is timed in alternation with torch's fp32
layer: a ratio says how many times as fast it is. The floor is the time to read the stored bytes
once. "4096" is one 4096 x 4096 matrix, "tiny" the products of one decode step of the embedded
model without the head. A library that is not installed is reported as absent. Then the rate at
which float weights become codes, and how exact each result is. Prints tables; the last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import linear

from slmlab.measure import Roofline, interleaved
from slmlab.models import model_directory
from slmlab.models.loading import read_config
from slmlab.models.projection import Projection
from slmlab.quant import QuantizedLinear, quantize_tensor

INTEGERS = ("int8", "int8-asym", "int8-g32", "int4-row", "int4-g32", "int4-g128", "int4-g32-asym")
SCHEMES = (*INTEGERS, "int3-g32", "int2-g32", "nf4-g64", "nf4-g64-dq", "fp4-g64")
PEERS = ("bitsandbytes", "torchao", "onnxruntime", "gguf")
Product = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Way:
    """One way to store a weight and multiply by it.

    prepare: (out, in) fp32 -> a product of a row (1, in) fp32 -> (1, out), and the bytes it
    reads. package: what it needs.
    """

    name: str
    prepare: Callable[[Tensor], tuple[Product, int]]
    package: str | None = None


def _float(dtype: torch.dtype) -> Callable[[Tensor], tuple[Product, int]]:
    def prepare(weight: Tensor) -> tuple[Product, int]:
        stored = weight.to(dtype)
        return lambda x: linear(x.to(dtype), stored), stored.nbytes

    return prepare


def _projection(weight: Tensor) -> tuple[Product, int]:
    layer = Projection(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    return layer.requires_grad_(False).lay_out(), weight.nbytes


def _ours(scheme: str, exact: bool = False) -> Callable[[Tensor], tuple[Product, int]]:
    def prepare(weight: Tensor) -> tuple[Product, int]:
        layer = QuantizedLinear(quantize_tensor(weight, scheme))
        layer.exact = exact
        return layer, layer.nbytes

    return prepare


def _bitsandbytes_4bit(weight: Tensor) -> tuple[Product, int]:
    import bitsandbytes as bnb

    rows, columns = weight.shape
    layer = bnb.nn.Linear4bit(
        columns,
        rows,
        bias=False,
        compute_dtype=torch.bfloat16,
        compress_statistics=False,
        quant_type="nf4",
    )
    layer.load_state_dict({"weight": weight})
    layer = layer.to("cpu").eval().requires_grad_(False)
    return layer, weight.numel() // 2 + 4 * weight.numel() // 64


def _bitsandbytes_8bit(weight: Tensor) -> tuple[Product, int]:
    import bitsandbytes as bnb

    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    rows, columns = weight.shape
    layer = bnb.nn.Linear8bitLt(columns, rows, bias=False, has_fp16_weights=False, threshold=0.0)
    layer.weight = bnb.nn.Int8Params(weight.clone(), requires_grad=False, has_fp16_weights=False)
    layer = layer.to("cpu").eval()
    return lambda x: layer(x.bfloat16()), weight.numel() + 4 * rows


def _torchao_int8(weight: Tensor) -> tuple[Product, int]:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.bfloat16)
    layer.weight.data = weight.bfloat16()
    quantize_(layer.requires_grad_(False), Int8WeightOnlyConfig())
    return lambda x: layer(x.bfloat16()), weight.numel() + 2 * weight.shape[0]


def _matmul_nbits(block: int) -> Callable[[Tensor], tuple[Product, int]]:
    def prepare(weight: Tensor) -> tuple[Product, int]:
        import numpy as np
        import onnx
        import onnxruntime
        from onnx import TensorProto, helper
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        rows, columns = weight.shape
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "product",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, columns])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, rows])],
            [onnx.numpy_helper.from_array(np.ascontiguousarray(weight.t().numpy()), "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
        model.ir_version = 10
        quantizer = MatMulNBitsQuantizer(
            model, bits=4, block_size=block, is_symmetric=True, accuracy_level=4
        )
        quantizer.process()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            quantizer.model.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        nbytes = weight.numel() // 2 + 4 * weight.numel() // block
        return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0]), nbytes

    return prepare


BASELINE = Way("linear fp32", _float(torch.float32))
WAYS = (
    Way("linear bf16", _float(torch.bfloat16)),
    Way("slmlab Projection fp32", _projection),
    *(Way(f"slmlab {scheme}", _ours(scheme)) for scheme in SCHEMES),
    Way("slmlab int4-g32 dequantised each time", _ours("int4-g32", exact=True)),
    Way("bitsandbytes nf4, block 64", _bitsandbytes_4bit, "bitsandbytes"),
    Way("bitsandbytes Linear8bitLt", _bitsandbytes_8bit, "bitsandbytes"),
    Way("torchao int8 weight only, eager", _torchao_int8, "torchao"),
    Way("onnxruntime MatMulNBits, block 32", _matmul_nbits(32), "onnxruntime"),
    Way("onnxruntime MatMulNBits, block 128", _matmul_nbits(128), "onnxruntime"),
)


def installed() -> dict[str, str | None]:
    """Version of each peer, None where it is absent."""
    found: dict[str, str | None] = {}
    for name in PEERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def tiny_shapes() -> list[tuple[int, int]]:
    """(out, in) of each linear product of a decode step, fused as the Decoder computes them."""
    config = read_config(model_directory("tiny"))
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    hidden, wide = config.hidden_size, config.intermediate_size
    layer = [(queries + 2 * keys, hidden), (hidden, queries), (2 * wide, hidden), (hidden, wide)]
    return layer * config.num_hidden_layers


def products(
    shapes: Sequence[tuple[int, int]], peers: dict[str, str | None], gb_s: float, repeats: int
) -> dict[str, Any]:
    """{way: figures} for one step through weights of these shapes."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=generator) * shape[1] ** -0.5 for shape in shapes]
    inputs = [torch.randn(1, shape[1], generator=generator) for shape in shapes]
    plain, nbytes = step(BASELINE, weights, inputs)
    wanted = torch.cat(plain(), -1)
    values = sum(weight.numel() for weight in weights)
    results: dict[str, Any] = {}
    for way in WAYS:
        if way.package is not None and peers[way.package] is None:
            results[way.name] = {"left_out": f"{way.package} is absent"}
            continue
        try:
            run, nbytes = step(way, weights, inputs)
            got = torch.cat([part.float() for part in run()], -1)
        except Exception as error:  # each library refuses a shape or a processor in its own way
            results[way.name] = {"left_out": (str(error).splitlines() or [repr(error)])[0]}
            continue
        race = interleaved(plain, run, repeats=repeats, warmup=2)
        results[way.name] = {
            "ratio": round(race.ratio, 2),
            "low": round(race.ratio_low, 2),
            "high": round(race.ratio_high, 2),
            "n": race.n,
            "ms": round(1e3 * race.b.min_seconds, 3),
            "fp32_ms": round(1e3 * race.a.min_seconds, 3),
            "floor_ms": round(nbytes / gb_s / 1e6, 3),
            "bits_per_weight": round(8 * nbytes / values, 3),
            "rms_error": round(((got - wanted).norm() / wanted.norm()).item(), 5),
        }
    return results


def step(
    way: Way, weights: Sequence[Tensor], inputs: Sequence[Tensor]
) -> tuple[Callable[[], list[Tensor]], int]:
    """All products of one step as a callable, and the bytes of their weights."""
    prepared = [way.prepare(weight) for weight in weights]
    ready = [product for product, _ in prepared]
    return lambda: [product(x) for product, x in zip(ready, inputs)], sum(n for _, n in prepared)


def throughput(peers: dict[str, str | None], size: int, repeats: int) -> dict[str, Any]:
    """Float32 megabytes a second that become codes, against gguf-py's Q4_0 in alternation where
    it is installed, else alone."""
    weight = torch.randn(size, size, generator=torch.Generator().manual_seed(0))
    schemes = ("int8", "int4-g32", "int4-g32-asym", "int3-g32", "nf4-g64")
    ways: dict[str, Callable[[], Any]] = {
        f"slmlab {scheme}": lambda scheme=scheme: quantize_tensor(weight, scheme)  # type: ignore[misc]
        for scheme in schemes
    }
    if peers["bitsandbytes"]:
        import bitsandbytes.functional as bnb

        ways["bitsandbytes nf4, block 64"] = lambda: bnb.quantize_4bit(
            weight, blocksize=64, quant_type="nf4"
        )
    q4_0: Callable[[], Any] | None = None
    if peers["gguf"]:
        import gguf

        q4_0 = lambda: gguf.quantize(weight.numpy(), gguf.GGMLQuantizationType.Q4_0)  # noqa: E731
    results: dict[str, Any] = {}
    for name, run in ways.items():
        race = interleaved(q4_0 or run, run, repeats=repeats)
        results[name] = {
            "mb_s": round(weight.nbytes / race.b.min_seconds / 1e6),
            "gguf_q4_0_mb_s": round(weight.nbytes / race.a.min_seconds / 1e6) if q4_0 else None,
            "times_gguf_q4_0": round(race.ratio, 2) if q4_0 else None,
        }
    return results


def show(measured: dict[str, Any], console: Console) -> None:
    keys = ("ratio", "low", "high", "ms", "fp32_ms", "floor_ms", "bits_per_weight", "rms_error")
    for shape, ways in measured["products"].items():
        table = Table("way", *keys, title=f"one row times {shape}, one thread")
        for name, row in ways.items():
            table.add_row(
                name, *([row["left_out"]] if "left_out" in row else [str(row[k]) for k in keys])
            )
        console.print(table)
    table = Table("quantising", "MB/s", "gguf Q4_0 MB/s", "times gguf", title="fp32 in, one thread")
    for name, row in measured["throughput"].items():
        table.add_row(name, *("absent" if value is None else str(value) for value in row.values()))
    console.print(table)
    absent = [name for name, found in measured["peers"].items() if found is None]
    console.print(f"one thread reads {measured['read_gb_s']} GB/s; absent: {absent or 'none'}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--short", action="store_true", help="small matrices, few repeats")
    short = parser.parse_args(arguments).short
    torch.set_num_threads(1)
    torch.manual_seed(0)
    peers = installed()
    size = 512 if short else 4096
    shapes = {str(size): [(size, size)], "tiny": tiny_shapes()}
    with torch.inference_mode():
        gb_s = Roofline.measure(0.3 if short else 2.0).bandwidth_gb_s
        measured = {
            "threads": torch.get_num_threads(),
            "read_gb_s": round(gb_s, 1),
            "peers": peers,
            "products": {
                name: products(each, peers, gb_s, 3 if short else 21)
                for name, each in shapes.items()
            },
            "throughput": throughput(peers, size, 2 if short else 7),
        }
    show(measured, Console(width=120))
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
