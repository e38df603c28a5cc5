"""GPTQ on whole models: in sequence, with errors that name the layer, and what it gains."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import slmlab
from slmlab.data import calibration_text, evaluation_set
from slmlab.measure import kl_to_reference
from slmlab.quant import QuantizedLinear, gptq, linear_layers, quantize_model
from slmlab.quant.gptq import gptq_quantize
from tests.quant.small_models import decoder, llama
from tests.quant.told import FORMS, needs_stories260k, stories_model, told


def one_layer_at_a_time(model: nn.Module, scheme: str, rows: Tensor) -> None:
    """The sequential method as its definition says: the whole model runs again for each layer."""
    seen: list[Tensor] = []
    for name in linear_layers(model):
        seen.clear()
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        handle = layer.register_forward_pre_hook(
            lambda _, args: seen.append(args[0].flatten(0, -2))
        )
        with torch.no_grad():
            model(rows)
        handle.remove()
        x = torch.cat(seen)
        layer.weight.data = gptq_quantize(layer.weight, x.T @ x / len(x), scheme).dequantize()


@pytest.mark.parametrize("build", [decoder, llama])
def test_layers_in_sequence(build: Any) -> None:
    model = build().requires_grad_(False)
    rows = torch.randint(0, 96, (10, 40), generator=torch.Generator().manual_seed(1))
    quantised = quantize_model(model, "int3-g32", "gptq", rows)
    assert not any(isinstance(m, QuantizedLinear) for m in model.modules())
    want = copy.deepcopy(model)
    one_layer_at_a_time(want, "int3-g32", rows)
    for name in linear_layers(model):
        layer = quantised.get_submodule(name)
        assert isinstance(layer, QuantizedLinear) and layer.scheme.name == "int3-g32"
        same = (layer.weight.dequantize() - want.get_submodule(name).weight).abs() < 1e-4
        assert same.float().mean() > 0.99, name  # type: ignore[union-attr]


def test_later_layers_see_quantised_earlier_ones() -> None:
    model = decoder()
    rows = torch.randint(0, 96, (10, 40), generator=torch.Generator().manual_seed(1))
    last = "layers.1.mlp.down_proj"
    alone = quantize_model(model, {last: "int2-g32"}, "gptq", rows).get_submodule(last)
    among = quantize_model(model, "int2-g32", "gptq", rows).get_submodule(last)
    assert (alone.weight.codes != among.weight.codes).any()  # type: ignore[union-attr]


def test_a_tied_head_is_quantised_beside_its_embedding() -> None:
    model = decoder()
    rows = torch.randint(0, 96, (10, 40), generator=torch.Generator().manual_seed(1))
    quantised = quantize_model(model, "int4-g32", "gptq", rows, head_scheme="int4-g32")
    assert isinstance(quantised.lm_head, QuantizedLinear)
    assert torch.equal(quantised.embed_tokens.weight, model.embed_tokens.weight)


def test_errors_name_the_layer() -> None:
    model = decoder()
    with pytest.raises(ValueError, match="holds 40 tokens, at least 160 are needed"):
        quantize_model(model, "int4-g32", "gptq", torch.zeros(1, 40, dtype=torch.int64))
    rows = torch.zeros(4, 40, dtype=torch.int64)  # one token, again and again
    plan = {"layers.0.mlp.down_proj": "int4-g32"}
    with pytest.raises(ValueError, match=r"layer layers\.0\.mlp\.down_proj: hessian.*singular"):
        gptq.apply(copy.deepcopy(model), plan, rows, damping=0)


@needs_stories260k
@FORMS
@pytest.mark.parametrize("scheme", ["int3-g32", "int2-g32"])
def test_beats_rounding_on_stories260k(form: str, scheme: str) -> None:
    model, held_out = stories_model(form), told(4, 256, seed=1).flatten()
    nearest = quantize_model(model, scheme)
    calibrated = quantize_model(model, scheme, "gptq", told(8, 256, seed=0))
    assert kl(calibrated, model, held_out) < kl(nearest, model, held_out)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["int3-g32", "int2-g32"])
def test_beats_rounding_on_the_embedded_model(scheme: str) -> None:
    lm = slmlab.load("tiny")
    ids = torch.tensor(lm.tokenizer.encode(calibration_text()))
    nearest = quantize_model(lm.model, scheme)
    calibrated = quantize_model(lm.model, scheme, "gptq", ids)
    for name in ("stdlib-docs", "stdlib-code"):
        text = "".join(evaluation_set(name).texts)
        held_out = torch.tensor(lm.tokenizer.encode(text))[:4096]
        assert kl(calibrated, lm.model, held_out) < kl(nearest, lm.model, held_out), name


def kl(model: Any, reference: Any, ids: Tensor) -> float:
    return kl_to_reference(model, reference, ids, window=256, stride=256).mean_kl_nats
