"""The decomposition: which columns, what is stored, what it computes, what it is for."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from slmlab.measure import kl_to_reference
from slmlab.quant import QuantizedLinear, linear_layers, outliers, quantize_tensor
from slmlab.quant.outliers import OutlierLinear, outlier_columns, plant_outliers
from slmlab.quant.smoothquant import W8A8Linear
from tests.quant.small_models import decoder, llama
from tests.quant.told import FORMS, needs_stories260k, stories_model, told


def ids(rows: int = 6, time: int = 40) -> Tensor:
    return torch.randint(0, 90, (rows, time), generator=torch.Generator().manual_seed(1))


def layer_and_inputs() -> tuple[nn.Linear, Tensor, Tensor]:
    """A layer, inputs (3, 20, 32) with outliers, and their columns."""
    random = torch.Generator().manual_seed(0)
    layer, columns = nn.Linear(32, 12).requires_grad_(False), torch.tensor([3, 17])
    x = torch.randn(3, 20, 32, generator=random)
    x[..., columns] *= 40
    return layer, x, columns


def test_columns_are_those_far_above_the_median() -> None:
    magnitude = torch.tensor([1.0, 2.0, 2.0, 12.0, 12.1, 0.5, 90.0])
    assert outlier_columns(magnitude).tolist() == [4, 6]
    assert outlier_columns(magnitude, 20).tolist() == [6]
    assert outlier_columns(torch.ones(5)).tolist() == []
    with pytest.raises(ValueError, match=r"threshold=1 must be above 1"):
        outlier_columns(magnitude, 1)


@pytest.mark.parametrize("scheme", ["int8", "int4-g16", "int3-row", "nf4-g16"])
def test_stored_parts(scheme: str) -> None:
    layer, _, columns = layer_and_inputs()
    split = OutlierLinear.from_linear(layer, columns, scheme)
    others = layer.weight.clone()
    others[:, columns] = 0
    want = quantize_tensor(others, scheme).dequantize()
    want[:, columns] = layer.weight[:, columns].half().float()
    assert torch.equal(split.dequantize(), want)
    stored = quantize_tensor(layer.weight, scheme).nbytes + 12 * 4  # the bias
    assert split.nbytes == stored + 12 * 2 * 2 + 2 * 8  # float16 columns, int64 indices


@pytest.mark.parametrize("scheme", ["int8", "int3-row"])
def test_computes_with_its_weight(scheme: str) -> None:
    layer, x, columns = layer_and_inputs()
    split = OutlierLinear.from_linear(layer, columns, scheme)
    want = nn.functional.linear(x, split.dequantize(), layer.bias)
    torch.testing.assert_close(split(x), want, rtol=1e-4, atol=1e-4)
    assert split(x.half()).dtype == torch.float16


def test_integer_product_of_the_rest() -> None:
    layer, x, columns = layer_and_inputs()
    split = OutlierLinear.from_linear(layer, columns, int8_activations=True)
    ordinary = x.clone()
    ordinary[..., columns] = 0
    scale = ordinary.abs().amax(-1, keepdim=True) / 127
    rounded = (ordinary / scale).round() * scale
    rounded[..., columns] = x[..., columns]
    want = nn.functional.linear(rounded, split.dequantize(), layer.bias)
    torch.testing.assert_close(split(x), want, rtol=1e-4, atol=1e-4)
    exact = layer(x)
    whole = W8A8Linear(QuantizedLinear.from_linear(layer, "int8"))(x)
    assert (split(x) - exact).abs().mean() < 0.3 * (whole - exact).abs().mean()


@given(columns=st.sets(st.integers(0, 31)))
def test_any_columns(columns: set[int]) -> None:
    layer, x, _ = layer_and_inputs()
    chosen = torch.tensor(sorted(columns), dtype=torch.int64)
    split = OutlierLinear.from_linear(layer, chosen, "int8", int8_activations=True)
    assert (split(x) - layer(x)).abs().max() < 2
    error = (split.dequantize() - layer.weight).abs()
    assert bool((error[:, chosen] < 1e-3).all())


def test_strong_channels_are_worth_more_than_random_ones() -> None:
    layer, x, columns = layer_and_inputs()
    exact = layer(x)
    errors = {
        name: (OutlierLinear.from_linear(layer, which, "int3-row")(x) - exact).square().mean()
        for name, which in (("strong", columns), ("random", torch.tensor([5, 20])))
    }
    assert errors["strong"] < 0.2 * errors["random"]


def test_refusals() -> None:
    layer, _, _ = layer_and_inputs()
    for wrong in ([-1], [32], [4, 4]):
        with pytest.raises(ValueError, match=r"distinct and lie in 0\.\.31"):
            OutlierLinear.from_linear(layer, torch.tensor(wrong))
    with pytest.raises(TypeError, match="int64 tensor"):
        OutlierLinear.from_linear(layer, torch.ones(2))
    with pytest.raises(ValueError, match=r"quantised already \(int8\)"):
        int8 = QuantizedLinear.from_linear(layer, "int8")
        OutlierLinear.from_linear(int8, torch.tensor([1]))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs scheme 'int8'"):
        OutlierLinear.from_linear(layer, torch.tensor([1]), "int4-row", int8_activations=True)


@pytest.mark.parametrize("value", [1e7, float("nan"), float("inf")])
def test_columns_that_float16_cannot_hold(value: float) -> None:
    layer, _, columns = layer_and_inputs()
    layer.weight[2, columns[1]] = value
    with pytest.raises(ValueError, match="NaN, infinite or beyond float16's 65504"):
        OutlierLinear.from_linear(layer, columns)


def test_shares_no_memory_with_what_it_was_made_of() -> None:
    layer, x, columns = layer_and_inputs()
    split = OutlierLinear.from_linear(layer, columns)
    before = split(x)
    columns[0] = 5
    for parameter in layer.parameters():
        parameter.add_(1)
    assert torch.equal(split(x), before)


def test_a_model_that_cannot_be_split() -> None:
    model = decoder()
    one = {"layers.0.mlp.down_proj": "int8"}
    for name in ("nope", "norm", "embed_tokens"):
        with pytest.raises(ValueError, match=f"plan names '{name}', which is no linear layer"):
            outliers.apply(model, {name: "int8"}, ids())
    outliers.apply(model, one, ids())
    with pytest.raises(ValueError, match=r"quantised already: layer .*down_proj"):
        outliers.apply(model, one, ids())


@pytest.mark.parametrize("build", [decoder, llama])
def test_finds_exactly_the_planted_columns(build: Any) -> None:
    model = build()
    where = plant_outliers(model, channels=3, factor=60.0)
    counts = outliers.apply(model, dict.fromkeys(linear_layers(model), "int8"), ids())
    for name, count in counts.items():
        split = model.get_submodule(name)
        assert isinstance(split, OutlierLinear)
        assert split.columns.tolist() == where.get(name, []) and count == len(split.columns)


@needs_stories260k
@FORMS
def test_planted_outliers_on_stories260k(form: str) -> None:
    model, held_out = stories_model(form), told(4, 256, seed=1).flatten()
    plant_outliers(model)
    plan = dict.fromkeys(linear_layers(model), "int8")
    kl = {}
    for name, threshold in (("split", 6.0), ("whole", 1e9)):
        quantised = copy.deepcopy(model)
        outliers.apply(quantised, plan, told(8, 256, seed=0), threshold=threshold)
        kl[name] = float(kl_to_reference(quantised, model, held_out))
    assert kl["split"] < 0.2 * kl["whole"]
