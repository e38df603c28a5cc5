"""What methods that work in place do to a model: shared names, modes, and failures half-way."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slmlab.quant import (
    QuantizedLinear,
    awq,
    gptq,
    linear_layers,
    outliers,
    quantize_model,
    smoothquant,
)
from slmlab.quant.calibration import run
from slmlab.quant.model import METHODS
from tests.quant.small_models import decoder, llama

BUILDERS = pytest.mark.parametrize("build", [decoder, llama])
CALIBRATED = pytest.mark.parametrize("method", [m for m in METHODS if m != "rtn"])
APPLY: dict[str, Any] = {
    "gptq": gptq.apply,
    "awq": awq.apply,
    "smoothquant": smoothquant.apply,
    "outliers": outliers.apply,
}


def ids() -> Tensor:
    return torch.randint(0, 96, (10, 40), generator=torch.Generator().manual_seed(1))


class Twice(nn.Module):
    """One layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(96, 64), nn.Linear(64, 96)
        self.first = self.second = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(self.table(x)).relu()))


def replace(model: Any, method: str) -> Any:
    """The model with all of its layers in int8, by any method or by `outliers`."""
    if method == "outliers":
        outliers.apply(model, dict.fromkeys(linear_layers(model), "int8"), ids())
        return model
    return quantize_model(model, "int8", method, None if method == "rtn" else ids())


@pytest.mark.parametrize("method", ["rtn", "gptq", "outliers"])
def test_a_layer_with_two_names_is_replaced_under_both(method: str) -> None:
    quantised = replace(Twice(), method)
    assert quantised.first is quantised.second
    assert not isinstance(quantised.first, nn.Linear)


@CALIBRATED
def test_a_block_part_with_two_names_is_replaced_under_both(method: str) -> None:
    model: Any = decoder()
    model.layers[1].mlp.again = model.layers[1].mlp.down_proj
    mlp = replace(model, method).layers[1].mlp
    assert mlp.again is mlp.down_proj and not isinstance(mlp.again, nn.Linear)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("method", [*METHODS, "outliers"])
def test_new_layers_are_in_the_mode_of_the_old_ones(method: str, training: bool) -> None:
    quantised = replace(decoder().train(training), method)
    assert all(module.training == training for module in quantised.modules())


@BUILDERS
@pytest.mark.parametrize("method", list(APPLY))
def test_a_late_failure_leaves_the_layers_and_the_function(build: Any, method: str) -> None:
    model = build().requires_grad_(False)
    *_, last = linear_layers(model)
    weight = model.get_submodule(last).weight
    weight[0, 0] = 1e9  # too large for an fp16 scale, and the last layer to be reached
    before = copy.deepcopy(model)
    plan = dict.fromkeys(linear_layers(model), "int8")
    with pytest.raises(ValueError, match=rf"layer .*{last}: w needs a scale of"):
        APPLY[method](model, plan, ids())
    assert list(linear_layers(model)) == list(plan)
    assert not any(isinstance(module, QuantizedLinear) for module in model.modules())
    with torch.no_grad():
        want, got = run(before, ids()), run(model, ids())
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))


@CALIBRATED
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_defaults_and_autocast_change_nothing(method: str, dtype: torch.dtype) -> None:
    model = decoder()
    want = replace(model, method).state_dict()
    torch.set_default_dtype(dtype)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            got = replace(model, method).state_dict()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(got[name], tensor) for name, tensor in want.items())
