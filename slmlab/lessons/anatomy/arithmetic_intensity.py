"""anatomy.arithmetic_intensity: FLOP a byte of a matmul, and the batch that reaches the ridge.

Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009.
"""

from __future__ import annotations

import math
import random
from functools import partial

from slmlab.checking import Case, Close, Exercise, Mistake

NAMES = ("m", "k", "n", "weight_bits", "activation_bytes", "bandwidth_gb_s", "peak_gflop_s")


def cases(seed: int) -> list[Case]:
    """One row, several rows, unequal sides, low bits, a matrix too small for the device."""
    draw = random.Random(seed)
    side, bandwidth = 8 * draw.randint(6, 12), draw.choice((10, 20, 50))
    peak = bandwidth * draw.randint(3, 8)
    rows = [
        (1, side, side, 16, 2, bandwidth, peak),
        (draw.randint(2, 9), side, side, 16, 2, bandwidth, peak),
        (draw.randint(2, 9), side, 2 * side, 16, 2, bandwidth, peak),
        (draw.randint(2, 9), side, 2 * side, 4.5, 4, bandwidth, peak),
        (draw.randint(2, 9), 8, 8, 16, 2, bandwidth, 50 * bandwidth),
        (draw.randint(1, 64), 2048, 8192, 4.5, 2, 102, 102 * draw.randint(60, 150)),
    ]
    return [Case(dict(zip(NAMES, row, strict=True))) for row in rows]


def reference(
    m: int,
    k: int,
    n: int,
    weight_bits: float,
    activation_bytes: float,
    bandwidth_gb_s: float,
    peak_gflop_s: float,
) -> dict[str, float]:
    """Intensity of (m, k) x (k, n) in FLOP a byte, the device's ridge, the m that reaches it.

    The weights (k, n) are read once for all m rows; inputs and outputs move once a row. With many
    rows the intensity tends to 2kn / ((k + n) * activation_bytes): a ridge above that is reached
    by no batch, and "batch" is infinite.
    """
    row_flop, row_bytes = 2 * k * n, (k + n) * activation_bytes
    weight_bytes = k * n * weight_bits / 8
    ridge = peak_gflop_s / bandwidth_gb_s
    spare = row_flop - ridge * row_bytes
    return {
        "flop_per_byte": m * row_flop / (weight_bytes + m * row_bytes),
        "ridge": ridge,
        "batch": ridge * weight_bytes / spare if spare > 0 else math.inf,
    }


def _answer(
    m: int,
    k: int,
    n: int,
    weight_bits: float,
    activation_bytes: float,
    bandwidth_gb_s: float,
    peak_gflop_s: float,
    *,
    flop_a_product: int = 2,
    activations_in_batch: bool = True,
    output: int = 1,
    inputs: int = 1,
    inverted: bool = False,
    weights_divided_by: int = 8,
) -> dict[str, float]:
    flop = flop_a_product * k * n
    row_bytes = (inputs * k + output * n) * activation_bytes
    weight_bytes = k * n * weight_bits / weights_divided_by
    ridge = peak_gflop_s / bandwidth_gb_s
    if inverted:
        ridge = bandwidth_gb_s / peak_gflop_s
    read = weight_bytes + m * row_bytes
    spare = flop - (ridge * row_bytes if activations_in_batch else 0)
    batch = ridge * weight_bytes / spare if spare > 0 else math.inf
    return {"flop_per_byte": m * flop / read, "ridge": ridge, "batch": batch}


def _by_bisection(
    m: int,
    k: int,
    n: int,
    weight_bits: float,
    activation_bytes: float,
    bandwidth_gb_s: float,
    peak_gflop_s: float,
) -> dict[str, float]:
    def intensity(rows: float) -> float:
        moved = k * n * weight_bits / 8 + rows * k * activation_bytes + rows * n * activation_bytes
        return 2 * rows * k * n / moved

    ridge = peak_gflop_s / bandwidth_gb_s
    low, high = 0.0, 1.0
    while intensity(high) < ridge and high < 1e15:
        high *= 2
    if intensity(high) < ridge:
        return {"flop_per_byte": intensity(m), "ridge": ridge, "batch": math.inf}
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if intensity(middle) < ridge else (low, middle)
    return {"flop_per_byte": intensity(m), "ridge": ridge, "batch": high}


ARITHMETIC_INTENSITY = Exercise(
    id="anatomy.arithmetic_intensity",
    title="Arithmetic intensity and the ridge",
    points=3,
    minutes=10,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "multiply-adds counted once",
            "Your intensity is half of what it should be: each of the m*k*n products is also added. "
            "How many operations is a multiply-add?",
            partial(_answer, flop_a_product=1),
        ),
        Mistake(
            "output forgotten",
            "Slightly too high: the inputs are read and the weights are read. Where do the m*n "
            "results go?",
            partial(_answer, output=0),
        ),
        Mistake(
            "only weights counted",
            "Too high, and the more so the more rows there are: each row's inputs and outputs move "
            "as well. Which term of your bytes grows with m?",
            partial(_answer, inputs=0, output=0),
        ),
        Mistake(
            "activations ignored in the batch",
            "Your intensity is right and your batch is too small: each row that you add also moves "
            "its own inputs and outputs. What is the intensity of a matmul with that many rows?",
            partial(_answer, activations_in_batch=False),
        ),
        Mistake(
            "ridge inverted",
            "Your intensity is right and your ridge is upside down: it is FLOP a byte, as the "
            "intensity is. Which of bandwidth and peak counts bytes?",
            partial(_answer, inverted=True),
        ),
        Mistake(
            "bits treated as bytes",
            "Your weights weigh eight times too much: weight_bits counts bits and bandwidth counts "
            "bytes. What is k*n*weight_bits in bytes?",
            partial(_answer, weights_divided_by=1),
        ),
    ),
    hints=(
        "At the batch you return, reading and computing take the same time. More rows add FLOP and "
        "activation bytes; the weight bytes stay. Put your batch in for m: is the intensity the "
        "ridge?",
        "m 1, k = n = 64, 16 bits, 2 bytes, 10 GB/s, 40 GFLOP/s. Three numbers: "
        "8,192 FLOP over 8,192 + 256 bytes = 0.9697; ridge 40/10 = 4; batch b with "
        "8,192 b = 4 * (8,192 + 256 b), so b = 32,768 / 7,168 = 4.5714.",
        "flop = 2*m*k*n; moved = k*n*weight_bits/8 + m*(k + n)*activation_bytes\n"
        "ridge = peak / bandwidth\n"
        "solve 2*b*k*n = ridge * (k*n*weight_bits/8 + b*(k + n)*activation_bytes) for b\n"
        "where the factor before b is not positive, no batch is enough: math.inf",
    ),
    compare=Close(rtol=1e-6, atol=1e-9),
    alternatives=(_by_bisection,),
)
