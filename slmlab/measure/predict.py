"""The decode ceiling of a model on a device: bytes over bandwidth, FLOP over peak, the slower.

Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009, applied to one decode step:
every weight is read once for the whole batch, every cached key and value once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from slmlab.kv import kv_bytes
from slmlab.measure.architecture import Architecture, read_architecture
from slmlab.measure.devices import Device, device
from slmlab.measure.roofline import Roofline
from slmlab.measure.timing import check_count
from slmlab.quant.scheme import Scheme, parse_scheme


@dataclass(frozen=True)
class Prediction:
    """The most that one decode step can do; real engines stay below.

    tokens_per_second: of the whole batch. weight_bytes: weights read in a step. kv_bytes: keys
    and values read in a step. flops: floating-point operations of a step (a multiply-add is
    two). bandwidth_seconds, compute_seconds: of a step; compute_seconds is None where no peak
    rate is known. limiting: "memory bandwidth" or "compute". stored_bytes: the whole model on
    disk or in memory, a tied head once. scheme, device: their names. context: cached tokens of
    each sequence. batch: sequences.
    """

    tokens_per_second: float
    weight_bytes: int
    kv_bytes: int
    flops: int
    bandwidth_seconds: float
    compute_seconds: float | None
    limiting: str
    stored_bytes: int
    bandwidth_gb_s: float
    peak_gflop_s: float | None
    scheme: str
    device: str
    context: int
    batch: int

    @property
    def step_seconds(self) -> float:
        """Seconds of one step: the slower of memory and arithmetic."""
        return max(self.bandwidth_seconds, self.compute_seconds or 0.0)

    @property
    def tokens_per_second_each(self) -> float:
        """Tokens a second of one sequence of the batch."""
        return self.tokens_per_second / self.batch

    @property
    def intensity_flop_per_byte(self) -> float:
        """Arithmetic intensity of the step, FLOP a byte read."""
        return self.flops / (self.weight_bytes + self.kv_bytes)

    @property
    def ridge_flop_per_byte(self) -> float | None:
        """Intensity at which the device turns from memory-bound to compute-bound."""
        return None if self.peak_gflop_s is None else self.peak_gflop_s / self.bandwidth_gb_s

    def bandwidth_utilisation(self, tokens_per_second: float) -> float:
        """Share (0..1) of the bandwidth that a measured rate (tokens a second) makes use of."""
        if not tokens_per_second > 0:
            raise ValueError(f"tokens_per_second must be positive, got {tokens_per_second}")
        return tokens_per_second / self.batch * self.bandwidth_seconds


def weight_bytes_stored(config: Any, scheme: str, *, head_scheme: str | None = None) -> int:
    """Bytes of the whole model: linears in ``scheme``, embedding, head and norms in 16 bit.

    A tied head is counted once. Under a float scheme everything has that dtype. head_scheme
    stores the vocabulary tables in another scheme. Raises as `predict_decode`.
    """
    shape, parsed = read_architecture(config), parse_scheme(scheme)
    table = _table_scheme(parsed, head_scheme)
    tables = table.matrix_bits(*shape.table) * (1 if shape.tied else 2)
    return math.ceil((_body_bits(shape, parsed) + tables) / 8)


def predict_decode(
    config: Any,
    scheme: str,
    device: Any,
    *,
    context: int = 0,
    batch: int = 1,
    kv_dtype: str | None = None,
    head_scheme: str | None = None,
    head_rows: int | None = None,
) -> Prediction:
    """Upper bound on decode speed, tokens a second, and the resource that sets it.

    config: anything with Hugging Face's attribute names. scheme: of the linears, such as
    "float16" or "int4-g32"; when they are quantised, embedding, head and norms stay in 16 bit.
    device: a name of `devices()`, a Device, a Roofline, a pair (bandwidth in GB/s, peak in
    GFLOP/s or None), or an object with bandwidth_gb_s and gemm_gflop_s. context: tokens in the
    cache of each sequence. batch: sequences decoded together. kv_dtype: of the cache (default
    float32 under scheme float32, else float16). head_scheme: stores the vocabulary tables in
    another scheme than 16 bit, as engines that quantise the head do. head_rows: how many of the
    batch's tokens need logits (default: all); a prefill needs them at its last position only.

    The head is read whole each step. The input embedding gives one row a sequence, which
    counts only when it is not tied: a tied table is read as the head already.
    Raises ValueError for an unknown scheme or device, a device without a bandwidth, a config
    without sizes, context < 0 or batch < 1; TypeError for wrong types.
    """
    check_count("context", context, 0)
    check_count("batch", batch, 1)
    rows = batch if head_rows is None else check_count("head_rows", head_rows, 0)
    shape, parsed = read_architecture(config), parse_scheme(scheme)
    table = _table_scheme(parsed, head_scheme)
    machine_name, bandwidth, peak = _machine(device, parsed.compute_dtype)
    read_bits = _body_bits(shape, parsed) + table.matrix_bits(*shape.table)
    if not shape.tied:
        read_bits += batch * table.matrix_bits(1, shape.table[1])
    weight_bytes = math.ceil(read_bits / 8)
    cache_dtype = kv_dtype or ("float32" if parsed.name == "float32" else "float16")
    cached = kv_bytes(config, context, batch, cache_dtype)
    # At one byte a value the accounting counts values: it caps sliding layers at their window.
    attended = kv_bytes(config, context, batch, "int8") // (2 * shape.kv_heads * shape.head_dim)
    products = batch * shape.linear_parameters + rows * shape.table_parameters
    flops = 2 * products + 4 * attended * shape.heads * shape.head_dim
    bandwidth_seconds = (weight_bytes + cached) / (bandwidth * 1e9)
    compute_seconds = None if peak is None else flops / (peak * 1e9)
    compute_bound = compute_seconds is not None and compute_seconds > bandwidth_seconds
    step = max(bandwidth_seconds, compute_seconds or 0.0)
    return Prediction(
        tokens_per_second=batch / step,
        weight_bytes=weight_bytes,
        kv_bytes=cached,
        flops=flops,
        bandwidth_seconds=bandwidth_seconds,
        compute_seconds=compute_seconds,
        limiting="compute" if compute_bound else "memory bandwidth",
        stored_bytes=weight_bytes_stored(config, scheme, head_scheme=head_scheme),
        bandwidth_gb_s=bandwidth,
        peak_gflop_s=peak,
        scheme=parsed.name,
        device=machine_name,
        context=context,
        batch=batch,
    )


def _table_scheme(scheme: Scheme, head_scheme: str | None) -> Scheme:
    """Scheme of the embedding and the head."""
    if head_scheme is not None:
        return parse_scheme(head_scheme)
    return scheme if scheme.is_float else parse_scheme("float16")


def _body_bits(shape: Architecture, scheme: Scheme) -> int:
    linears = sum(scheme.matrix_bits(r, c) * count for r, c, count in shape.linears)
    return linears + shape.vectors * (scheme.code_bits if scheme.is_float else 16)


def _machine(target: Any, dtype: str) -> tuple[str, float, float | None]:
    """(name, bandwidth in GB/s, peak in GFLOP/s or None) of whatever was passed as a device."""
    if isinstance(target, str):
        target = device(target)
    peak: Any
    if isinstance(target, Device):
        name, bandwidth, peak = target.name, target.bandwidth_gb_s, target.peak_gflop_s(dtype)
        if bandwidth is None:
            raise ValueError(
                f"device {name!r} has no known bandwidth: pass (bandwidth in GB/s, peak in GFLOP/s)"
            )
    elif isinstance(target, tuple | list) and len(target) == 2:
        name, (bandwidth, peak) = "custom", target
    elif hasattr(target, "bandwidth_gb_s") and hasattr(target, "gemm_gflop_s"):
        name = "this machine" if isinstance(target, Roofline) else "custom"
        bandwidth, peak = target.bandwidth_gb_s, target.gemm_gflop_s
    else:
        raise TypeError(
            f"device must be a name, a Device, a Roofline or a pair (bandwidth in GB/s, peak in "
            f"GFLOP/s), got {type(target).__name__}"
        )
    for label, value in (("bandwidth in GB/s", bandwidth), ("peak in GFLOP/s", peak)):
        if value is None and label.startswith("peak"):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"device's {label} must be a number, got {type(value).__name__}")
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"device's {label} must be positive and finite, got {value}")
    return name, float(bandwidth), None if peak is None else float(peak)
