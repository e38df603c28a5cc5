"""The knapsack against every plan there is, sizes against what is stored, damage against KL."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import slmlab
from slmlab.data import calibration_text, evaluation_set
from slmlab.measure import kl_to_reference
from slmlab.quant import QuantizedLinear, linear_layers, quantize_model
from slmlab.quant.allocation import (
    CANDIDATES,
    Option,
    allocate_bits,
    fisher_sensitivity,
    kl_sensitivity,
    solve,
)
from tests.quant.small_models import decoder, llama
from tests.quant.told import FORMS, needs_stories260k, stories_model, told

BUILDERS = pytest.mark.parametrize("build", [decoder, llama])


def ids(rows: int = 6, time: int = 40) -> Tensor:
    return torch.randint(0, 90, (rows, time), generator=torch.Generator().manual_seed(1))


def stored_bits_per_weight(model: nn.Module) -> float:
    layers = [m.weight for m in model.modules() if isinstance(m, QuantizedLinear)]
    return 8 * sum(w.nbytes for w in layers) / sum(w.shape[0] * w.shape[1] for w in layers)


layer_options = st.lists(
    st.tuples(st.integers(1, 40), st.floats(0, 100, allow_subnormal=False)), min_size=1, max_size=4
)


@given(st.lists(layer_options, min_size=1, max_size=4), st.integers(0, 200))
def test_knapsack_is_within_a_step_of_the_best_plan(
    drawn: list[list[tuple[int, float]]], budget: int
) -> None:
    options = {
        f"layer {i}": [Option(f"s{j}", *pair) for j, pair in enumerate(pairs)]
        for i, pairs in enumerate(drawn)
    }
    plans = list(product(*options.values()))
    within = [plan for plan in plans if sum(o.nbytes for o in plan) <= budget]
    if not within:
        smallest = min(sum(o.nbytes for o in plan) for plan in plans)
        with pytest.raises(ValueError, match=f"budget_bytes={budget} is below {smallest}"):
            solve(options, budget)
        return
    chosen = solve(options, budget)
    assert all(chosen[name] in options[name] for name in options)
    assert sum(o.nbytes for o in chosen.values()) <= budget
    error = sum(o.error for o in chosen.values())
    step = max(max(o.error for o in c) - min(o.error for o in c) for c in options.values())
    assert error <= min(sum(o.error for o in plan) for plan in within) + step + 1e-9


def test_knapsack_takes_the_most_error_a_byte_first() -> None:
    options = {
        "a": [Option("low", 10, 5.0), Option("high", 20, 1.0)],  # 0.4 a byte
        "b": [Option("low", 10, 9.0), Option("high", 30, 3.0)],  # 0.3 a byte
        "c": [Option("low", 10, 2.0), Option("worse", 15, 3.0), Option("high", 12, 1.5)],  # 0.25
    }
    schemes = [
        [option.scheme for option in solve(options, budget).values()]
        for budget in (30, 32, 40, 42, 60, 62)
    ]
    assert schemes == [
        ["low", "low", "low"],
        ["low", "low", "high"],
        ["high", "low", "low"],
        ["high", "low", "high"],
        ["high", "high", "low"],
        ["high", "high", "high"],
    ]


@BUILDERS
@pytest.mark.parametrize("budget", [3.2, 3.75, 4.5, 9.0])
def test_budget_holds_for_what_is_stored(build: Any, budget: float) -> None:
    model = build()
    plan = allocate_bits(model, calibration=ids(), bits_per_weight=budget)
    assert list(plan) == list(linear_layers(model)) and set(plan.values()) <= set(CANDIDATES)
    assert stored_bits_per_weight(quantize_model(model, plan)) <= budget


@BUILDERS
def test_impossible_budgets_say_what_is_possible(build: Any) -> None:
    model, options = build(), ("int2-row", "int4-g32")
    lowest = stored_bits_per_weight(quantize_model(model, "int2-row"))
    highest = stored_bits_per_weight(quantize_model(model, "int4-g32"))
    for budget in (1.0, lowest - 0.01, float("nan"), -1):
        with pytest.raises(ValueError, match=rf"takes {lowest:.2f}\d* to {highest:.3f}"):
            allocate_bits(model, ids(), budget, candidates=options)
    plan = allocate_bits(model, ids(), lowest + 0.001, candidates=options)
    assert set(plan.values()) == {"int2-row"}
    plan = allocate_bits(model, ids(), highest, candidates=options)
    assert set(plan.values()) == {"int4-g32"}


@BUILDERS
@pytest.mark.parametrize("measure", [fisher_sensitivity, kl_sensitivity])
def test_measuring_leaves_no_trace(build: Any, measure: Any) -> None:
    model = build().train()
    model.requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measure(model, linear_layers(model), ("int4-g32",), ids())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_measured_damage_is_the_kl_of_that_layer_alone() -> None:
    model, rows = decoder(), ids()
    name, scheme = "layers.1.mlp.down_proj", "int2-g32-asym"
    got = kl_sensitivity(model, linear_layers(model), (scheme,), rows)[name, scheme]
    alone = quantize_model(model, {name: scheme})
    want = sum(float(kl_to_reference(alone, model, row)) for row in rows) / len(rows)
    assert got == pytest.approx(want, rel=1e-3)


@needs_stories260k
@FORMS
def test_predicted_damage_agrees_with_measured(form: str) -> None:
    model, rows = stories_model(form), told(8, 256, seed=0)
    layers, scheme = linear_layers(model), "int4-g32"
    predicted = fisher_sensitivity(model, layers, (scheme,), rows)
    measured = kl_sensitivity(model, layers, (scheme,), rows[:2])
    a, b = (torch.tensor([d[n, scheme] for n in layers]).log() for d in (predicted, measured))
    assert torch.corrcoef(torch.stack((a, b)))[0, 1] > 0.9
    assert (a - b).abs().median() < 0.5  # nats of a logarithm: a factor of 1.6


@needs_stories260k
@FORMS
def test_mixed_bits_on_stories260k(form: str) -> None:
    model, held_out = stories_model(form), told(4, 256, seed=1).flatten()
    uniform = quantize_model(model, "int3-g32")
    budget = stored_bits_per_weight(uniform)
    plan = allocate_bits(model, told(8, 256, seed=0), budget)
    mixed = quantize_model(model, plan)
    assert stored_bits_per_weight(mixed) <= budget and len(set(plan.values())) > 1
    kl = [float(kl_to_reference(quantised, model, held_out)) for quantised in (mixed, uniform)]
    assert kl[0] <= 0.85 * kl[1]


@pytest.mark.slow
@pytest.mark.parametrize("sensitivity", ["fisher", "kl"])
def test_mixed_bits_on_the_embedded_model(
    sensitivity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slmlab.quant.allocation.MEASURED_TOKENS", 1024)
    lm = slmlab.load("tiny")
    uniform = quantize_model(lm.model, "int3-g32")
    budget = stored_bits_per_weight(uniform)
    assert budget == 3.5
    calibration = torch.tensor(lm.tokenizer.encode(calibration_text()))
    candidates = ("int2-g32-asym", "int3-g64-asym", "int4-g64-asym")
    plan = allocate_bits(
        lm.model, calibration, budget, candidates=candidates, sensitivity=sensitivity
    )
    mixed = quantize_model(lm.model, plan)
    assert stored_bits_per_weight(mixed) <= budget
    for name in ("stdlib-docs", "stdlib-code"):
        text = "".join(evaluation_set(name).texts)
        held_out = torch.tensor(lm.tokenizer.encode(text))[:4096]
        kl = [float(kl_to_reference(q, lm.model, held_out)) for q in (mixed, uniform)]
        assert kl[0] <= 0.85 * kl[1], name


class Odd(nn.Module):
    """One layer that the logits do not depend on, one that sees no token, and one never run."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(96, 32), nn.Linear(32, 96)
        self.used, self.unused = nn.Linear(32, 32), nn.Linear(32, 32)
        self.expert: nn.Linear | None = None

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.table(x)
        self.unused(hidden)
        if self.expert is not None:
            self.expert(hidden[:0])
        return self.head(self.used(hidden).relu())


def test_layers_that_the_logits_do_not_depend_on() -> None:
    model, pair = Odd(), ("int2-g32", "int8")
    damage = fisher_sensitivity(model, {"used": model.used, "unused": model.unused}, pair, ids())
    assert damage["unused", "int2-g32"] == 0 < damage["used", "int8"] < damage["used", "int2-g32"]
    model.expert = nn.Linear(32, 32)
    with pytest.raises(ValueError, match="never reached expert"):
        allocate_bits(model, ids(), 4.0, candidates=pair)


def test_does_not_depend_on_modes_and_defaults() -> None:
    model, rows = decoder(), ids()
    layers = linear_layers(model)
    want = fisher_sensitivity(model, layers, ("int4-g32",), rows)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            got = fisher_sensitivity(model, layers, ("int4-g32",), ids())
    finally:
        torch.set_default_dtype(torch.float32)
    assert got == want


def test_one_long_text_is_measured_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slmlab.quant.allocation.MEASURED_TOKENS", 512)
    model, seen = decoder(), []
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0].numel()))
    text = torch.randint(0, 90, (1, 2000), generator=torch.Generator().manual_seed(1))
    for rows in (text, text.view(2, 1000)):
        seen.clear()
        fisher_sensitivity(model, linear_layers(model), ("int8",), rows)
        assert sum(seen) == 512


def test_candidates_may_be_any_iterable() -> None:
    two = ("int8", "int4-g32")
    plan = allocate_bits(decoder(), ids(), 9.0, candidates=iter(two))  # type: ignore[arg-type]
    assert set(plan.values()) <= set(two)


def test_refusals() -> None:
    model: Any = decoder()
    with pytest.raises(TypeError, match=r"pass lm\.model"):
        allocate_bits("tiny", ids(), 4.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'float16' does not quantise"):
        allocate_bits(model, ids(1, 4), 20.0, candidates=("int4-g32", "float16"))
    with pytest.raises(ValueError, match="choose 'fisher' or 'kl'"):
        allocate_bits(model, ids(), 4.0, sensitivity="guess")
    with pytest.raises(ValueError, match="candidates must be"):
        allocate_bits(model, ids(), 4.0, candidates=())
    with pytest.raises(ValueError, match="'int5-g32' is unknown"):
        allocate_bits(model, ids(), 4.0, candidates=("int5-g32",))
    with pytest.raises(TypeError, match="bits_per_weight must be a number"):
        allocate_bits(model, ids(), "4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="holds 40 tokens, at least 160 are needed"):
        allocate_bits(model, ids(1, 40), 4.0)
    with pytest.raises(ValueError, match="quantised already"):
        allocate_bits(quantize_model(model, "int8"), ids(), 4.0)
    with pytest.raises(ValueError, match="built in inference_mode"), torch.inference_mode():
        allocate_bits(decoder(), ids(), 4.0)
    with pytest.raises(ValueError, match="no linear layer"):
        allocate_bits(nn.Embedding(4, 4), ids(), 4.0)
    model.layers[1].mlp.down_proj.weight[0, 0] = 1e9
    for sensitivity in ("fisher", "kl"):
        with pytest.raises(ValueError, match=r"layer layers\.1\.mlp\.down_proj: w needs a scale"):
            allocate_bits(model, ids(), 4.0, sensitivity=sensitivity)
