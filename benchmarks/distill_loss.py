"""The distillation loss against torch's own pieces, on one thread: time and peak memory.

Value and gradient of each divergence over 2048 positions and 49,152 tokens, timed in alternation
with the same composed of log_softmax and kl_div; peak memory is what torch's allocator reports
beyond the two logit tensors. Whole training steps are in distill_step.py. Prints a table; the last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from slmlab.distill import DIVERGENCES, distillation_loss
from slmlab.measure import interleaved

TEMPERATURE, BETA = 2.0, 0.5
Loss = Callable[[Tensor, Tensor, str], Tensor]


def plain(student: Tensor, teacher: Tensor, divergence: str) -> Tensor:
    """What a training script writes: kl_div(x, y) is KL(y || x)."""
    log_q = functional.log_softmax(student.flatten(0, -2) / TEMPERATURE, -1)
    log_p = functional.log_softmax(teacher.flatten(0, -2) / TEMPERATURE, -1)

    def kl(of: Tensor, to: Tensor) -> Tensor:
        return functional.kl_div(to, of, reduction="batchmean", log_target=True)

    if divergence == "forward_kl":
        value = kl(log_p, log_q)
    elif divergence == "reverse_kl":
        value = kl(log_q, log_p)
    else:
        log_m = torch.logaddexp(log_p + math.log(BETA), log_q + math.log1p(-BETA))
        value = BETA * kl(log_p, log_m) + (1 - BETA) * kl(log_q, log_m)
    return value * TEMPERATURE**2


def ours(student: Tensor, teacher: Tensor, divergence: str) -> Tensor:
    return distillation_loss(student, teacher, TEMPERATURE, divergence, BETA)


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes allocated at a time while ``work`` runs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = seen.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak


def loss_alone(positions: int, vocabulary: int, repeats: int) -> dict[str, Any]:
    student = (3 * torch.randn(positions, vocabulary)).requires_grad_()
    teacher = 3 * torch.randn(positions, vocabulary)
    found = {}
    for divergence in DIVERGENCES:

        def gradient(loss: Loss, divergence: str = divergence) -> tuple[Tensor, Tensor]:
            value = loss(student, teacher, divergence)
            return value.detach(), torch.autograd.grad(value, student)[0]

        (value, pull), (expected, wanted) = gradient(ours), gradient(plain)
        difference = float((pull - wanted).abs().max() / wanted.abs().max())
        value_difference = float((value - expected).abs() / expected)
        del pull, wanted
        peaks = [peak_bytes(partial(gradient, loss)) for loss in (plain, ours)]
        times = interleaved(partial(gradient, plain), partial(gradient, ours), repeats=repeats)
        found[divergence] = {
            "value_difference": value_difference,
            "gradient_difference": difference,
            "plain_peak_mb": round(peaks[0] / 1e6, 1),
            "peak_mb": round(peaks[1] / 1e6, 1),
            "peak_share": round(peaks[1] / peaks[0], 3),
            "plain_ms": round(1e3 * min(times.a.process), 1),
            "ms": round(1e3 * min(times.b.process), 1),
            "speedup": round(times.ratio, 2),
            "low": round(min(times.ratios), 2),
            "high": round(max(times.ratios), 2),
            "n": times.n,
            "tokens_per_cpu_second": round(positions / min(times.b.process)),
        }
    return {
        "positions": positions,
        "vocabulary": vocabulary,
        "logits_mb": round(student.numel() * 4 / 1e6, 1),
        "divergences": found,
    }


def show(measured: dict[str, Any], console: Console) -> None:
    keys = (
        "plain_peak_mb",
        "peak_mb",
        "peak_share",
        "plain_ms",
        "ms",
        "speedup",
        "low",
        "high",
        "n",
    )
    table = Table("divergence", *(key.replace("_", " ") for key in keys))
    for name, row in measured["loss"]["divergences"].items():
        table.add_row(name, *(str(row[key]) for key in keys))
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--short", action="store_true", help="few positions, one pair of each")
    short = parser.parse_args(arguments).short
    torch.set_num_threads(1)
    torch.manual_seed(0)
    measured = {
        "threads": torch.get_num_threads(),
        "temperature": TEMPERATURE,
        "loss": loss_alone(64, 4096, 1) if short else loss_alone(2048, 49152, 3),
    }
    show(measured, Console(width=120))
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
