"""Mixed bits (the idea of EXL2): spend a byte budget where a byte saves the most error.

Each layer could be stored under each of several schemes. For each pair we know the bytes, metadata
included, and measure the damage: how far the model's guesses move on calibration text when only
this layer is quantised, in nats a token. Small damages add up, so the best plan under a budget is
a knapsack with one choice a layer. Greedy exchange along each layer's lower convex hull solves it
to within a single step.

The damage of one layer needs no forward pass of its own. To second order the KL divergence between
the model and one whose output y_r of a layer is off by e_r is 1/2 sum_r E[g_r^2] E[e_r^2], with
g_r the gradient of the log-probability of a token *drawn from the model* (the diagonal of the
Fisher information); and E[e_r^2] follows from the second moment of the layer's inputs. One pass
forward and back serves every candidate. ``sensitivity="kl"`` measures the divergence itself, one
forward pass for every layer and candidate: tests and the lesson hold the two side by side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from slmlab.quant.calibration import (
    LayerStatistics,
    batches,
    calibrating,
    calibration_rows,
    check_reached,
    inputs_of,
    minimum_tokens,
    output_error,
    run,
)
from slmlab.quant.grid import quantising
from slmlab.quant.model import in_layer, linear_layers
from slmlab.quant.tensor import quantize_tensor

CANDIDATES = (
    "int2-g32-asym",
    "int3-row",
    "int3-g128-asym",
    "int3-g64-asym",
    "int3-g32-asym",
    "int4-row",
    "int4-g128-asym",
    "int4-g64-asym",
    "int4-g32-asym",
    "int8",
)
MEASURED_TOKENS = 4096  # of the calibration ids; four times fewer choose nearly the same plan


@dataclass(frozen=True)
class Option:
    """One way to store one layer. nbytes: with metadata. error: damage, nats a token."""

    scheme: str
    nbytes: int
    error: float


def allocate_bits(
    model: nn.Module,
    calibration: Tensor,
    bits_per_weight: float,
    *,
    candidates: Sequence[str] = CANDIDATES,
    sensitivity: str = "fisher",
    seed: int = 0,
) -> dict[str, str]:
    """Choose a scheme for every linear layer so that the whole stays within a size.

    Args:
        model: Decoder or transformers model, not quantised; unchanged afterwards.
        calibration: token ids, int64 (rows, time) or (tokens,). At most ``MEASURED_TOKENS`` are
            used, spread over the rows.
        bits_per_weight: budget, scales, zero points and padding counted, over all the layers that
            ``quantize_model`` quantises: 3.75 is 3.75 * weights / 8 bytes.
        candidates: schemes to choose among.
        sensitivity: "fisher" (one pass) or "kl" (one pass a layer and candidate).
        seed: of the tokens drawn from the model, for "fisher".

    Returns:
        {layer name: scheme}, which ``quantize_model`` takes in place of a scheme.

    Raises:
        ValueError: a budget below the smallest candidates (the message says what is possible), no
            or unknown candidates, another sensitivity, too few tokens, a model without layers.
    """
    if isinstance(bits_per_weight, bool) or not isinstance(bits_per_weight, (int, float)):
        raise TypeError(f"bits_per_weight must be a number, not {type(bits_per_weight).__name__}")
    if sensitivity not in ("fisher", "kl"):
        raise ValueError(f"sensitivity is {sensitivity!r}: choose 'fisher' or 'kl'")
    if isinstance(candidates, str) or not (candidates := tuple(candidates)):
        raise ValueError(
            "candidates must be a sequence of schemes, such as ('int2-g32', 'int4-g32')"
        )
    layers = linear_layers(model)
    if not layers:
        raise ValueError("model has no linear layer to quantise")
    sizes = {
        (name, scheme): quantising(scheme).matrix_bits(*layer.weight.shape) // 8
        for name, layer in layers.items()
        for scheme in candidates
    }
    budget_bytes = _budget(sizes, layers, candidates, bits_per_weight)
    measure = fisher_sensitivity if sensitivity == "fisher" else kl_sensitivity
    errors = measure(model, layers, candidates, calibration, seed)
    options = {
        name: [Option(scheme, sizes[name, scheme], errors[name, scheme]) for scheme in candidates]
        for name in layers
    }
    return {name: option.scheme for name, option in solve(options, budget_bytes).items()}


def _budget(
    sizes: dict[tuple[str, str], int],
    layers: dict[str, nn.Linear],
    candidates: Sequence[str],
    bits_per_weight: float,
) -> int:
    """The budget in bytes. ValueError, with the possible range, where it is too small."""
    weights = sum(layer.weight.numel() for layer in layers.values())
    smallest, largest = (
        8 * sum(pick(sizes[name, scheme] for scheme in candidates) for name in layers) / weights
        for pick in (min, max)
    )
    if not smallest <= bits_per_weight < math.inf:
        raise ValueError(
            f"bits_per_weight={bits_per_weight} is not possible: with these candidates this model "
            f"takes {math.ceil(smallest * 1000) / 1000:.3f} to {largest:.3f}"
        )
    return math.floor(bits_per_weight * weights / 8)


@torch.inference_mode(False)  # whatever the caller's mode is: this one needs gradients
def fisher_sensitivity(
    model: nn.Module,
    layers: Mapping[str, nn.Linear],
    candidates: Sequence[str],
    calibration: Tensor,
    seed: int = 0,
) -> dict[tuple[str, str], float]:
    """Predicted KL in nats a token of quantising each layer alone, for each candidate.

    Returns {(layer name, scheme): error}. Raises as ``allocate_bits``.
    """
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise ValueError(
            "model was built in inference_mode, so nothing can be differentiated: build it outside, "
            "or use sensitivity='kl'"
        )
    rows = _measured(model, layers, calibration)
    device = next(model.parameters()).device
    inputs = {name: LayerStatistics.empty(inputs_of(m), device) for name, m in layers.items()}
    squares = dict.fromkeys(layers, torch.zeros((), dtype=torch.float32, device=device))
    generator = torch.Generator(device).manual_seed(seed)
    outputs: dict[str, Tensor] = {}

    def hook_of(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            inputs[name].add(args[0])
            outputs[name] = output if output.requires_grad else output.requires_grad_()

        return hook

    handles = [layer.register_forward_hook(hook_of(name)) for name, layer in layers.items()]
    try:
        with calibrating(model), torch.enable_grad():
            for batch in batches(rows):
                logits = run(model, batch).flatten(0, 1).float()  # (tokens, vocabulary)
                probabilities = logits.detach().softmax(-1)
                drawn = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
                loss = functional.cross_entropy(logits, drawn, reduction="sum")
                gradients = torch.autograd.grad(loss, list(outputs.values()), allow_unused=True)
                for name, gradient in zip(outputs, gradients):
                    if gradient is not None:  # None: the logits do not depend on that layer
                        seen = gradient.float().flatten(0, -2).square().sum(0)  # (out,)
                        squares[name] = squares[name] + seen
                outputs.clear()
    finally:
        for handle in handles:
            handle.remove()

    check_reached(inputs)
    errors = {}
    with calibrating(model):
        for name, layer in layers.items():
            mean_squares = squares[name] / inputs[name].tokens  # (out,), or () where all are 0
            for scheme in candidates:
                with in_layer(name):
                    rounded = quantize_tensor(layer.weight, scheme).dequantize()
                moved = output_error(rounded - layer.weight.float(), inputs[name].second_moment)
                errors[name, scheme] = 0.5 * float((mean_squares * moved).sum())
    return errors


def kl_sensitivity(
    model: nn.Module,
    layers: Mapping[str, nn.Linear],
    candidates: Sequence[str],
    calibration: Tensor,
    seed: int = 0,
) -> dict[tuple[str, str], float]:
    """Measured KL in nats a token of quantising each layer alone; arguments as above.

    The logits of all tokens stay in memory: tokens * vocabulary * 4 bytes.
    """
    rows = _measured(model, layers, calibration)
    errors = {}
    with calibrating(model):
        reference = [run(model, batch).float().log_softmax(-1) for batch in batches(rows)]
        for name, layer in layers.items():
            original = layer.weight.data
            try:
                for scheme in candidates:
                    with in_layer(name):
                        rounded = quantize_tensor(original, scheme).dequantize()
                    layer.weight.data = rounded.to(original.dtype)
                    total = 0.0
                    for batch, p in zip(batches(rows), reference):
                        q = run(model, batch).float().log_softmax(-1)
                        total += float((p.exp() * (p - q)).sum())
                    errors[name, scheme] = total / rows.numel()
            finally:
                layer.weight.data = original
    return errors


def _measured(model: nn.Module, layers: Mapping[str, nn.Linear], calibration: Tensor) -> Tensor:
    """At most ``MEASURED_TOKENS`` of the rows, evenly spread: texts come sorted by kind."""
    rows = calibration_rows(calibration, minimum_tokens(layers.values()), model).clone()
    rows = rows[:, :MEASURED_TOKENS]
    count = MEASURED_TOKENS // rows.shape[1]
    if count >= rows.shape[0]:
        return rows
    return rows[torch.linspace(0, rows.shape[0] - 1, count).round().long()]


def solve(options: Mapping[str, Sequence[Option]], budget_bytes: int) -> dict[str, Option]:
    """One option a layer, so that the errors sum to little and the bytes to the budget at most.

    Starts from each layer's smallest option and takes upgrades in order of error saved a byte,
    along the lower convex hull of each layer's options. Until the first upgrade that does not fit
    the plan is the best there is for its size; the budget left over goes to what still fits.

    Raises ValueError where even the smallest options exceed the budget.
    """
    hulls = {name: _lower_hull(choices) for name, choices in options.items()}
    chosen = dict.fromkeys(hulls, 0)
    left = budget_bytes - sum(hull[0].nbytes for hull in hulls.values())
    if left < 0:
        raise ValueError(
            f"budget_bytes={budget_bytes} is below {budget_bytes - left}, the sum of the smallest "
            "options: allow more bytes, or add smaller candidates"
        )
    upgrades = sorted(
        (
            (_saved_per_byte(hull[step], hull[step + 1]), name, step)
            for name, hull in hulls.items()
            for step in range(len(hull) - 1)
        ),
        key=lambda upgrade: -upgrade[0],
    )
    for _, name, step in upgrades:
        # Where an upgrade did not fit, the later ones of that layer, larger still, fail as well.
        price = hulls[name][step + 1].nbytes - hulls[name][chosen[name]].nbytes
        if price <= left:
            chosen[name], left = step + 1, left - price
    return {name: hull[chosen[name]] for name, hull in hulls.items()}


def _saved_per_byte(before: Option, after: Option) -> float:
    return (before.error - after.error) / (after.nbytes - before.nbytes)


def _lower_hull(choices: Sequence[Option]) -> list[Option]:
    """Options in order of bytes, each step saving less a byte than the one before."""
    hull: list[Option] = []
    for option in sorted(choices, key=lambda o: (o.nbytes, o.error)):
        if hull and option.error >= hull[-1].error:
            continue
        while len(hull) > 1 and _saved_per_byte(hull[-2], hull[-1]) <= _saved_per_byte(
            hull[-1], option
        ):
            hull.pop()
        hull.append(option)
    return hull
