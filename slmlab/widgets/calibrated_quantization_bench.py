"""What the explorer of lesson 03 shows, measured once: plans under budgets, and their damage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slmlab.measure import position_kl_nats
from slmlab.quant import linear_layers, model_bytes, parse_scheme, quantize_model
from slmlab.quant.allocation import CANDIDATES, Option, fisher_sensitivity, solve

BUDGETS = (2.6, 2.8, 3.0, 3.25, 3.5, 4.0, 4.5, 5.0, 6.0)
UNIFORM = ("int2-g32-asym", "int3-g32", "int3-g32-asym", "int4-g32")
_LOGITS = 2**25  # kept of the reference: 128 MiB in float32


class Judge:
    """KL(reference || model) on a fixed text; the reference's logits are computed once.

    reference: Decoder or transformers model. ids: int64 (rows, time), text that no calibration
    has seen. Raises ValueError where the logits would take more than 128 MiB.
    """

    def __init__(self, reference: nn.Module, ids: Tensor) -> None:
        self.ids = ids
        vocabulary = int(reference.config.vocab_size)  # type: ignore[union-attr, arg-type]
        if ids.dim() != 2 or ids.numel() * vocabulary > _LOGITS:
            raise ValueError(
                f"ids {tuple(ids.shape)} must be (rows, time), at most {_LOGITS // vocabulary} "
                "tokens: the logits of the reference are kept"
            )
        self.reference = self._logits(reference)

    @torch.inference_mode()
    def _logits(self, model: nn.Module) -> Tensor:
        """(rows * time, vocabulary) float32."""
        output = model(self.ids)
        logits: Tensor = output if isinstance(output, Tensor) else output.logits
        return logits.flatten(0, 1).float()

    def kl(self, model: nn.Module) -> float:
        """Mean over positions, nats a token."""
        return self.kl_and_flips(model)[0]

    def kl_and_flips(self, model: nn.Module) -> tuple[float, float]:
        """Mean KL in nats a token, and the share of positions whose likeliest token changes."""
        logits = self._logits(model)
        flipped = logits.argmax(-1) != self.reference.argmax(-1)
        kl = position_kl_nats(logits, self.reference)
        return float(kl.mean()), float(flipped.float().mean())


@dataclass(frozen=True)
class Stop:
    """One quantised copy. bits: a weight of the quantised layers, metadata included. nbytes: the
    whole model as stored. kl_nats: a token, held out. plan: layer -> scheme."""

    name: str
    bits: float
    nbytes: int
    kl_nats: float
    plan: Mapping[str, str]


@dataclass(frozen=True)
class Bench:
    """Mixed plans in order of budget, uniform ones to compare with, and the layers' shapes."""

    stops: tuple[Stop, ...]
    uniform: tuple[Stop, ...]
    shapes: Mapping[str, tuple[int, int]]


def layer_options(
    model: nn.Module, calibration: Tensor, candidates: Sequence[str] = CANDIDATES
) -> dict[str, list[Option]]:
    """What each layer could be stored as, its bytes, and the damage that calibration predicts.

    One pass forward and back over ``calibration``; raises as ``fisher_sensitivity``.
    """
    layers = linear_layers(model)
    errors = fisher_sensitivity(model, layers, candidates, calibration)
    return {
        name: [
            Option(
                scheme,
                parse_scheme(scheme).matrix_bits(*layer.weight.shape) // 8,
                errors[name, scheme],
            )
            for scheme in candidates
        ]
        for name, layer in layers.items()
    }


def mixed_plan(
    model: nn.Module, options: Mapping[str, Sequence[Option]], bits_per_weight: float
) -> dict[str, str]:
    """The plan under a budget in bits a weight, metadata included; ValueError below the least."""
    weights = sum(layer.weight.numel() for layer in linear_layers(model).values())
    budget = math.floor(bits_per_weight * weights / 8)
    return {name: option.scheme for name, option in solve(options, budget).items()}


def measure_bench(
    model: nn.Module,
    options: Mapping[str, Sequence[Option]],
    judge: Judge,
    budgets: Sequence[float] = BUDGETS,
    uniform: Sequence[str] = UNIFORM,
) -> Bench:
    """Quantise the model under every budget that is possible, and judge each copy.

    Budgets below the smallest plan are left out. Raises ValueError where none is left.
    """
    shapes = {n: tuple(layer.weight.shape) for n, layer in linear_layers(model).items()}
    weights = sum(rows * columns for rows, columns in shapes.values())
    least = 8 * sum(min(o.nbytes for o in choices) for choices in options.values()) / weights
    possible = [budget for budget in budgets if budget >= least]
    if not possible:
        raise ValueError(f"budgets are all below {least:.3f} bits a weight, the smallest plan")

    def stop(name: str, plan: Mapping[str, str]) -> Stop:
        copy = quantize_model(model, plan)
        bits = sum(parse_scheme(s).matrix_bits(*shapes[n]) for n, s in plan.items()) / weights
        return Stop(name, bits, model_bytes(copy), judge.kl(copy), plan)

    return Bench(
        tuple(stop(f"{b:g}", mixed_plan(model, options, b)) for b in possible),
        tuple(stop(scheme, dict.fromkeys(shapes, scheme)) for scheme in uniform),
        {name: (rows, columns) for name, (rows, columns) in shapes.items()},
    )


def least_budget_as_good(bench: Bench, scheme: str) -> Stop | None:
    """The smallest mixed plan that does no more damage than a uniform scheme; None if none does.

    Raises ValueError for a scheme that was not measured.
    """
    known: dict[str, Any] = {stop.name: stop for stop in bench.uniform}
    if scheme not in known:
        raise ValueError(f"scheme {scheme!r} was not measured; choose one of {', '.join(known)}")
    good = [stop for stop in bench.stops if stop.kl_nats <= known[scheme].kl_nats]
    return min(good, key=lambda stop: stop.bits, default=None)
