"""SmoothQuant: equation 4, exact integer products, an unchanged function, planted outliers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import slmlab
from slmlab.data import calibration_text, evaluation_set
from slmlab.measure import perplexity
from slmlab.models import Decoder
from slmlab.quant import QuantizedLinear, linear_layers, quantize_model, smoothquant
from slmlab.quant.calibration import collect_statistics, run
from slmlab.quant.outliers import plant_outliers
from slmlab.quant.smoothquant import (
    W8A8Linear,
    int8_product,
    quantize_activations,
    smooth,
    smoothing_scales,
)
from tests.models.layouts import saved
from tests.quant.small_models import decoder, llama
from tests.quant.told import FORMS, needs_stories260k, stories_model, told

BUILDERS = pytest.mark.parametrize("build", [decoder, llama])
ACTIVATIONS = pytest.mark.parametrize("activations", ["dynamic", "static"])
sizes = st.integers(1, 40)


def ids(rows: int = 6, time: int = 40) -> Tensor:
    return torch.randint(0, 90, (rows, time), generator=torch.Generator().manual_seed(1))


def test_equation_4() -> None:
    got = smoothing_scales(torch.tensor([16.0, 1.0, 4.0]), torch.tensor([1.0, 4.0, 4.0]), 0.5)
    torch.testing.assert_close(got, torch.tensor([4.0, 0.5, 1.0]))
    torch.testing.assert_close(
        smoothing_scales(torch.tensor([16.0]), torch.tensor([2.0]), 0.75),
        torch.tensor([8.0 / 2**0.25]),
    )
    dead = smoothing_scales(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), 0.5)
    assert dead.isfinite().all() and (dead > 0).all()
    with pytest.raises(ValueError, match="alpha=2"):
        smoothing_scales(torch.ones(1), torch.ones(1), 2)


@given(tokens=sizes, columns=sizes, outputs=sizes, seed=st.integers(0, 1000))
def test_integer_product_is_exact(tokens: int, columns: int, outputs: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    a = torch.randint(-127, 128, (tokens, columns), generator=random, dtype=torch.int8)
    b = torch.randint(-127, 128, (outputs, columns), generator=random, dtype=torch.int8)
    got = int8_product(a, b)
    assert got.dtype == torch.int32 and torch.equal(got.long(), a.long() @ b.long().T)


def test_integer_product_holds_the_largest_sums() -> None:
    a = torch.full((3, 4096), 127, dtype=torch.int8)
    assert torch.equal(int8_product(a, -a), torch.full((3, 3), -127 * 127 * 4096).int())


@given(seed=st.integers(0, 1000), columns=sizes)
def test_dynamic_activations_are_within_half_a_step_of_their_token(seed: int, columns: int) -> None:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(5, columns, generator=random) * torch.tensor(
        [[1e-3], [1.0], [50.0], [0.0], [7]]
    )
    codes, scales = quantize_activations(x)
    assert scales.shape == (5, 1) and codes.abs().max() <= 127
    assert ((codes * scales - x).abs() <= 0.5001 * scales).all()
    assert torch.equal(codes[3], torch.zeros(columns, dtype=torch.int8))


def test_static_activations_clip_what_calibration_never_showed() -> None:
    codes, scale = quantize_activations(torch.tensor([[1.0, -5.0, 0.26]]), torch.tensor(0.02))
    assert codes.tolist() == [[50, -127, 13]] and scale == 0.02


@ACTIVATIONS
@pytest.mark.parametrize("bias", [True, False])
def test_layer_computes_with_the_rounded_operands(activations: str, bias: bool) -> None:
    layer, x = nn.Linear(24, 10, bias=bias), torch.randn(2, 7, 24)
    limit = x.abs().max() / 127 if activations == "static" else None
    quantised = W8A8Linear(QuantizedLinear.from_linear(layer, "int8"), limit)
    scale = x.abs().amax(-1, keepdim=True) / 127 if limit is None else limit
    rounded = (x / scale).round() * scale
    want = rounded @ quantised.linear.weight.dequantize().T + (layer.bias if bias else 0)
    with torch.no_grad():
        torch.testing.assert_close(quantised(x), want, rtol=1e-4, atol=1e-5)
    assert quantised(x.half()).dtype == torch.float16
    codes_and_scales = 10 * 24 + 10 * 2 + (40 if bias else 0)
    assert quantised.nbytes == codes_and_scales + (4 if activations == "static" else 0)


def test_other_schemes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scheme is 'int4-g8'.*needs 'int8'"):
        W8A8Linear(QuantizedLinear.from_linear(nn.Linear(8, 8), "int4-g8"))
    with pytest.raises(ValueError, match=r"layer .*: scheme is 'int4-g32'.*needs 'int8'"):
        quantize_model(decoder(), "int4-g32", "smoothquant", ids())
    model = decoder()
    plan = dict.fromkeys(linear_layers(model), "int8")
    with pytest.raises(ValueError, match="choose 'dynamic' or 'static'"):
        smoothquant.apply(model, plan, ids(), activations="both")
    with pytest.raises(ValueError, match="holds 40 tokens, at least 64 are needed"):
        quantize_model(model, "int8", "smoothquant", ids(1, 40))


@pytest.mark.parametrize("kinds", [("norm",), ("norm", "up", "value")])
@pytest.mark.parametrize("layout", ["llama-biases", "qwen2", "qwen3", "mistral-window"])
def test_smoothing_leaves_the_function_alone(
    layout: str, kinds: tuple[str, ...], tmp_path: Path
) -> None:
    for model in (saved(layout, tmp_path), Decoder.from_pretrained(tmp_path)):
        weights = {name: layer.weight.clone() for name, layer in linear_layers(model).items()}
        with torch.no_grad():
            before = run(model, ids())
            smooth(model, ids(), alpha=0.6, kinds=kinds)
            after = run(model, ids())
        assert (after - before).abs().max() < 1e-4 * before.abs().max().clamp(min=1)
        changed = {
            name
            for name, layer in linear_layers(model).items()
            if not torch.allclose(layer.weight, weights[name])
        }
        untouched = ("o_proj", "down_proj") if kinds == ("norm",) else ()
        assert changed == {name for name in weights if not name.endswith(untouched or "?")}


@BUILDERS
def test_smoothing_evens_out_planted_outliers(build: Any) -> None:
    model = build()
    where = plant_outliers(model, channels=2)
    smooth(model, ids())
    layers: dict[str, nn.Module] = dict(linear_layers(model))
    for name, found in collect_statistics(model, layers, ids()).items():
        if name in where:
            assert found.max_magnitude.max() < 4 * found.max_magnitude.median()


@BUILDERS
@ACTIVATIONS
def test_every_planned_layer_becomes_integer(build: Any, activations: str) -> None:
    model = build()
    plan = dict.fromkeys(linear_layers(model), "int8")
    exact = copy.deepcopy(model)
    smoothquant.apply(model, plan, ids(), activations=activations)
    layers = [model.get_submodule(name) for name in plan]
    assert all(isinstance(layer, W8A8Linear) for layer in layers)
    static = [layer.activation_scale is not None for layer in layers]
    assert all(static) if activations == "static" else not any(static)
    with torch.no_grad():
        want, got = run(exact, ids()), run(model, ids())
    assert (got - want).abs().max() < 0.1 * want.abs().max()
    with pytest.raises(ValueError, match="quantised already"):
        quantize_model(model, "int8")


def excess(model: nn.Module, ids: Tensor, held_out: Tensor, **options: Any) -> float:
    """How far W8A8 raises the perplexity, as a share of that of ``model``."""
    quantised = copy.deepcopy(model)
    smoothquant.apply(quantised, dict.fromkeys(linear_layers(model), "int8"), ids, **options)
    window = dict(window=256, stride=256)
    return perplexity(quantised, held_out, **window) / perplexity(model, held_out, **window) - 1


# One scale for a whole layer also has to span the natural outliers before o and down.
FOLDS = {"dynamic": ("norm",), "static": ("norm", "up", "value")}


@needs_stories260k
@FORMS
@ACTIVATIONS
def test_planted_outliers_on_stories260k(form: str, activations: str) -> None:
    model = stories_model(form)
    plant_outliers(model)
    texts = told(8, 256, seed=0), told(4, 256, seed=1).flatten()
    assert excess(model, *texts, activations=activations, alpha=None) > 0.03
    smoothed = excess(model, *texts, activations=activations, kinds=FOLDS[activations])
    assert abs(smoothed) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stdlib-docs", "stdlib-code"])
def test_planted_outliers_on_the_embedded_model(name: str) -> None:
    lm = slmlab.load("tiny")
    plant_outliers(lm.model)
    ids = torch.tensor(lm.tokenizer.encode(calibration_text()))[:8192]
    text = "".join(evaluation_set(name).texts)
    held_out = torch.tensor(lm.tokenizer.encode(text))[:4096]
    for activations, kinds in FOLDS.items():
        smoothed = excess(lm.model, ids, held_out, activations=activations, kinds=kinds)
        assert abs(smoothed) < 0.01
    assert excess(lm.model, ids, held_out, activations="static", alpha=None) > 0.02
